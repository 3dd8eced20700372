"""What K3s or RKE2 is told, as far as it decides about ports: arguments before environment before files. Pure.

Names and defaults are those of k3s-io/k3s, pkg/cli/cmds/{server,agent}.go; files and their order of pkg/configfilearg:
config.yaml, then config.yaml.d/*.yaml by name; a later value wins, `key+` appends to a list. Everything may be garbage:
what cannot be a port or a network is as if it were not there, and is said.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from k3swatch.model.port import Network

Values = Mapping[str, Sequence[str]]  # flag name without dashes -> its values, the last one counts

# environment variables that decide, without the program's prefix (K3S_, RKE2_)
VARIABLES = {
    "DATA_DIR": "data-dir",
    "CLUSTER_INIT": "cluster-init",
    "DATASTORE_ENDPOINT": "datastore-endpoint",
    "URL": "server",
    "LB_SERVER_PORT": "lb-server-port",
    "CONFIG_FILE": "config",
}
SHORT = {"d": "data-dir", "s": "server", "c": "config"}
SERVICE_CIDR = "10.43.0.0/16"
SMALLEST = 8  # addresses of a service-cidr: kubernetes, pkg/controlplane/services.go, ServiceIPRange


@dataclass(frozen=True, slots=True)
class Settings:
    """One K3s or RKE2 on this host."""

    program: str = "k3s"  # or rke2
    server: bool = True  # else an agent
    https_port: int = 6443  # supervisor and API; RKE2's supervisor is at 9345
    lb_port: int = 6444  # an agent's own load balancer, on loopback
    kubelet_port: int = 10250
    agent: bool = True  # whether it runs a kubelet
    apiserver: bool = True
    etcd: bool = False  # embedded
    service_networks: tuple[Network, ...] = (ipaddress.ip_network(SERVICE_CIDR),)
    data_directory: str = "/var/lib/rancher/k3s"
    troubles: tuple[str, ...] = field(default=())

    @property
    def apiserver_port(self) -> int:
        """kube-apiserver's own, on loopback: beside the one that everybody dials."""
        return self.https_port + 1 if self.apiserver else self.lb_port


def read(program: str, server: bool, layers: Iterable[Values], etcd_files: bool = False) -> Settings:
    """The settings of `program`. `layers` in order of precedence: what an earlier one has, no later one changes.

    `etcd_files`: embedded etcd has written its configuration into the data directory.
    """
    values: dict[str, Sequence[str]] = {}
    for layer in layers:
        for name, found in layer.items():
            values.setdefault(name, found)
    troubles: list[str] = []

    def text(name: str, otherwise: str = "") -> str:
        return values.get(name, (otherwise,))[-1] if values.get(name) else otherwise

    def flag(name: str) -> bool:
        return name in values and text(name, "true").lower() not in ("false", "0", "no")

    def port(name: str, said: str, otherwise: int) -> int:
        if not said:
            return otherwise
        if said.isascii() and said.isdigit() and len(said) <= 5 and 0 < int(said) < 65535:
            return int(said)
        troubles.append(f"{name}: {said[:64]!r} is no port, {otherwise} is taken")
        return otherwise

    kubelet = [each.partition("=")[2] for each in values.get("kubelet-arg", ()) if _argument(each) == "port"]
    https = port("https-listen-port", text("https-listen-port"), 6443) if program == "k3s" else 6443
    joins, endpoint = bool(text("server")), text("datastore-endpoint")
    etcd = flag("cluster-init") or (server and joins and not endpoint) or (etcd_files and not endpoint)
    return Settings(
        program=program,
        server=server,
        https_port=https,
        lb_port=port("lb-server-port", text("lb-server-port"), 6444),
        kubelet_port=port("kubelet-arg port", kubelet[-1] if kubelet else "", 10250),
        agent=not (server and flag("disable-agent")),
        apiserver=server and not flag("disable-apiserver"),
        etcd=server and not flag("disable-etcd") and (etcd or program == "rke2"),
        service_networks=tuple(_networks(values.get("service-cidr", ()), troubles)),
        data_directory=text("data-dir", f"/var/lib/rancher/{program}"),
        troubles=tuple(troubles[:8]),
    )


def with_troubles(settings: Settings, troubles: Sequence[str]) -> Settings:
    """The settings, with what could not be read said before what could not be understood."""
    return replace(settings, troubles=(*troubles, *settings.troubles)[:8])


def arguments(words: Sequence[str]) -> dict[str, list[str]]:
    """Flags of a command line: `--key=value`, `--key value`, `--key`; others are left out."""
    found: dict[str, list[str]] = {}
    for position, word in enumerate(words[:256]):
        if not word.startswith("-") or not word.strip("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        following = words[position + 1] if position + 1 < len(words) else "-"
        if not equals:
            value = "true" if following.startswith("-") else following
        found.setdefault(SHORT.get(name, name), []).append(value.strip("'\""))
    return found


def environment(lines: Iterable[str], program: str) -> dict[str, list[str]]:
    """Flags by their environment variables; nothing else of it is kept, a token for one."""
    found: dict[str, list[str]] = {}
    prefix = f"{program.upper()}_"
    for line in lines:
        name, equals, value = line.strip().partition("=")
        flag = VARIABLES.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if equals and flag and value.strip("'\""):
            found[flag] = [value.strip("'\"")]
    return found


def files(documents: Iterable[Mapping[str, object]]) -> dict[str, list[str]]:
    """Flags of configuration files, in the order they are read."""
    found: dict[str, list[str]] = {}
    for document in documents:
        for key, value in list(document.items())[:512]:
            name = key.removesuffix("+").lstrip("-")
            items = [_text(each) for each in (value if isinstance(value, list) else [value])[:256]]
            kept = found.get(name, []) if key.endswith("+") else []
            found[name] = [*kept, *items]
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _argument(text: str) -> str:
    return text.partition("=")[0].lstrip("-")


def _networks(said: Sequence[str], troubles: list[str]) -> list[Network]:
    found: list[Network] = []
    for each in [part.strip() for text in said[:8] for part in text.split(",")][:8]:
        try:
            network = ipaddress.ip_network(each, strict=False)
        except ValueError:
            troubles.append(f"service-cidr: {each[:64]!r} is no network")
            continue
        if network.num_addresses >= SMALLEST:
            found.append(network)
        else:
            troubles.append(f"service-cidr: {each[:64]!r} is too small, kube-apiserver refuses it")
    return found or [ipaddress.ip_network(SERVICE_CIDR)]
