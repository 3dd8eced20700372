"""K3s and RKE2 found by process, control group and unit, and what they were told by each file, one by one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.k3shost import UNIT, K3sHost

from k3swatch.attribute.root import Root
from k3swatch.config import Config, parse
from k3swatch.k3s.find import Found, find
from k3swatch.k3s.resolve import Resolved, moved, resolve
from k3swatch.model.port import Listener

API = ("k3s-api", 6443)


@pytest.fixture
def host(tmp_path: Path) -> K3sHost:
    """A host without K3s."""
    (tmp_path / "proc").mkdir()
    return K3sHost(tmp_path)


def look(host: K3sHost) -> Found | None:
    with Root(str(host.directory)) as root:
        return find(root)


def ports(host: K3sHost, config: str = "{}") -> list[tuple[str, int]]:
    return [(port.name, port.port) for port in together(host, config).ports]


def together(host: K3sHost, config: str = "{}") -> Resolved:
    found = resolve(parse(config), str(host.directory))
    assert found is not None
    return found


def test_a_host_without_k3s_keeps_the_default(host: K3sHost) -> None:
    assert look(host) is None
    assert ports(host) == [API]


def test_a_server_as_the_installer_leaves_it(host: K3sHost) -> None:
    """Its arguments are hidden: those of the unit count."""
    host.installed()
    host.runs()
    found = look(host)
    assert found is not None
    assert found.said == "k3s server, k3s.service, pid 812"
    assert found.listener == Listener(unit="k3s.service")
    resolved = together(host)
    assert [(port.spec, port.name) for port in resolved.ports] == [
        ("tcp/7443", "k3s-api"),
        ("tcp/7444", "k3s-apiserver"),
        ("tcp/10250", "kubelet"),
    ]
    assert {port.listener for port in resolved.ports} == {Listener(unit="k3s.service")}
    assert [str(address) for address in resolved.ports[1].addresses] == ["127.0.0.1/32"]


def test_an_agent_serves_no_api(host: K3sHost) -> None:
    host.runs("k3s-agent", "/usr/local/bin/k3s agent", "k3s-agent.service", K3S_URL="https://x:6443")
    assert ports(host) == [("k3s-lb", 6444), ("kubelet", 10250)]


def test_the_service_that_cannot_see_processes_sees_the_control_group(host: K3sHost) -> None:
    """ProtectProc=invisible."""
    host.installed()
    host.runs()
    shutil.rmtree(host.directory / "proc")
    found = look(host)
    assert found is not None
    assert (found.pid, found.running, found.unit) == (None, True, "k3s.service")
    assert ports(host)[0] == ("k3s-api", 7443)


def test_installed_and_not_running_is_protected_already(host: K3sHost) -> None:
    """At boot, k3swatch is there first."""
    host.installed()
    found = look(host)
    assert found is not None
    assert found.said == "k3s server, k3s.service, not running"
    assert found.listener == Listener(unit="k3s.service")
    assert ports(host)[0] == ("k3s-api", 7443)


def test_a_unit_that_is_not_enabled_says_nothing(host: K3sHost) -> None:
    """Left over beside the one that runs; demanding it as the listener would be a false alarm."""
    host.installed()
    (host.directory / "etc/systemd/system/multi-user.target.wants/k3s.service").unlink()
    assert look(host) is None


@pytest.mark.parametrize(("role", "server"), [("server", True), ("agent", False)])
def test_a_unit_of_another_name(host: K3sHost, role: str, server: bool) -> None:
    """Seen by its control group alone, beside a k3s.service that is enabled and does not run."""
    host.installed()
    host.write(
        "/etc/systemd/system/k3s-main.service",
        f"[Service]\nExecStart=/opt/k3s \\\n  {role} --lb-server-port=7000\n",
    )
    for unit in ("k3s-main.service", "k3swatch.service"):
        host.write(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs", "99\n")
    found = look(host)
    assert found is not None
    assert (found.unit, found.settings.server) == ("k3s-main.service", server)
    assert found.settings.lb_port == 7000
    assert found.listener == Listener(unit="k3s-main.service")


def test_without_control_groups_version_2_no_unit_is_demanded(host: K3sHost) -> None:
    """The kernel could not tell a socket's unit there: everybody would be a stranger."""
    host.installed()
    host.runs(unit=None)
    (host.directory / "sys/fs/cgroup/cgroup.controllers").unlink()
    host.write("/proc/812/cgroup", "1:name=systemd:/system.slice/k3s.service\n")
    found = look(host)
    assert found is not None
    assert found.listener == Listener(exe=("/usr/local/bin/k3s",))
    (host.directory / "proc/812/exe").unlink()
    found = look(host)
    assert found is not None
    assert found.listener == Listener()


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("/etc/rancher/k3s/config.yaml", "https-listen-port: 8443\n", 8443),
        ("/etc/rancher/k3s/config.yaml", 'https-listen-port: "8443"\n', 8443),
        ("/etc/rancher/k3s/config.yaml.d/10-port.yaml", "https-listen-port: 8443\n", 8443),
        ("/etc/systemd/system/k3s.service.d/override.conf", "[Service]\nExecStart=\nExecStart=/x/k3s server "
         "--https-listen-port=8443\n", 8443),
        ("/run/systemd/system/k3s.service.d/z.conf", "[Service]\nEnvironment=K3S_CONFIG_FILE=/etc/mine.yaml\n", 9443),
        ("/etc/default/k3s", "K3S_CONFIG_FILE='/etc/mine.yaml'\n", 9443),
        ("/etc/systemd/system/k3s.service.env", "K3S_CONFIG_FILE=/etc/mine.yaml\n", 9443),
    ],
)  # fmt: skip
def test_every_place_where_the_port_may_be_written(
    host: K3sHost, path: str, text: str, expected: int
) -> None:
    host.installed(text=UNIT.replace("'--https-listen-port' \\\n\t'7443' \\\n", ""))
    host.runs()
    host.write("/etc/mine.yaml", "https-listen-port: 9443\n")
    assert ports(host)[0] == API
    host.write(path, text)
    assert ports(host)[0] == ("k3s-api", expected)


def test_arguments_come_before_files_and_later_files_before_earlier(host: K3sHost) -> None:
    host.runs()
    host.write("/etc/rancher/k3s/config.yaml", "https-listen-port: 1001\nkubelet-arg: [port=1]\n")
    host.write(
        "/etc/rancher/k3s/config.yaml.d/a.yaml", "https-listen-port: 1002\nkubelet-arg+: [port=1003]\n"
    )
    assert ports(host) == [("k3s-api", 1002), ("k3s-apiserver", 1003)]  # the kubelet's is taken by then
    (host.directory / "proc/812/exe").unlink()
    host.runs(arguments="/usr/local/bin/k3s\0server\0--https-listen-port=1007\0")
    assert ports(host)[0] == ("k3s-api", 1007)


@pytest.mark.parametrize(
    ("config", "files", "etcd"),
    [
        ("", False, False),
        ("cluster-init: true", False, True),
        ("cluster-init: false", False, False),
        ("server: https://first:6443", False, True),
        ("server: https://first:6443\ndatastore-endpoint: mysql://x", False, False),
        ("", True, True),
        ("disable-etcd: true\ncluster-init: true", False, False),
    ],
)
def test_etcd_only_when_it_is_embedded(host: K3sHost, config: str, files: bool, etcd: bool) -> None:
    host.runs()
    host.write("/etc/rancher/k3s/config.yaml", config)
    if files:
        host.write("/var/lib/rancher/k3s/server/db/etcd/config", "name: x\n")
    assert (("etcd-client", 2379) in ports(host), ("etcd-peer", 2380) in ports(host)) == (etcd, etcd)


def test_rke2_names_nobody_for_its_static_pods(host: K3sHost) -> None:
    host.runs("rke2", "/usr/local/bin/rke2 server", "rke2-server.service")
    resolved = together(host)
    assert {port.name: (port.port, port.listener.unit) for port in resolved.ports} == {
        "rke2-api": (6443, None),
        "rke2-supervisor": (9345, "rke2-server.service"),
        "kubelet": (10250, "rke2-server.service"),
        "etcd-client": (2379, None),
        "etcd-peer": (2380, None),
    }


def test_a_k3s_in_a_container_is_not_this_hosts(host: K3sHost) -> None:
    """k3d, kind: their processes are in /proc, their ports are not ours."""
    host.runs(unit="docker-0123abcd.scope")
    host.write("/proc/812/cgroup", "0::/system.slice/docker-0123abcd.scope\n")
    assert look(host) is None
    host.installed()
    assert look(host) is None  # and what is installed beside it is another matter: it does not run


def test_a_client_is_no_server(host: K3sHost) -> None:
    host.runs("k3s", "k3s\0kubectl\0get\0pods", unit=None)
    assert look(host) is None


def test_explicit_ports_win(host: K3sHost) -> None:
    host.runs()
    only = "ports: [{port: 6443, name: mine}, {port: 22}]"
    assert ports(host, only) == [("mine", 6443), ("tcp-22", 22)]
    assert ports(host, f"{only}\nk3s: auto") == [
        ("mine", 6443),
        ("tcp-22", 22),
        ("k3s-apiserver", 6444),
        ("kubelet", 10250),
    ]
    assert ports(host, f"{only}\nk3s: [kubelet]") == [("mine", 6443), ("tcp-22", 22), ("kubelet", 10250)]
    assert ports(host, "k3s: [kubelet]") == [("kubelet", 10250)]
    assert ports(host, "k3s: off") == [API]


def test_another_process_is_noticed(host: K3sHost) -> None:
    host.installed()
    config: Config = parse("{}")
    before = together(host)
    assert not moved(config, before, str(host.directory))
    host.runs()
    assert moved(config, before, str(host.directory))
    before = together(host)
    assert not moved(config, before, str(host.directory))
    host.write("/proc/812/stat", "812 (k3s-server) S " + " ".join(["1"] * 18 + ["999"]))
    assert moved(config, before, str(host.directory))
    assert not moved(parse("k3s: off"), before, str(host.directory))


HOSTILE = {
    "port": "https-listen-port: 99999\n",
    "text": 'https-listen-port: "6443; rm -rf /"\n',
    "aliases": "a: &a [1]\nb: *a\n",
    "deep": "[" * 5000,
    "binary": "\x00\x01\x02",
    "types": "https-listen-port: {a: b}\nkubelet-arg: 7\nservice-cidr: [[], {}]\ndata-dir: [1, 2]\n",
    "huge": "x: " + "y" * 300_000,
    "controls": 'service-cidr: "\\x1b[2J"\n',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_change_nothing(host: K3sHost, text: str) -> None:
    host.runs()
    host.write("/etc/rancher/k3s/config.yaml", text)
    host.write("/etc/systemd/system/k3s.service", "ExecStart='" + text)
    host.write("/etc/systemd/system/k3s.service.env", text)
    assert ports(host)[0] == API


@pytest.mark.parametrize("network", ["10.43.0.1/32", "fd00::1/128", "10.43.0.0/30"])
def test_a_network_without_room_for_services_is_not_looked_into(host: K3sHost, network: str) -> None:
    """Of such a one nobody can have the first address; kube-apiserver does not start with it."""
    host.runs()
    host.write("/etc/rancher/k3s/config.yaml", f'service-cidr: "{network}"\n')
    found = look(host)
    assert found is not None
    assert [str(each) for each in found.settings.service_networks] == ["10.43.0.0/16"]
    assert found.settings.troubles == (f"service-cidr: '{network}' is too small, kube-apiserver refuses it",)


def test_secrets_are_not_kept(host: K3sHost) -> None:
    host.installed()
    host.runs(K3S_TOKEN="hunter2")
    host.write("/etc/systemd/system/k3s.service.env", "K3S_TOKEN=hunter3\n")
    host.write("/etc/rancher/k3s/config.yaml", "token: hunter4\nhttps-listen-port: no\n")
    assert "hunter" not in repr(look(host))


def test_links_lead_nowhere(host: K3sHost) -> None:
    host.runs()
    outside = host.directory.parent / "outside.yaml"
    outside.write_text("https-listen-port: 1\n")
    (host.directory / "etc/rancher/k3s").mkdir(parents=True)
    (host.directory / "etc/rancher/k3s/config.yaml").symlink_to(outside)
    assert ports(host)[0] == API
