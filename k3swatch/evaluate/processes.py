"""Whose a listening socket is: by the executables that hold it and the control group it was made in.

The control group is the stronger of the two: the kernel tells it to anybody, and a container can call its executable
what it likes, but not leave its group.
"""

from __future__ import annotations

from k3swatch.model.glob import glob
from k3swatch.model.port import Listener, ListeningSocket

NOT_TOLD = (
    "who listens cannot be told: processes may not be looked into; `listener: unit` needs no permission"
)
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")
# K3s unpacks itself: what is started as the former runs as the latter
_K3S, _K3S_UNPACKED = "/usr/local/bin/k3s", "/var/lib/rancher/k3s/data/*/bin/k3s"


def unit(path: str) -> str | None:
    """The systemd unit of a control group, as cg_path_get_unit does: the first part that is no slice."""
    for part in path.split("/"):
        if part.endswith(_UNITS):
            return part
        if part and not part.endswith(".slice"):
            return None
    return None


def differ(one: ListeningSocket, other: ListeningSocket) -> bool | None:
    """Whether two sockets are two programs'; None when nothing tells."""
    exes, others = _exes(one), _exes(other)
    known = False
    if exes and others:
        if not exes & others:
            return True
        known = True
    if one.cgroup and other.cgroup:
        return _group(one) != _group(other)
    if one.uid != other.uid:
        return True
    return False if known else None


def rightful(socket: ListeningSocket, listener: Listener) -> bool | None:
    """Whether the socket is the configured listener's; None when what was asked for could not be read.

    A unit that matches is enough where executables cannot be read.
    """
    answers: list[bool | None] = []
    if listener.unit:
        answers.append(None if socket.cgroup_path is None else unit(socket.cgroup_path) == listener.unit)
    if listener.exe:
        exes = _exes(socket)
        answers.append(
            any(_matches(pattern, exe) for pattern in listener.exe for exe in exes) if exes else None
        )
    if False in answers:
        return False
    return True if True in answers else None


def said(socket: ListeningSocket) -> str:
    """`/usr/local/bin/k3s (pid 812) in k3s.service`, with as much of it as is known."""
    if socket.holders:
        first, more = socket.holders[0], len(socket.holders) - 1
        who = f"{first.exe or 'a process'} (pid {first.pid}" + (f" and {more} more)" if more else ")")
    else:
        who = f"a process of user {socket.uid}"
    if socket.cgroup_path is None:
        return who
    return f"{who} in {unit(socket.cgroup_path) or f'control group {socket.cgroup_path}'}"


def _exes(socket: ListeningSocket) -> frozenset[str]:
    """Without the mark of an executable that was replaced by an upgrade while it runs."""
    return frozenset(holder.exe.removesuffix(" (deleted)") for holder in socket.holders if holder.exe)


def _group(socket: ListeningSocket) -> object:
    """The pod or the unit rather than the group below it: a container that restarts is the same program."""
    path = socket.cgroup_path
    if path is None:
        return socket.cgroup
    parts = path.split("/")
    if len(parts) > 1 and parts[1].startswith("kubepods"):
        for number, part in enumerate(parts):
            if part.startswith("pod") or "-pod" in part:
                return "/".join(parts[: number + 1])
    return unit(path) or path


def _matches(pattern: str, exe: str) -> bool:
    patterns = (pattern, _K3S_UNPACKED) if pattern == _K3S else (pattern,)
    return any(glob(one, exe) for one in patterns)
