"""The tree of a configuration file -> Config. Every key that exists is read here and nowhere else."""

from __future__ import annotations

from k3swatch.config import words
from k3swatch.config.document import Problems, Value
from k3swatch.config.reader import Reader
from k3swatch.config.settings import (
    MAX_PORTS,
    Alertmanager,
    Config,
    Control,
    Journal,
    K3s,
    Metrics,
    StateDirectory,
    Tls,
    defaults,
)
from k3swatch.errors import ConfigError
from k3swatch.model.port import LOCAL, Allow, Listener, Network, ProtectedPort
from k3swatch.model.words import Protocol

K3S_PORTS = (  # as k3swatch/k3s/ports.py calls them
    "k3s-api",
    "k3s-apiserver",
    "k3s-lb",
    "rke2-supervisor",
    "rke2-api",
    "kubelet",
    "etcd-client",
    "etcd-peer",
)


def build(tree: Value, path: str, problems: Problems) -> Config:
    """The Config that `tree` says. Raises ConfigError with `problems` and every further one of the file."""
    top = Reader(tree, "", problems)
    top.keys(("ports", "metrics", "alertmanager", "journal", "state", "control", "k3s"))
    ports_at = top.child("ports")
    config = Config(
        ports=_ports(ports_at),
        ports_given=ports_at is not None,
        k3s=_k3s(top.child("k3s"), ports_at is not None),
        metrics=_metrics(top.child("metrics")),
        alertmanager=_alertmanager(top.child("alertmanager")),
        journal=_journal(top.child("journal")),
        state=_state(top.child("state")),
        control=_control(top.child("control")),
        path=path,
    )
    if problems.found:
        raise ConfigError(problems.lines(path), path)
    return config


def _ports(at: Reader | None) -> tuple[ProtectedPort, ...]:
    if at is None:
        return defaults().ports
    ports: list[ProtectedPort] = []
    names: dict[str, int] = {}
    specs: dict[str, int] = {}
    items = list(at.items())
    if isinstance(at.value.data, list) and not items:
        at.fail("nothing to protect; leave `ports` out to protect tcp/6443")
    if len(items) > MAX_PORTS:
        at.fail(f"{len(items)} ports, at most {MAX_PORTS}")
    for item in items:
        port = _port(item)
        if port is None:
            continue
        for what, seen in ((port.name, names), (port.spec, specs)):
            if what in seen:
                kind = "name" if seen is names else "port"
                hint = "" if seen is names else "; list all its addresses in one entry"
                item.fail(f"{kind} {what} was already used in line {seen[what]}{hint}")
            seen.setdefault(what, item.value.line)
        ports.append(port)
    return tuple(ports)


def _port(at: Reader) -> ProtectedPort | None:
    if not at.keys(("name", "port", "protocol", "addresses", "listener", "allow", "severity")):
        return None
    number_at = at.child("port")
    if number_at is None:
        at.fail("`port` is missing")
    number = number_at.integer(1, 65535) if number_at else None
    protocol_at = at.child("protocol")
    protocol = Protocol((protocol_at and protocol_at.choice(tuple(Protocol))) or Protocol.TCP)
    name_at = at.child("name")
    name = name_at.parsed(words.label) if name_at else f"{protocol}-{number}"
    severity_at = at.child("severity")
    severity = severity_at.parsed(words.label) if severity_at else "critical"
    addresses = _addresses(at.child("addresses"))
    listener = _listener(at.child("listener"))
    allow_at = at.child("allow")
    allow = tuple(_allow(item) for item in allow_at.items()) if allow_at else ()
    if number is None or name is None:
        return None
    return ProtectedPort(name, number, protocol, addresses, listener, allow, severity or "critical")


def _addresses(at: Reader | None) -> tuple[str | Network, ...]:
    if at is None:
        return (LOCAL,)
    found: list[str | Network] = []
    for item in at.items():
        parsed = LOCAL if item.value.data == LOCAL else item.parsed(words.network)
        if parsed is None:
            continue
        if parsed in found:
            item.fail("given twice")
        found.append(parsed)
    if isinstance(at.value.data, list) and not at.value.data:
        at.fail("no address; leave `addresses` out to protect every address of this host")
    return tuple(found)


def _listener(at: Reader | None) -> Listener:
    if at is None or not at.keys(("exe", "unit")):
        return Listener()
    exe_at, unit_at = at.child("exe"), at.child("unit")
    exe = [item.parsed(words.absolute) for item in exe_at.items()] if exe_at else []
    unit = unit_at.text() if unit_at else None
    return Listener(tuple(path for path in exe if path), unit)


def _allow(at: Reader) -> Allow:
    if not at.keys(("destination", "pod", "comment", "program")):
        return Allow()
    if not at.value.data:
        at.fail("empty: would allow every diversion; give destination, pod, comment or program")
    destination, pod, comment = at.child("destination"), at.child("pod"), at.child("comment")
    program = at.child("program")
    return Allow(
        destination=destination.parsed(words.network) if destination else None,
        pod=pod.parsed(words.pod) if pod else None,
        comment=comment.text() if comment else None,
        program=program.text() if program else None,
    )


def _metrics(at: Reader | None) -> Metrics:
    if at is None or not at.keys(("listen", "tls")):
        return Metrics()
    listen_at, tls_at = at.child("listen"), at.child("tls")
    listen = Metrics().listen
    if listen_at:
        parsed = [item.parsed(words.listen) for item in listen_at.items()]
        listen = tuple(address for address in parsed if address)
        if len(set(listen)) != len(listen):
            listen_at.fail("an address is given twice")
    return Metrics(listen, _tls(tls_at))


def _tls(at: Reader | None) -> Tls | None:
    if at is None or not at.keys(("cert_file", "key_file")):
        return None
    paths: list[str] = []
    for name in ("cert_file", "key_file"):
        path_at = at.child(name)
        if path_at is None:
            at.fail(f"`{name}` is missing")
        path = path_at.parsed(words.absolute) if path_at else None
        if path:
            paths.append(path)
    return Tls(*paths) if len(paths) == 2 else None


def _alertmanager(at: Reader | None) -> Alertmanager:
    if at is None or not at.keys(("urls",)):
        return Alertmanager()
    urls_at = at.child("urls")
    parsed = [item.parsed(words.url) for item in urls_at.items()] if urls_at else []
    urls = tuple(url for url in parsed if url)
    if urls_at and len(set(urls)) != len(urls):
        urls_at.fail("a URL is given twice")
    return Alertmanager(urls)


def _journal(at: Reader | None) -> Journal:
    if at is None or not at.keys(("enabled",)):
        return Journal()
    enabled_at = at.child("enabled")
    enabled = enabled_at.flag() if enabled_at else True
    return Journal(enabled is not False)


def _k3s(at: Reader | None, ports_given: bool) -> K3s:
    """`auto`, `off`, or a list of names; absent: auto, unless the operator listed the ports."""
    if at is None:
        return K3s(auto=not ports_given)
    if isinstance(at.value.data, list):
        only = [item.choice(K3S_PORTS) for item in at.items()]
        if not only:
            at.fail("no port; write `off` for none")
        return K3s(only=tuple(name for name in only if name))
    if at.value.data is False:  # what YAML makes of `off`
        return K3s(auto=False)
    at.choice(("auto", "off"))
    return K3s(auto=at.value.data != "off")


def _state(at: Reader | None) -> StateDirectory:
    if at is None or not at.keys(("path",)):
        return StateDirectory()
    path_at = at.child("path")
    path = path_at.parsed(words.absolute) if path_at else None
    return StateDirectory(path) if path else StateDirectory()


def _control(at: Reader | None) -> Control:
    if at is None or not at.keys(("socket",)):
        return Control()
    socket_at = at.child("socket")
    path = socket_at.parsed(words.socket_path) if socket_at else None
    return Control(path) if path else Control()
