"""The process that committed a ruleset: command line, parents, unit or pod; from the kernel's record and from /proc.

The kernel names it by thread id and comm (NEWGEN). An `iptables` call ends within a millisecond of its commit; the
record that a probe made of its execve (`Executed`) is there all the same, and tells its parents too. Where there is no
probe, or the process runs since before it, /proc is asked at once, and may come too late: then that is said. No second
process may be taken for the first: the comm must be the same, and a record must not be younger than the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from k3swatch.attribute import pods
from k3swatch.attribute.root import Root
from k3swatch.model.process import Ancestor, Executed, Parent, Process

PARENTS = 8
ARGUMENTS = 512  # characters
_UNITS = (".service", ".scope")
_SECRET = ("token", "passw", "secret", "credential")
_HEX = frozenset("0123456789abcdef")
_TICK = 10_000_000  # nanoseconds of one unit of proc_pid_stat(5)'s starttime: USER_HZ is 100 everywhere

Lookup = Callable[[int], Executed | None]


def nothing(_pid: int) -> Executed | None:
    """The look-up of executions where nothing records them."""
    return None


def look(
    root: Root | None, pid: int, comm: str, executed: Lookup = nothing, until: float = float("inf")
) -> Process | None:
    """Who that is; None when other users' processes cannot be seen here (hidepid, a container's /proc).

    `root` None: /proc is not asked. `until`, CLOCK_MONOTONIC in seconds, is when the process was named to us: what it
    executed later is not what it was then.
    """
    record = executed(pid)
    if record is not None and (record.comm != comm or record.at > until):
        record = None
    status = _stat(root, pid) if root is not None else None
    alive = status if status is not None and status.comm == comm else None
    if alive is not None and record is not None and record.started // _TICK != alive.started:
        record = None  # a former process had the number, and this one never executed anything
    if alive is None and record is None:
        hidden = root is None or (status is None and not pods.all_visible(root))
        return None if hidden else Process(pid, comm)
    parents: list[Parent] = []
    arguments: tuple[str, ...] = ()
    filename, cut = None, False
    if record is not None:
        parents = [_parent(root, each, executed) for each in record.ancestors if each.pid > 1]
        arguments, filename, cut = record.arguments, record.filename, record.cut
    if alive is not None and root is not None:
        parents = parents or list(_parents(root, alive.parent))
        if cut or not arguments:
            arguments, cut = _arguments(root, pid) or arguments, False
        if filename is None or not filename.startswith("/") or filename.startswith("/proc/"):
            filename = root.link(f"/proc/{pid}/exe") or filename
    told, more = _bounded(redacted(arguments))
    cgroup = root.text(f"/proc/{pid}/cgroup", 16 << 10) if alive is not None and root is not None else None
    if record is not None and cgroup is None:
        cgroup = f"0::/{'/'.join(reversed(record.groups))}"
    unit, container, pod = _place(root, cgroup)
    return Process(
        pid,
        comm,
        exe=filename or None,
        arguments=told,
        cut=cut or more,
        uid=record.uid if record is not None else None,
        parents=tuple(parents[:PARENTS]),
        unit=unit,
        container=container,
        pod=pod,
        sources=(("exec",) if record is not None else ()) + (("proc",) if alive is not None else ()),
    )


def redacted(arguments: Sequence[str]) -> list[str]:
    """Arguments as they may be told to others: what follows a word like `--token` is not."""
    told: list[str] = []
    hide = False
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        secret = any(word in key.lower() for word in _SECRET)
        if " " in argument and not hide:  # a shell's command line is one argument
            told.append(" ".join(redacted(argument.split(" "))))
            hide = False
            continue
        told.append("***" if hide else f"{key}=***" if secret and equals else argument)
        hide = secret and not equals and argument.startswith("-")
    return told


class _Status(NamedTuple):
    """What proc_pid_stat(5) says. `started` in units of 10 ms since boot."""

    comm: str
    parent: int
    started: int


def _stat(root: Root, pid: int) -> _Status | None:
    """The comm stands in parentheses and may hold some itself."""
    before, found, after = (root.text(f"/proc/{pid}/stat", 4096) or "").rpartition(")")
    fields = after.split()
    if not found or len(fields) < 20 or not fields[1].isdecimal() or not fields[19].isdecimal():
        return None
    return _Status(before.partition("(")[2], int(fields[1]), int(fields[19]))


def _arguments(root: Root, pid: int) -> tuple[str, ...]:
    text = (root.text(f"/proc/{pid}/cmdline", 64 << 10) or "").rstrip("\0")
    return tuple(text.split("\0")) if text else ()


def _bounded(arguments: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The arguments up to ARGUMENTS characters with what stands between them, and whether there were more."""
    told: list[str] = []
    room = ARGUMENTS
    for argument in arguments:
        if room <= 0 or len(argument) > room:
            return (*told, *([argument[:room]] if room > 0 else [])), True
        told.append(argument)
        room -= len(argument) + 1
    return tuple(told), False


def _parent(root: Root | None, ancestor: Ancestor, executed: Lookup) -> Parent:
    """A parent, with its file if that is known of this very process."""
    record = executed(ancestor.pid)
    if record is not None and record.started == ancestor.started:
        return Parent(ancestor.pid, ancestor.comm, record.filename or None)
    status = _stat(root, ancestor.pid) if root is not None else None
    same = status is not None and status.started == ancestor.started // _TICK
    exe = root.link(f"/proc/{ancestor.pid}/exe") if root is not None and same else None
    return Parent(ancestor.pid, ancestor.comm, exe)


def _parents(root: Root, pid: int) -> Iterator[Parent]:
    """The parents by /proc, nearest first, without init."""
    for _ in range(PARENTS):
        status = _stat(root, pid) if pid > 1 else None
        if status is None:
            return
        yield Parent(pid, status.comm, root.link(f"/proc/{pid}/exe"))
        pid = status.parent


def _place(root: Root | None, cgroup: str | None) -> tuple[str | None, str | None, str | None]:
    """Unit, container and pod of a process, by its control group as /proc/PID/cgroup writes it."""
    found = pods.in_pod(cgroup)
    if found is not None:
        pod = pods.by_uid(root, found[0]) if root is not None else None
        return None, found[1], pod.path if pod else found[0]
    for line in (cgroup or "").splitlines():
        for part in reversed(line.split("/")):
            name = part.removesuffix(".scope").rpartition("-")[2]  # docker-<id>.scope, libpod-<id>.scope
            if len(name) == 64 and _HEX.issuperset(name):
                return None, name, None
            if part.endswith(_UNITS):
                return part, None, None
    return None, None, None
