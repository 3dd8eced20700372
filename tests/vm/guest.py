"""One virtual machine: a stock Debian with systemd as PID 1, emulated by QEMU (no KVM is needed), no network.

It is not booted but resumed from a snapshot, in two seconds; `reset` goes back to it. By a new process: in one that
has been running, QEMU's time-stamp counter does not go back, and every timer of the guest ends at once.

Commands go through recipe/agent.py on a virtio-serial port, so nothing in the guest has to work but a kernel and a
process.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm.image import Image

# Seconds. All of it is waiting that ends when what is waited for is there; the machine may have other things to do
BOOT_SECONDS = 600.0  # it takes 16 on an idle machine
PATIENCE = 300.0
# tsc=reliable: a virtual CPU that has to wait for a real one looks like a clock that cannot be trusted
APPEND = "root=/dev/vda console=ttyS0 quiet mitigations=off tsc=reliable"
SNAPSHOT = "ready"
# Nehalem: what newer processors have beside it is slower when emulated than to do without
PROCESSORS = "-accel tcg,thread=multi,tb-size=512 -smp 2"
_QEMU = """
    setpriv --pdeathsig KILL qemu-system-x86_64 -nodefaults -display none -nic none
    -cpu Nehalem -m 1024
    -device virtio-rng-pci -device virtio-serial-pci -device virtserialport,chardev=agent,name=agent
"""


def cannot_start() -> str:
    """Why QEMU cannot emulate such a machine here, in one line; empty when it can."""
    argv = [*_QEMU.split(), *PROCESSORS.split(), "-S", "-chardev", "null,id=agent", "-monitor", "stdio"]
    done = subprocess.run(argv, input="quit\n", capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"exit {done.returncode}") if done.returncode else ""


@dataclass(frozen=True)
class Done:
    """A command that ended by itself."""

    status: int
    stdout: str
    stderr: str


class Guest:
    """See above. Not for two threads."""

    def __init__(self, image: Image, directory: Path, processors: str = PROCESSORS) -> None:
        """Resume the snapshot, which is made if there is none yet. `directory` is for scratch."""
        self._qemu = f"{_QEMU} {processors}"
        self.image, self.directory = image, directory
        self.snapshots = {SNAPSHOT}
        self.boot_id = ""  # of the last `reboot`
        self._buffer = bytearray()
        directory.mkdir(parents=True, exist_ok=True)
        self._disk = directory / "disk.qcow2"
        ready = image.ready(f"{self._qemu} {APPEND}")
        with image.lock():
            if not ready.exists():
                self._make_ready(ready)
        shutil.copyfile(ready, self._disk)
        self._start("-loadvm", SNAPSHOT)
        self._set_clock()

    def run(self, *argv: str, stdin: bytes = b"", timeout: float = PATIENCE, check: bool = True) -> Done:
        """Run a command as root and wait for it. AssertionError when time is up, or it fails and `check`."""
        self._send(*argv, stdin=stdin, timeout=timeout)
        answer = self._message()
        out, err = (self._exactly(answer[name]).decode(errors="replace") for name in ("stdout", "stderr"))
        shown = f"{' '.join(argv)}\n{out[-6000:]}\n{err[-6000:]}"
        assert answer["status"] is not None, f"not done in {timeout:.0f} s: {shown}"
        assert not check or answer["status"] == 0, f"exit {answer['status']}: {shown}"
        return Done(answer["status"], out, err)

    def sh(self, script: str, stdin: bytes = b"", timeout: float = PATIENCE, check: bool = True) -> str:
        """`run` lines of shell, the first that fails ends them; what they printed."""
        return self.run("sh", "-eu", "-c", script, stdin=stdin, timeout=timeout, check=check).stdout

    def put(self, directory: str, paths: Iterable[Path], base: Path) -> None:
        """Copy files and directories, named relative to `base`, below a directory of the guest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
            for path in paths:
                tar.add(path, str(path.relative_to(base)), filter=_plain)
        self.sh(f"mkdir -p {directory}; tar -xz -C {directory}", stdin=buffer.getvalue())

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """Ask again and again until the answer is true; returns it. To ask is work for the guest: half its time."""
        until = time.monotonic() + timeout
        asked = time.monotonic()
        while not (answer := condition()):
            assert time.monotonic() < until, f"{what}: not within {timeout:.0f} s"
            time.sleep(max(0.3, time.monotonic() - asked))
            asked = time.monotonic()
        return answer

    def reset(self, snapshot: str = SNAPSHOT) -> None:
        """Back to a snapshot; by default to a machine that has just booted and to which nothing has happened."""
        self._command("quit")
        self._process.wait(PATIENCE)
        self._disconnect()
        self._start("-loadvm", snapshot)
        self._set_clock()

    def save(self, snapshot: str) -> None:
        """Take another snapshot, for as long as this object lives."""
        self._monitor(f"savevm {snapshot}")
        self.snapshots.add(snapshot)

    def reboot(self) -> None:
        """As an administrator does it."""
        self._send("systemctl", "reboot")
        self.boot_id = self._hello()  # the answer may come before it, or not at all
        self._set_clock()

    def close(self) -> None:
        """Power off, the hard way, and forget the disk."""
        self._process.kill()
        self._process.wait()
        self._disconnect()
        self._disk.unlink(missing_ok=True)

    @property
    def console(self) -> str:
        """What the kernel said on its console."""
        return (self.directory / "console.log").read_text(errors="replace")

    def _start(self, *more: str) -> None:
        sockets = {name: self.directory / f"{name}.socket" for name in ("agent", "qmp")}
        for path in sockets.values():
            path.unlink(missing_ok=True)
        options = {
            "kernel": self.image.directory / "vmlinuz",
            "initrd": self.image.directory / "initrd",
            "append": APPEND,
            "drive": f"file={self._disk},if=virtio,format=qcow2,cache=unsafe",
            "serial": f"file:{self.directory / 'console.log'}",
            "mon": "chardev=qmp,mode=control",
        }
        argv = [*self._qemu.split(), *more]
        for name, value in options.items():
            argv += [f"-{name}", str(value)]
        for name, path in sockets.items():
            argv += ["-chardev", f"socket,id={name},path={path},server=on,wait=off"]
        with (self.directory / "qemu.log").open("w") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._agent, self._qmp = (self._connect(path) for path in sockets.values())
        self._qmp_lines = self._qmp.makefile("rb")
        self._qmp_lines.readline()  # the greeting
        self._command("qmp_capabilities")

    def _connect(self, path: Path) -> socket.socket:
        until = time.monotonic() + PATIENCE
        while True:
            one = socket.socket(socket.AF_UNIX)
            try:
                one.connect(str(path))
            except OSError:
                one.close()
                running = self._process.poll() is None and time.monotonic() < until
                assert running, f"QEMU: {(self.directory / 'qemu.log').read_text()}"
                time.sleep(0.05)
            else:
                return one

    def _disconnect(self) -> None:
        for one in (self._agent, self._qmp_lines, self._qmp):
            one.close()
        self._buffer.clear()

    def _make_ready(self, ready: Path) -> None:
        """Boot once, wait until the system has come to rest, take the snapshot."""
        _overlay(self.image, self._disk)
        self._start()
        try:
            self._hello()
            self.run("systemctl", "is-system-running", "--wait", timeout=BOOT_SECONDS)
            self.run("sync")
            self._monitor(f"savevm {SNAPSHOT}")
            self._command("quit")
            self._process.wait(PATIENCE)
            shutil.copyfile(self._disk, partial := ready.with_suffix(".partial"))
            partial.rename(ready)
        finally:
            self.close()

    def _send(self, *argv: str, stdin: bytes = b"", timeout: float = PATIENCE) -> None:
        request = {"argv": argv, "timeout": timeout, "stdin": len(stdin)}
        self._agent.settimeout(timeout + 60)
        self._agent.sendall(json.dumps(request).encode() + b"\n" + stdin)

    def _set_clock(self) -> None:
        self.run("date", "--utc", "--set", f"@{time.time():.3f}")

    def _hello(self) -> str:
        self._agent.settimeout(BOOT_SECONDS)
        while "boot" not in (message := self._message()):
            self._exactly(message["stdout"] + message["stderr"])
        return str(message["boot"])

    def _message(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            self._receive()
        return dict(json.loads(self._exactly(end + 1)))

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _receive(self) -> None:
        try:
            data = self._agent.recv(1 << 16)
        except TimeoutError:
            raise AssertionError(f"the guest is silent; its console:\n{self.console[-3000:]}") from None
        assert data, f"QEMU has ended: {(self.directory / 'qemu.log').read_text()}"
        self._buffer += data

    def _monitor(self, line: str) -> None:
        """A command of QEMU's human monitor; it prints nothing when it works."""
        said = self._command("human-monitor-command", {"command-line": line})
        assert not said, f"{line}: {said}"

    def _command(self, name: str, arguments: dict[str, str] | None = None) -> Any:
        self._qmp.settimeout(PATIENCE)
        self._qmp.sendall(json.dumps({"execute": name, "arguments": arguments or {}}).encode() + b"\n")
        while True:
            answer = json.loads(self._qmp_lines.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]


def _overlay(image: Image, disk: Path) -> None:
    base = image.directory / "root.img"
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk)]
    subprocess.run(make, check=True, capture_output=True)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Root's files, and none that running programs left."""
    if member.name.endswith(".pyc") or "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
