"""Network namespaces by name: made in one go, entered for a moment, always deleted again.

A thread enters a namespace with setns(2); sockets it makes and processes it starts there stay there. So nothing
needs `ip netns exec`, and one program can talk from the host, from a client and from a pod in turn.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from k3swatch.errors import NotPermitted, SourceError

CLONE_NEWNET = 0x40000000  # <sched.h>
RUN_NETNS = Path("/run/netns")  # where ip-netns(8) keeps named namespaces
PATIENCE = 120.0  # seconds for one command; a few milliseconds but for an emulated machine on a busy one
PREFIX = "k3lab"

_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)  # os.setns is Python 3.12


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise NotPermitted(f"setns: {os.strerror(number)}", hint="network namespaces need root")


def run(
    argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None, check: bool = True
) -> str:
    """What a command printed (stdout, then stderr); SourceError with its last words when it fails and `check`."""
    try:
        done = subprocess.run(
            argv,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else {**os.environ, **env},
            timeout=PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise SourceError(f"{argv[0]}: not installed", hint="make setup") from None
    text = done.stdout.decode(errors="replace")
    if check and done.returncode != 0:
        raise SourceError(f"{' '.join(argv)}: exit {done.returncode}: {text.strip()[-600:]}")
    return text


class Namespace:
    """One named network namespace that exists."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = RUN_NETNS / name

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace until the block ends; other threads stay where they are."""
        with open("/proc/thread-self/ns/net", "rb") as home, self.path.open("rb") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def run(
        self, *argv: str, stdin: str = "", env: Mapping[str, str] | None = None, check: bool = True
    ) -> str:
        """`run` inside."""
        with self.inside():
            return run(argv, stdin, env, check)

    def shell(self, script: str) -> str:
        """`run` a few lines of shell inside; the first that fails ends it."""
        return self.run("sh", "-eu", "-c", script)

    def ip(self, *lines: str) -> None:
        """ip(8) commands, all in one process."""
        run(("ip", "-n", self.name, "-batch", "-"), stdin="\n".join(lines))

    def sysctl(self, **values: int) -> None:
        """Set `net.*` values, dots written as `__`: ipv4__ip_forward=1."""
        with self.inside():
            for key, value in values.items():
                Path("/proc/sys/net", *key.split("__")).write_text(str(value))


def prune() -> None:
    """Delete what a run that was killed (kill -9) left: namespaces that carry the id of a process that is gone."""
    for path in RUN_NETNS.glob(f"{PREFIX}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            run(("ip", "netns", "delete", path.name), check=False)


@contextmanager
def namespaces(*names: str) -> Iterator[dict[str, Namespace]]:
    """Fresh namespaces under unique names, by their short names; deleted when the block ends, however it ends."""
    prune()
    number = next(_numbers)
    known = {name: Namespace(f"{PREFIX}-{os.getpid()}-{number}-{name}") for name in names}
    try:
        run(("ip", "-batch", "-"), stdin="\n".join(f"netns add {space.name}" for space in known.values()))
        yield known
    finally:
        for space in known.values():
            if space.path.exists():
                run(("ip", "netns", "delete", space.name), check=False)
