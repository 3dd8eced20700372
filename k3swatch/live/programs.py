"""The BPF programs that could send a connection elsewhere or keep it, wherever this host has some attached.

Asked every time: the network namespace, netfilter's hooks, the root of the control groups and those that a listener is
in, interfaces that carry an address of ours. The control groups below the root are many and change rarely: asked again
after KEPT seconds, or when a listener is in one that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from k3swatch.decode.bpfobjects import Info, decode_filter, decode_info, decode_qdisc
from k3swatch.errors import DecodeError, SourceError, Unsupported
from k3swatch.live.hooked import others
from k3swatch.model.port import CGROUP_SKB, Host, Interface, Program, ProtectedPort
from k3swatch.sources import bpfobjects, procs, rtnetlink
from k3swatch.sources.bpfobjects import TCX_EGRESS, TCX_INGRESS

KEPT = 25.0
INTERFACES, GROUPS, MOST = 64, 2048, 64  # interfaces and control groups asked, programs told of, at most

_DIALLING = {
    bpfobjects.CGROUP_INET4_CONNECT: "connect4",
    bpfobjects.CGROUP_INET6_CONNECT: "connect6",
    bpfobjects.CGROUP_UDP4_SENDMSG: "sendmsg4",
    bpfobjects.CGROUP_UDP6_SENDMSG: "sendmsg6",
}
_SEEING = {
    bpfobjects.CGROUP_INET_INGRESS: f"{CGROUP_SKB} ingress",
    bpfobjects.CGROUP_INET_EGRESS: f"{CGROUP_SKB} egress",
}
# qdiscs with filters on the way in and out: parent (TC_H_CLSACT or TC_H_INGRESS, and the direction), by kind
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_PARENTS = {"clsact": ((_INGRESS, "ingress"), (_EGRESS, "egress")), "ingress": ((0xFFFF0000, "ingress"),)}


class Programs:
    """Remembers what the control groups below the root have."""

    def __init__(self) -> None:
        self._below: list[Program] = []
        self._asked_at: float | None = None
        self._groups: dict[int, str] = {}  # of listeners: paths by id; empty for one that is not found
        self._infos: dict[int, Info] = {}
        self._quickly: frozenset[Program] = frozenset()

    def read(
        self, host: Host, now: float, ports: Iterable[ProtectedPort] | None = None
    ) -> tuple[tuple[Program, ...], tuple[str, ...]]:
        """The programs, and what could not be read, one line each. `now` is in monotonic seconds. Of the listeners,
        those of `ports` matter (None: all). Never raises.
        """
        unreadable: list[str] = []

        def attempt(what: str, read: Callable[[], Iterator[Program]]) -> list[Program]:
            try:
                return list(read())
            except Unsupported as error:
                unreadable.append(f"BPF programs: {error}")
            except (SourceError, DecodeError, OSError) as error:
                unreadable.append(f"{what}: {error}")
            return []

        mount = procs.cgroup_mount()
        groups = _groups(host, ports)
        stale = self._asked_at is None or now - self._asked_at > KEPT
        if mount is not None and (stale or not groups <= self._groups.keys()):
            paths = dict(procs.cgroups(mount, GROUPS))
            self._groups = dict.fromkeys(groups, "") | {n: p for p, n in paths.items() if n in groups}
            self._below = attempt("BPF programs of control groups", lambda: _below(mount, paths))
            self._asked_at = now
        found = attempt("BPF programs of this host", lambda: _quick(host))
        found += attempt("netfilter's hooks", lambda: others(host))
        seeing = attempt("BPF programs of listeners", lambda: _seeing_all(mount, self._groups))
        self._quickly = frozenset(found + seeing)
        found += self._below
        found += attempt("BPF programs of interfaces", lambda: _on_interfaces(host))
        # last: where systemd counts every unit's bytes they are many, and must not crowd out the others
        return self._named([*found, *seeing][:MOST]), tuple(dict.fromkeys(unreadable))

    def moved(self, host: Host) -> bool:
        """Whether those that nothing tells us of are others than in the last `read` (where the kernel tells of XDP and
        tc, the caller is told). Raises what reading raises."""
        seeing = _seeing_all(procs.cgroup_mount(), self._groups)
        return frozenset([*_quick(host), *others(host), *seeing]) != self._quickly

    def _named(self, programs: list[Program]) -> tuple[Program, ...]:
        """The same with their names, where those may be asked: a confined daemon may not, but remembers."""
        infos = {}
        for program in programs:
            info = self._infos.get(program.id)
            if info is None and program.id and (raw := bpfobjects.info(program.id)) is not None:
                info = decode_info(raw)
            if info is not None:
                infos[program.id] = info
        self._infos = infos
        return tuple(
            replace(program, name=info.name, tag=info.tag, uid=info.uid)
            if (info := infos.get(program.id))
            else program
            for program in programs
        )


def _groups(host: Host, ports: Iterable[ProtectedPort] | None) -> set[int]:
    """The ids of the control groups that the listeners are in."""
    wanted = None if ports is None else {(port.protocol, port.port) for port in ports}
    listeners = host.sockets or ()
    return {one.cgroup for one in listeners if wanted is None or (one.protocol, one.port) in wanted} - {0}


def _quick(host: Host) -> Iterator[Program]:
    """Those of the network namespace, the root of the control groups and tcx: attached without any event."""
    for number in bpfobjects.query_netns(bpfobjects.SK_LOOKUP):
        yield Program("sk_lookup", "netns", number)
    mount = procs.cgroup_mount()
    if mount is not None:
        yield from _dialling(mount, "/")
    for interface in _carriers(host):
        # what leaves by another interface is no connection to this host
        ways = ((TCX_INGRESS, "tcx ingress"), (TCX_EGRESS, "tcx egress"))
        for attach_type, hook in ways if interface.loopback else ways[:1]:
            for number in bpfobjects.query(interface.index, attach_type):
                yield Program(hook, interface.name, number, interface=interface.index)


def _dialling(mount: str, path: str) -> Iterator[Program]:
    for kind, numbers in bpfobjects.query_cgroup(mount + path, tuple(_DIALLING)).items():
        for number in numbers:
            yield Program(_DIALLING[kind], path, number)


def _seeing_all(mount: str | None, groups: Mapping[int, str]) -> Iterator[Program]:
    """Those that see the packets of the listeners, by the control groups these are in."""
    for number, path in groups.items() if mount is not None else ():
        yield from _seeing(mount or "", number, path)


def _seeing(mount: str, group: int, path: str) -> Iterator[Program]:
    """Those that see the packets of sockets in one control group: attached to it, or to one above it."""
    while path:
        for kind, numbers in bpfobjects.query_cgroup(mount + path, tuple(_SEEING)).items():
            for number in numbers:
                yield Program(_SEEING[kind], path, number, cgroup=group)
        path = "" if path == "/" else path.rpartition("/")[0] or "/"


def _below(mount: str, paths: Iterable[str]) -> Iterator[Program]:
    for path in paths:
        if path != "/":
            yield from _dialling(mount, path)


def _on_interfaces(host: Host) -> Iterator[Program]:
    qdiscs = {decode_qdisc(raw) for raw in rtnetlink.qdiscs()}
    for interface in _carriers(host):
        index, name = interface.index, interface.name
        for number in interface.xdp:
            yield Program("xdp", name, number, interface=index)
        for kind, parents in _PARENTS.items():
            if (index, kind) in qdiscs:
                for parent, way in parents if interface.loopback else parents[:1]:
                    for raw in rtnetlink.filters(index, parent):
                        for known in decode_filter(raw):
                            yield Program(f"tc {way}", name, known.id, known.name, known.tag, interface=index)


def _carriers(host: Host) -> list[Interface]:
    return [interface for interface in host.interfaces if interface.index in host.carriers][:INTERFACES]
