"""Processes: what one executed, what it did, and who one is that committed rules. All strings may be hostile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from k3swatch.model.words import Family

WORDS = 160  # characters of a command line in words


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A parent, or a parent's parent. `started` (nanoseconds since boot) tells it from a later process with its pid."""

    pid: int
    comm: str
    started: int


@dataclass(frozen=True, slots=True)
class Executed:
    """One execve(2) in this network namespace, as the kernel saw it: what its process was at that moment.

    `at` is CLOCK_MONOTONIC in seconds, `started` nanoseconds since boot. `cut`: there were more arguments. `groups`
    are names of version 2 control groups, from the innermost out.
    """

    pid: int
    comm: str
    filename: str
    arguments: tuple[str, ...]
    cut: bool
    uid: int
    at: float
    started: int
    ancestors: tuple[Ancestor, ...]  # nearest first
    groups: tuple[str, ...]


class Did(StrEnum):
    """What a process can do that no netlink message tells of."""

    LISTENED = "listened"  # on a protected port
    CLOSED = "closed"  # no longer listens on it
    REPLACED = "replaced"  # an iptables-legacy table


@dataclass(frozen=True, slots=True)
class Deed:
    """One of those, by whom. `at` is CLOCK_REALTIME in seconds; `port` or `family` is what it was about."""

    did: Did
    at: float
    pid: int
    comm: str
    port: int | None = None
    inode: int | None = None  # of the socket
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """A parent as people are told of it; `exe` is None where it is not known."""

    pid: int
    comm: str
    exe: str | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """Who did it. `exe` is the file, `arguments` are without secrets; `cut`: there were more.

    `sources`: `exec` (the kernel's record of its last execve), `proc` (/proc while it lived); empty: no more is known
    than pid and comm, which came with the commit. `commits` is how many there were between two looks; of several,
    this one is told by its command line, or (`only` False) is just one of those that made them.
    """

    pid: int
    comm: str
    exe: str | None = None
    arguments: tuple[str, ...] = ()
    cut: bool = False
    uid: int | None = None
    parents: tuple[Parent, ...] = ()  # nearest first, without init
    unit: str | None = None
    container: str | None = None  # its id
    pod: str | None = None  # namespace/name, or its uid
    sources: tuple[str, ...] = ()
    commits: int = 1
    only: bool = True

    @property
    def confidence(self) -> str:
        """How sure it is that this was the one: `high` with the record; `medium` with /proc alone, which was read a
        moment later, and when its command line told it from others; else `low`."""
        if not self.only or not self.sources:
            return "low"
        return "high" if "exec" in self.sources and self.commits == 1 else "medium"

    @property
    def words(self) -> str:
        """`iptables (pid 123: /usr/sbin/iptables -t nat -A X) <- portmap <- containerd (containerd.service)`: the file
        stands for the name it was called by, and beside it where that is another."""
        called = self.arguments[:1] or (self.comm,)
        same = self.exe is not None and self.exe.rpartition("/")[2] == called[0].rpartition("/")[2]
        line = " ".join((self.exe or "", *self.arguments[1:]) if same and self.arguments else self.arguments)
        if self.cut or len(line) > WORDS:
            line = f"{line[:WORDS]}…"
        facts = [f"pid {self.pid}" + (f": {line}" if line else "")]
        if not self.sources:
            facts.append("gone before it could be looked at")
        elif self.exe and not (same and self.arguments):
            facts.append(self.exe)
        text = f"{self.comm} ({'; '.join(facts)})"
        text += "".join(f" <- {parent.comm}" for parent in self.parents)
        container = f"container {self.container[:12]}" if self.container else None
        place = f"in pod {self.pod}" if self.pod else self.unit or container
        text += f" ({place})" if place else ""
        return text if self.only else f"one of {self.commits} commits, among them by {text}"
