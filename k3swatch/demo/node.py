"""The files that a K3s node has about the pod of the incident, below a directory that stands for `/`.

Written in the order of the real ones, which matters: host-local's lease is there before portmap makes its rule, the
CNI cache milliseconds after it, containerd's tasks when the sandbox has started. Their contents are those of a real
containerd and libcni, as far as anybody reads them; the datastore has kine's table and Kubernetes' protobuf.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from k3swatch.attribute.wire import delimited
from k3swatch.demo.kubernetes import CLUSTER_IP, CONTAINER, NETWORK
from k3swatch.demo.lab import POD

SERVICE_UID = "8e92d16f-7c61-4b52-9a53-0d8c0a6f2b11"
POD_UID = "c8a1b7f4-2d0e-4d86-9f5b-6a1e3f0b7c11"
SERVICE = "kubeapi-loadbalancer"
DAEMON_SET = f"svclb-{SERVICE}-{SERVICE_UID[:8]}"
POD_NAME = f"{DAEMON_SET}-htf6q"
NETNS = "/var/run/netns/cni-5f083bf4-7845-7450-7a12-a6370bd37552"
LB = "b594f6cb752534f2a0f2aaa448f2c841c96af6f0faffb62dd2c6f9f623f8a5b8"  # klipper-lb's container
TASKS = "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io"
ADMIN = "var/lib/rancher/k3s/server/cred/admin.kubeconfig"


def result(container: str) -> str:
    """libcni's cache file of a container."""
    return f"var/lib/cni/results/{NETWORK}-{container}-eth0"


RESULT = result(CONTAINER)
DATASTORE = "var/lib/rancher/k3s/server/db/state.db"
_LABELS = {
    "app": DAEMON_SET,
    "svccontroller.k3s.cattle.io/svcname": SERVICE,
    "svccontroller.k3s.cattle.io/svcnamespace": "default",
}
# k3s-io/kine, pkg/drivers/sqlite
_KINE = """
CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, deleted INTEGER,
    create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name);
CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name, id);
"""


class Node:
    """A node's files below `directory`. `container` is the id of the pod's sandbox: another one after a reboot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.container = CONTAINER
        for folder in (
            "var/lib/cni/results",
            f"var/lib/cni/networks/{NETWORK}",
            TASKS,
            "var/log/pods",
            "proc",
        ):
            (directory / folder).mkdir(parents=True, exist_ok=True)

    def server(self) -> None:
        """What K3s writes when it has started as a server: the kubeconfig for kube-apiserver's own address."""
        self._write(ADMIN, "clusters: [{cluster: {server: 'https://127.0.0.1:6444'}}]\n")

    def service_created(self) -> None:
        """What the datastore has when ServiceLB has made its DaemonSet and the pod is on its way to the node."""
        self.store(
            f"services/specs/default/{SERVICE}", stored("v1", "Service", SERVICE, "default", SERVICE_UID)
        )
        labels, owner = _LABELS, ("DaemonSet", DAEMON_SET)
        self.store(
            f"daemonsets/kube-system/{DAEMON_SET}", stored("apps/v1", *owner, "kube-system", "1b1d", labels)
        )
        pod = stored("v1", "Pod", POD_NAME, "kube-system", POD_UID, labels, owner)
        self.store(f"pods/kube-system/{POD_NAME}", pod)

    def leased(self) -> None:
        """host-local has given the pod its address."""
        self._write(f"var/lib/cni/networks/{NETWORK}/{POD}", f"{self.container}\r\neth0")

    def cached(self) -> None:
        """libcni has written down the result: the plugins are done."""
        name = [["K8S_POD_NAMESPACE", "kube-system"], ["K8S_POD_NAME", POD_NAME], ["K8S_POD_UID", POD_UID]]
        mapping = {"HostPort": 6443, "ContainerPort": 6443, "Protocol": "tcp", "HostIP": ""}
        answer = {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": NETNS}],
            "ips": [{"address": f"{POD}/24", "gateway": "10.42.0.1", "interface": 1}],
        }
        self._json(
            result(self.container),
            {
                "kind": "cniCacheV1",
                "containerId": self.container,
                "ifName": "eth0",
                "networkName": NETWORK,
                "cniArgs": [["IgnoreUnknown", "1"], *name],
                "capabilityArgs": {"portMappings": [mapping]},
                "result": answer,
            },
        )

    def started(self) -> None:
        """containerd runs the sandbox and klipper-lb's container."""
        (self.directory / f"var/log/pods/kube-system_{POD_NAME}_{POD_UID}").mkdir(exist_ok=True)
        pod = {
            "io.kubernetes.cri.sandbox-id": self.container,
            "io.kubernetes.cri.sandbox-name": POD_NAME,
            "io.kubernetes.cri.sandbox-namespace": "kube-system",
            "io.kubernetes.cri.sandbox-uid": POD_UID,
        }
        spaces = {"namespaces": [{"type": "network", "path": NETNS}]}
        sandbox = {"io.kubernetes.cri.container-type": "sandbox", **pod}
        self._json(f"{TASKS}/{self.container}/config.json", {"annotations": sandbox, "linux": spaces})
        environment = ["SRC_PORT=6443", "DEST_PROTO=TCP", "DEST_PORT=6443", f"DEST_IPS={CLUSTER_IP}"]
        container = {"io.kubernetes.cri.container-type": "container", **pod}
        config = {"annotations": container, "process": {"args": ["entry"], "env": environment}}
        self._json(f"{TASKS}/{LB}/config.json", config)

    def service_deleted(self) -> None:
        """The Service is gone from the datastore; so far nothing else is."""
        self.store(f"services/specs/default/{SERVICE}", None)

    def daemon_set_deleted(self) -> None:
        """What `kubectl delete daemonset` leaves: nothing of it, nor of its pod."""
        self.store(f"daemonsets/kube-system/{DAEMON_SET}", None)
        self.store(f"pods/kube-system/{POD_NAME}", None)

    def ended(self) -> None:
        """The pod is gone: what containerd, libcni and host-local remove."""
        for path in (
            result(self.container),
            f"var/lib/cni/networks/{NETWORK}/{POD}",
            f"{TASKS}/{self.container}/config.json",
            f"{TASKS}/{LB}/config.json",
        ):
            (self.directory / path).unlink(missing_ok=True)
        for task in (self.container, LB):
            (self.directory / TASKS / task).rmdir()

    def store(self, key: str, value: bytes | None) -> None:
        """A new revision of a key in the datastore; None: it is deleted."""
        path = self.directory / DATASTORE
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.executescript(_KINE)
            row = (f"/registry/{key}", int(value is not None), int(value is None), value)
            database.execute("INSERT INTO kine (name, created, deleted, value) VALUES (?, ?, ?, ?)", row)

    def _write(self, path: str, text: str) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}")
        beside.write_text(text)
        beside.rename(file)

    def _json(self, path: str, document: dict[str, Any]) -> None:
        self._write(path, json.dumps(document))


def stored(
    version: str,
    kind: str,
    name: str,
    namespace: str,
    uid: str,
    labels: dict[str, str] | None = None,
    owner: tuple[str, str] | None = None,
) -> bytes:
    """An object as the API server stores it: `k8s`, NUL, runtime.Unknown; only the metadata is filled in."""
    meta = _field(1, name) + _field(3, namespace) + _field(5, uid)
    for key, value in (labels or {}).items():
        meta += _field(11, _field(1, key) + _field(2, value))
    if owner:
        meta += _field(13, _field(1, owner[0]) + _field(3, owner[1]))
    return b"k8s\0" + _field(1, _field(1, version) + _field(2, kind)) + _field(2, _field(1, meta))


def _field(number: int, content: str | bytes) -> bytes:
    return delimited(number, content.encode() if isinstance(content, str) else content)
