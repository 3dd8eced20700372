"""What takes port 6443 in the incident: the CNI plugin portmap, and kube-proxy once the Service has its status.

`portmap_add` runs the real plugin, as containerd does for a pod with `hostPort: 6443`. kube-proxy is not run: its
chains are loaded with iptables-restore, in its own format, under the names its hashes give (KUBE-SVC- is
base32(sha256("default/kubeapi-loadbalancer:https" + "tcp")), pkg/proxy/iptables/proxier.go).
"""

from __future__ import annotations

import json

from k3swatch.demo.lab import HOST, OTHER, POD
from k3swatch.demo.netns import Namespace

PORTMAP = "/usr/lib/cni/portmap"
NETWORK = "cbr0"  # K3s's flannel network
CONTAINER = "dac1a8e982e8a18b1f1516bc93fbf491e8e4298e233b2a312d40cb40ed541352"
CONTAINER_AFTER = (
    "4f0c71e6b1a2d95be1d3a7c0f6248b9a5dc1e07f38b2946a70d5f1c8e93ab264"  # the pod's, after a reboot
)
CNI_DN = "CNI-DN-8e53e6ce9e633f6853fe9"  # "CNI-DN-" + sha512(NETWORK + CONTAINER)[:21], 28 characters in all
SERVICE, CLUSTER_IP = "default/kubeapi-loadbalancer:https", "10.43.49.200"
KUBE_EXT, KUBE_SVC = "KUBE-EXT-2OR7KBIDQLCGN5MJ", "KUBE-SVC-2OR7KBIDQLCGN5MJ"

KUBE_PROXY = f"""*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-5O6AEE3BJJMEVVXZ - [0:0]
:KUBE-SEP-MKZ5TTJEI3R5D5SV - [0:0]
:KUBE-SERVICES - [0:0]
:{KUBE_SVC} - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 10.42.0.0/16 ! -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-5O6AEE3BJJMEVVXZ -s {OTHER}/32 -m comment --comment "{SERVICE}" -j KUBE-MARK-MASQ
-A KUBE-SEP-5O6AEE3BJJMEVVXZ -p tcp -m comment --comment "{SERVICE}" -m tcp -j DNAT --to-destination {OTHER}:6443
-A KUBE-SEP-MKZ5TTJEI3R5D5SV -s {HOST}/32 -m comment --comment "default/kubernetes:https" -j KUBE-MARK-MASQ
-A KUBE-SEP-MKZ5TTJEI3R5D5SV -p tcp -m comment --comment "default/kubernetes:https" -m tcp -j DNAT \
--to-destination {HOST}:6443
-A KUBE-SERVICES -d 10.43.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp \
--dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SERVICES -d {CLUSTER_IP}/32 -p tcp -m comment --comment "{SERVICE} cluster IP" -m tcp --dport 6443 \
-j {KUBE_SVC}
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" \
-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A {KUBE_SVC} ! -s 10.42.0.0/16 -d {CLUSTER_IP}/32 -p tcp -m comment --comment "{SERVICE} cluster IP" -m tcp \
--dport 6443 -j KUBE-MARK-MASQ
-A {KUBE_SVC} -m comment --comment "{SERVICE} -> {OTHER}:6443" -j KUBE-SEP-5O6AEE3BJJMEVVXZ
-A KUBE-SVC-NPX46M4PTMTKRN6Y ! -s 10.42.0.0/16 -d 10.43.0.1/32 -p tcp -m comment --comment \
"default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-MARK-MASQ
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m comment --comment "default/kubernetes:https -> {HOST}:6443" \
-j KUBE-SEP-MKZ5TTJEI3R5D5SV
COMMIT
"""

LOADBALANCER_IP = f'-d {HOST}/32 -p tcp -m comment --comment "{SERVICE} loadbalancer IP" -m tcp --dport 6443'

KUBE_EXT_ON = f"""*nat
:{KUBE_EXT} - [0:0]
-A {KUBE_EXT} -m comment --comment "masquerade traffic for {SERVICE} external destinations" -j KUBE-MARK-MASQ
-A {KUBE_EXT} -j {KUBE_SVC}
-I KUBE-SERVICES 3 {LOADBALANCER_IP} -j {KUBE_EXT}
COMMIT
"""

KUBE_EXT_OFF = f"""*nat
-D KUBE-SERVICES {LOADBALANCER_IP} -j {KUBE_EXT}
-F {KUBE_EXT}
-X {KUBE_EXT}
COMMIT
"""


_SEP = "KUBE-SEP-5O6AEE3BJJMEVVXZ"  # the endpoint of the Service's only
WITHOUT_SERVICE = "".join(
    line
    for line in KUBE_PROXY.splitlines(keepends=True)
    if not any(word in line for word in (SERVICE, KUBE_SVC, _SEP))
)

SERVICE_OFF = f"""*nat
-D KUBE-SERVICES {LOADBALANCER_IP} -j {KUBE_EXT}
-D KUBE-SERVICES -d {CLUSTER_IP}/32 -p tcp -m comment --comment "{SERVICE} cluster IP" -m tcp --dport 6443 -j {KUBE_SVC}
-F {KUBE_EXT}
-F {KUBE_SVC}
-F {_SEP}
-X {KUBE_EXT}
-X {KUBE_SVC}
-X {_SEP}
COMMIT
"""


def restore(host: Namespace, rules: str) -> None:
    """Load rules in one commit, other rules kept: `iptables-restore --noflush`, as kube-proxy does."""
    host.run("iptables-restore", "--noflush", stdin=rules.replace("\\\n", ""))


def kube_proxy(host: Namespace) -> None:
    """kube-proxy's chains for the Services `kubernetes` (10.43.0.1:443, this host's API) and
    `kubeapi-loadbalancer` (ClusterIP only: it has no LoadBalancer status yet). Nobody's hijack.
    """
    restore(host, KUBE_PROXY)


def kube_ext_on(host: Namespace) -> None:
    """The Service's LoadBalancer status names the node's own address: kube-proxy takes 6443 of that address."""
    restore(host, KUBE_EXT_ON)


def kube_ext_off(host: Namespace) -> None:
    """The Service is gone."""
    restore(host, KUBE_EXT_OFF)


def service_off(host: Namespace) -> None:
    """kube-proxy has heard that the Service is gone: its external address and its ClusterIP."""
    restore(host, SERVICE_OFF)


def portmap(
    host: Namespace,
    command: str,
    pod: Namespace,
    host_port: int = 6443,
    host_ip: str = "",
    container: str = CONTAINER,
) -> None:
    """Run the real CNI plugin portmap: `command` ADD, DEL or CHECK, for a pod with hostPort `host_port`."""
    config, environment = portmap_call(command, pod, host_port, host_ip, container)
    host.run(PORTMAP, stdin=config, env=environment)


def portmap_call(
    command: str, pod: Namespace, host_port: int = 6443, host_ip: str = "", container: str = CONTAINER
) -> tuple[str, dict[str, str]]:
    """What a container runtime gives portmap: its standard input and its environment."""
    mapping = {"hostPort": host_port, "containerPort": 6443, "protocol": "tcp", "hostIP": host_ip}
    config = {
        "cniVersion": "0.4.0",
        "name": NETWORK,
        "type": "portmap",
        "capabilities": {"portMappings": True},
        "snat": True,
        "runtimeConfig": {"portMappings": [mapping]},
        "prevResult": {
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": "cni0"},
                {"name": "vethpod"},
                {"name": "eth0", "sandbox": str(pod.path)},
            ],
            "ips": [{"version": "4", "address": f"{POD}/24", "gateway": "10.42.0.1", "interface": 2}],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": str(pod.path),
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    return json.dumps(config), environment


def portmap_add(host: Namespace, pod: Namespace, host_port: int = 6443, host_ip: str = "") -> None:
    """A pod with a hostPort starts."""
    portmap(host, "ADD", pod, host_port, host_ip)


def portmap_del(host: Namespace, pod: Namespace, host_port: int = 6443, host_ip: str = "") -> None:
    """It ends."""
    portmap(host, "DEL", pod, host_port, host_ip)


def flush_cni_dn(host: Namespace) -> None:
    """The half fix everybody finds first: flush the chain that portmap made for the pod."""
    host.run("iptables", "-t", "nat", "-F", CNI_DN)
