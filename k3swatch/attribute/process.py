"""The process that committed a ruleset: its command line, its parents and its unit, from /proc, if it is still there.

The kernel names it by thread id and comm (NEWGEN). An `iptables` call ends within a millisecond of its commit, so this
is asked at once, and may come too late all the same: then that is said. No second process may be taken for the first:
the comm must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k3swatch.attribute import pods
from k3swatch.attribute.root import Root

GONE = ", gone before it could be looked at"
PARENTS = 8
ARGUMENTS = 256  # characters
_UNITS = (".service", ".scope")
_SECRET = ("token", "passw", "secret", "credential")


def describe(root: Root, pid: int, comm: str) -> str | None:
    """`iptables -t nat -A ... (/usr/sbin/xtables-nft-multi), started by portmap, k3s-server; k3s.service`.

    None when other users' processes cannot be seen here (hidepid, a container's /proc).
    """
    status = _stat(root, pid)
    if status is None and not pods.all_visible(root):
        return None  # it may well be there
    if status is None or status[0] != comm:
        return f"{comm} (pid {pid}){GONE}"
    arguments = _arguments(root, pid)
    executable = root.link(f"/proc/{pid}/exe")
    words = " ".join(arguments)[:ARGUMENTS] or f"{comm} (ending)"
    parts = [words if executable is None or [executable] == arguments[:1] else f"{words} ({executable})"]
    parents = list(_parents(root, status[1]))
    if parents:
        parts.append(f"started by {', '.join(parents)}")
    text = ", ".join(parts)
    place = _place(root, pid)
    return f"{text}; {place}" if place else text


def redacted(arguments: Sequence[str]) -> list[str]:
    """Arguments as they may be told to others: what follows a word like `--token` is not."""
    told: list[str] = []
    hide = False
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        secret = any(word in key.lower() for word in _SECRET)
        told.append("***" if hide else f"{key}=***" if secret and equals else argument)
        hide = secret and not equals and argument.startswith("-")
    return told


def _arguments(root: Root, pid: int) -> list[str]:
    return redacted((root.text(f"/proc/{pid}/cmdline", 64 << 10) or "").rstrip("\0").split("\0")[:64])


def _stat(root: Root, pid: int) -> tuple[str, int] | None:
    """comm and parent, from proc_pid_stat(5): the comm stands in parentheses and may hold some itself."""
    before, found, after = (root.text(f"/proc/{pid}/stat", 4096) or "").rpartition(")")
    fields = after.split()
    if not found or len(fields) < 2 or not fields[1].isdecimal():
        return None
    return before.partition("(")[2], int(fields[1])


def _parents(root: Root, pid: int) -> Iterator[str]:
    """The comms of the parents, nearest first, without init."""
    for _ in range(PARENTS):
        status = _stat(root, pid) if pid > 1 else None
        if status is None:
            return
        yield status[0]
        pid = status[1]


def _place(root: Root, pid: int) -> str | None:
    """The unit or the pod a process belongs to, by its cgroup."""
    cgroup = root.text(f"/proc/{pid}/cgroup", 16 << 10)
    found = pods.in_pod(cgroup)
    if found is not None:
        pod = pods.by_uid(root, found[0])
        return f"in pod {pod.path if pod else found[0]}"
    for line in (cgroup or "").splitlines():
        for part in reversed(line.split("/")):
            if part.endswith(_UNITS):
                return part
    return None
