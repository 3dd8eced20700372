"""`k3swatch run` under observation: as the service runs it, beside a journald of its own."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.tools import K3SWATCH, REPO
from k3swatch.daemon.control import ask
from k3swatch.demo.netns import Namespace
from k3swatch.demo.services import Journald, Service, wait_until
from k3swatch.errors import SourceError


class Watcher(Service):
    """One daemon in a namespace; started when it says READY=1, as systemd sees it."""

    name = "k3swatch"

    def __init__(self, space: Namespace, directory: Path, journald: Journald, port: int = 6443) -> None:
        super().__init__(directory)
        self.space, self.journald = space, journald
        self.control = str(directory / "control.sock")
        self.config = directory / "config.yaml"
        settings = {
            "ports": [{"name": "k3s-api", "port": port}],
            "metrics": {"listen": ["127.0.0.1:10643"]},
            "state": {"path": str(directory / "state")},
            "control": {"socket": self.control},
        }
        (directory / "state").mkdir(exist_ok=True)
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        self.start_seconds = 0.0
        self.loader_rss = 0  # bytes at most, of the child that loads the probe

    def command(self) -> Sequence[str]:
        """In a mount namespace where journald's /run is /run; no process is left between it and us."""
        script = 'mount --bind "$1" /run && shift && exec "$@"'
        beside = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
        run_directory = str(self.journald.directory / "run")
        return [*beside, run_directory, *K3SWATCH, "run", "--config", str(self.config)]

    def ready(self) -> bool:
        """Whether it has said READY=1."""
        for child in self.children():
            self.loader_rss = max(self.loader_rss, _status_bytes(child, "VmHWM"))
        try:
            return b"READY=1" in self._notify.recv(4096)
        except TimeoutError:
            return False

    def start(self) -> Watcher:
        """Start it; `start_seconds` is then the time from exec to READY=1."""
        path = self.directory / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as self._notify:
            self._notify.bind(str(path))
            self._notify.settimeout(0.002)
            before = os.getcwd(), os.environ.get("NOTIFY_SOCKET")
            os.environ["NOTIFY_SOCKET"] = str(path)
            os.chdir(REPO)
            try:
                with self.space.inside():
                    begin = time.monotonic()
                    super().start()
                    self.start_seconds = time.monotonic() - begin
            finally:
                os.chdir(before[0])
                del os.environ["NOTIFY_SOCKET"]
        return self

    @property
    def pid(self) -> int:
        """Of the daemon itself."""
        if self.process is None:
            raise SourceError("k3swatch is not running")
        return self.process.pid

    def status(self) -> dict[str, Any]:
        """What `k3swatch status --format json` prints; SourceError with its last words when it is gone."""
        if self.process is None or self.process.poll() is not None:
            raise SourceError("k3swatch has ended", self.log.read_text(errors="replace")[-2000:])
        return dict(json.loads(ask(self.control)))

    def evaluations(self) -> int:
        """How often it has looked."""
        return int(self.status()["daemon"]["evaluations"])

    def settled(self) -> int:
        """Wait until it has looked at what is there now and is quiet; the number of looks so far."""

        def quiet() -> int:
            before = self.evaluations()
            time.sleep(0.3)
            return before if self.evaluations() == before else 0

        return int(wait_until(quiet, "k3swatch comes to rest", 60))

    def rested(self, generation: int) -> float:
        """Wait until it has looked at this generation, and as long again: it is never busy for more than half of the
        time. Returns how many seconds the last look took.
        """

        def looked() -> dict[str, Any] | None:
            status = self.status()
            return status if status["generation"] == generation else None

        status = wait_until(looked, f"k3swatch looks at generation {generation}", 60, 0.02)
        seconds = float(status["daemon"]["last_evaluation_seconds"])
        time.sleep(seconds + 0.02)
        return seconds

    def cpu(self) -> float:
        """Seconds of processor time so far, of all its threads (`/proc/PID/schedstat` knows nanoseconds)."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> tuple[int, int]:
        """RSS and PSS now, in bytes."""
        path = Path(f"/proc/{self.pid}/smaps_rollup")
        values = dict(line.split()[:2] for line in path.read_text().splitlines()[1:])
        return int(values["Rss:"]) << 10, int(values["Pss:"]) << 10

    def children(self) -> list[int]:
        """Its child processes."""
        if self.process is None:
            return []
        try:
            tasks = list(Path(f"/proc/{self.pid}/task").iterdir())
            return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        except OSError:  # it is ending
            return []


def _status_bytes(pid: int, key: str) -> int:
    """A size out of `/proc/PID/status`; 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:")), 0)
