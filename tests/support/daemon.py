"""`k3swatch run` as a child process in a network namespace, with what it says on stderr and to `status`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from k3swatch.daemon.control import ask
from k3swatch.demo.netns import Namespace
from k3swatch.errors import SourceError

REPO = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("K3SWATCH_PATIENCE", "40"))  # seconds; tests/vm: an emulated CPU


def python(code: Path) -> str:
    """The interpreter that runs `code`: the virtualenv's for the clone itself, for a copy the one it was made from."""
    return sys.executable if code == REPO else os.path.realpath(sys.executable)


def as_service(*groups: int) -> list[str]:
    """What makes a command run as the unit has it: a user without a name, its capabilities, and these groups."""
    unit = (REPO / "systemd" / "k3swatch.service").read_text().splitlines()
    granted = next(line for line in unit if line.startswith("AmbientCapabilities=")).partition("=")[2].split()
    caps = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in granted)
    sets = [f"--{kind}=-all,{caps}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    bits = next(line for line in unit if line.startswith("SecureBits=")).partition("=")[2]
    member = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        member,
        *sets,
        f"--securebits=+{bits.replace('-', '_')}",
    ]


class Daemon:
    """One daemon. `config` is the file it reads; write another one and send SIGHUP."""

    def __init__(
        self,
        space: Namespace,
        directory: Path,
        metrics: str = "127.0.0.1:10643",
        prefix: Sequence[str] = (),
        code: Path = REPO,
    ) -> None:
        self.space, self.directory, self.prefix, self.code = space, directory, prefix, code
        directory.mkdir(exist_ok=True)
        self.config = directory / "config.yaml"
        self.control = str(directory / "control.sock")
        self.stderr = directory / "stderr"
        self.metrics = metrics
        self.environment: dict[str, str] = {}
        self.arguments: list[str] = []  # of `run`
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, **sections: object) -> None:
        """Write the configuration: private paths, no journal, and these sections."""
        settings: dict[str, object] = {
            "journal": {"enabled": False},
            "metrics": {"listen": [self.metrics] if self.metrics else []},
            "state": {"path": str(self.directory / "state")},
            "control": {"socket": self.control},
        }
        self.config.write_text(json.dumps(settings | sections))

    def start(self, ready: bool = True) -> Self:
        """Start it; with `ready` return when it has looked and tried its probe."""
        run = ["run", "--config", str(self.config), *self.arguments]
        with self.space.inside(), self.stderr.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, python(self.code), "-m", "k3swatch.cli", *run],
                cwd=self.code,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        if ready:
            try:
                self.until(lambda: self.running() and self.tried_probe(), "ready")
            except BaseException:  # nobody else will end it
                self.process.kill()
                self.process.wait()
                raise
        return self

    def running(self) -> bool:
        """Whether it has not ended; fails loudly when it has."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said()}"
        return True

    def tried_probe(self) -> bool:
        """Whether connections are seen, or it said that they are not."""
        status = self.status()
        return bool(status) and (status["probe"] != "none" or "connections" in self.said())

    def said(self) -> str:
        """All it wrote to stderr so far."""
        return self.stderr.read_text(errors="backslashreplace")

    def status(self) -> dict[str, Any]:
        """Its answer to `status`; empty while there is none."""
        try:
            return dict(json.loads(ask(self.control)))
        except SourceError:
            return {}

    def state(self, port: int = 0) -> str:
        """The state of one of its ports."""
        return str(self.status()["ports"][port]["state"])

    def until(self, happened: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait until `happened` is true."""
        end = time.monotonic() + timeout
        while not happened():
            assert time.monotonic() < end, (
                f"{what}: not in {timeout} s; it said:\n{self.said()}\n{self.status()}"
            )
            time.sleep(0.02)

    def until_said(self, text: str, times: int = 1) -> None:
        """Wait for words on stderr."""
        self.until(lambda: self.said().count(text) >= times, f"{text!r}, {times} times")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def scrape(self) -> str:
        """Its metrics."""
        host, _, port = self.metrics.rpartition(":")
        with self.space.inside():
            client = socket.create_connection((host, int(port)), timeout=5)
        with client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = bytearray()
            while part := client.recv(65536):
                answer += part
        return answer.decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        """Start it, unless it runs already."""
        return self if self.process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
