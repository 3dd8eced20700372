"""The probe as the daemon holds it: starts the loader child, keeps the descriptors, reads the ring buffer and maps.

Bytes in and out; decode/event.py knows what they mean. Never imports bcc: through libbpf.so.1 the whole of it
costs the daemon a few MB.
"""

from __future__ import annotations

import ctypes as ct
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import k3swatch
from k3swatch.errors import NotPermitted, SourceError, Unsupported
from k3swatch.sources import libbpf, remains
from k3swatch.sources.doer import DoerProbe
from k3swatch.sources.held import Held
from k3swatch.sources.libbpf import replace_keys

LOADER_SECONDS = 120.0  # compiling takes 0.3 s, under an emulated CPU 6 s
SYSTEM_SHARES = (Path("/usr/share"), Path("/usr/local/share"))
COUNT_ROWS = 1024  # max_entries of `counts`
_MESSAGE_BYTES, _MAX_FDS = 1 << 16, 64
_PROG_INFO_BYTES, _RECURSION_MISSES = 256, 208  # struct bpf_prog_info, uapi/linux/bpf.h


def source_directory() -> Path:
    """Where bpf/ is: beside the package in a checkout, else in the nearest share/k3swatch above it.

    That is where pip and dpkg put data: /usr/share for /usr/lib/python3/dist-packages, VENV/share for a virtualenv.
    """
    package = Path(k3swatch.__file__).resolve().parent
    for directory in (package.parent / "bpf", *(above / "share/k3swatch/bpf" for above in package.parents)):
        if (directory / "probe.c").is_file():
            return directory
    raise Unsupported("bpf/probe.c not found", hint="reinstall k3swatch: its share/k3swatch/bpf is missing")


class Probe(Held):
    """The attached probe. `attach`, `ipvs`, `refused`, `layout` and `reasons` are as the loader reported them.

    Raises Unsupported, NotPermitted or SourceError, one line each, when it cannot be had; no process and no
    descriptor is left behind then.
    """

    def __init__(self, wanted: str | None = None, timeout: float = LOADER_SECONDS) -> None:
        message, fds = _run_loader(source_directory(), wanted, timeout)
        prefix = "doer:"
        super().__init__({name: fd for name, fd in fds.items() if not name.startswith(prefix)})
        doer = {name.removeprefix(prefix): fd for name, fd in fds.items() if name.startswith(prefix)}
        self.doer = DoerProbe(message["doer"], doer)
        try:
            self.attach = str(message["attach"])
            self.ipvs = str(message["ipvs"])
            self.refused = tuple(str(line) for line in message["refused"])
            held = {"nf_nat": self.attach, "ip_vs": self.ipvs}
            self._modules = {name: _module(name) for name, way in held.items() if way == "kprobe"}
            self.layout = tuple(int(number) for number in message["layout"])
            self.reasons = {int(value): str(name) for value, name in message["reasons"].items()}
            self._fds["about"] = remains.described(self.layout, self.reasons)
            self.open("events")
        except BaseException:
            self.close()
            raise

    def counts(self, key_size: int, value_size: int) -> list[tuple[bytes, bytes]]:
        """The rows of the counter map."""
        fd = self.map("counts")
        rows = ((key, libbpf.lookup(fd, key, value_size)) for key in libbpf.keys(fd, key_size, COUNT_ROWS))
        return [(key, value) for key, value in rows if value is not None]

    def add_count(self, key: bytes, zero: bytes) -> None:
        """Insert a row of the counter map unless it is there."""
        libbpf.update(self.map("counts"), key, zero, libbpf.BPF_NOEXIST)

    def replace(self, name: str, keys: Iterable[bytes], size: int) -> None:
        """Make the map `name` (`protected`, `local`, `strangers`) hold exactly these keys; new ones come first."""
        replace_keys(self.map(name), keys, size)

    def watch_udp(self, ports: int) -> None:
        """How many UDP ports are protected; with none the probe passes over UDP."""
        libbpf.update(self.map("udp_ports"), bytes(4), ports.to_bytes(4, sys.byteorder))

    def stat(self, index: int) -> int:
        """One counter of `stats`, all CPUs added up."""
        return self.counter("stats", index)

    def missed(self) -> int:
        """Times the kernel skipped a program because it was already running on that CPU (since 5.12).

        Not counted for `freed`, which is there twice for this reason.
        """
        total = 0
        for name, fd in self._fds.items():
            if name.startswith("prog:") and not name.startswith("prog:freed"):
                info = ct.create_string_buffer(_PROG_INFO_BYTES)
                size = ct.c_uint32(_PROG_INFO_BYTES)
                if libbpf.library().bpf_obj_get_info_by_fd(fd, info, ct.byref(size)) != 0:
                    raise libbpf.failure("program info")
                total += int.from_bytes(info.raw[_RECURSION_MISSES : _RECURSION_MISSES + 8], sys.byteorder)
        return total

    def outlived(self) -> bool:
        """Whether another instance of a module that kprobes are in is loaded by now: they died with theirs.

        A kprobe does not hold its module, as fexit does; nobody tells when it is unloaded. While it is not there,
        nothing is translated.
        """
        return any(_module(name) not in (None, before) for name, before in self._modules.items())

    def keepsakes(self) -> list[int]:
        """What the next process needs to read on, see sources/remains.py."""
        return remains.keepsakes(self._fds)

    def close(self) -> None:
        """Detach and free everything."""
        self.doer.close()
        super().close()


def _module(name: str) -> int | None:
    """Which instance of a module is loaded: the number of its directory in sysfs, never used again."""
    try:
        return Path("/sys/module", name).stat().st_ino
    except FileNotFoundError:
        return None


def _run_loader(directory: Path, wanted: str | None, timeout: float) -> tuple[dict[str, Any], dict[str, int]]:
    """Start the child, take its one message, reap it. Returns the message and the descriptors by name."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        arguments = [sys.executable, "-sP", "-m", "k3swatch.sources.bpf", "3", str(directory)]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(Path(k3swatch.__file__).resolve().parent.parent),
        }
        arguments += [wanted] if wanted else []
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
        try:
            pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=actions)
        except OSError as error:
            raise SourceError(f"probe loader: {sys.executable}: {error.strerror}") from error
        theirs.close()
        try:
            message, fds = _receive(ours, timeout)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.waitpid(pid, 0)
    if "error" in message:
        kind = {"Unsupported": Unsupported, "NotPermitted": NotPermitted}.get(
            str(message["error"]), SourceError
        )
        raise kind(str(message["message"]), hint=str(message["hint"]))
    return message, fds


def _receive(channel: socket.socket, timeout: float) -> tuple[dict[str, Any], dict[str, int]]:
    channel.settimeout(timeout)
    try:
        data, fds, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, _MAX_FDS)
    except TimeoutError as error:
        raise SourceError(f"probe loader: no answer in {timeout:.0f} s") from error
    if not data:
        raise SourceError(
            "probe loader died without a word", hint="out of memory? it needs 150 MB for a second"
        )
    message = json.loads(data)
    return message, dict(zip(message.get("fds", ()), fds, strict=True))
