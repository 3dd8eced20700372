"""The real services that k3swatch tells, started and stopped for tests and for the demo.

Each lives in its own directory and in a child process: journald in a private mount namespace (its `/run` is a
folder here, so its socket and its files are reachable from outside), Prometheus and Alertmanager on an
address and port of their own with intervals of a second. Leaving the `with` block ends the child.

Nothing here touches the host's journald, Prometheus or Alertmanager.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from k3swatch.errors import SourceError

T = TypeVar("T")

JOURNALD = "/lib/systemd/systemd-journald"
PATIENCE = 20.0  # seconds a service may take to answer
STARTING = 60.0  # and to start, on a machine that does much else


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on now (somebody else may take it before you do: loopback tests only)."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until(
    happened: Callable[[], T | None], what: str, timeout: float = PATIENCE, every: float = 0.05
) -> T:
    """Call `happened` until its result is true and return that; SourceError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        result = happened()
        if result:
            return result
        if time.monotonic() > end:
            raise SourceError(f"{what}: not within {timeout:g} s")
        time.sleep(every)


def get_json(url: str, timeout: float = 5.0) -> Any:
    """The decoded body of a GET; None while nobody answers or the answer is an error."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return json.loads(answer.read())
    except (OSError, ValueError):
        return None


class Service:
    """One child process with a directory for its files and a log of what it wrote."""

    name = "service"

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix` goes before the command: `("ip", "netns", "exec", NAME)` starts it in that namespace."""
        self.directory = directory
        self.prefix = tuple(prefix)
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """Where its stdout and stderr go."""
        return self.directory / f"{self.name}.log"

    def command(self) -> Sequence[str]:
        """The command line; called at every start."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start it and return when it answers; SourceError with the end of its log when it does not."""
        with self.log.open("ab") as log:
            self.process = process = subprocess.Popen(
                [*self.prefix, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(
                lambda: self.ready() or self.process is None or self.process.poll() is not None,
                self.name,
                STARTING,
            )
            if process.poll() is not None:
                raise SourceError(f"{self.name}: ended with status {process.returncode}")
        except SourceError as error:
            self.stop()
            tail = self.log.read_text(errors="replace")[-8000:]
            raise SourceError(str(error), hint=tail) from None
        except BaseException:  # Ctrl-C: nobody else knows of it yet
            self.stop()
            raise
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with signal `number` (SIGKILL after 10 s) and wait; harmless when it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self if self.process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Journald(Service):
    """systemd-journald with a /run of its own. Its directory must be short: a socket path has 107 bytes."""

    name = "journald"

    @property
    def socket(self) -> str:
        """The native protocol's socket."""
        return str(self.directory / "run/systemd/journal/socket")

    @property
    def files(self) -> Path:
        """Where the journal files are, for `journalctl -D`."""
        return self.directory / "run/log/journal"

    def command(self) -> Sequence[str]:
        """unshare(1) and a bind mount over /run, then journald itself."""
        run = self.directory / "run"
        conf = run / "systemd/journald.conf.d"
        for folder in (run / "systemd/journal", conf, self.files):
            folder.mkdir(parents=True, exist_ok=True)
        (conf / "k3swatch.conf").write_text(
            "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n"
            "ForwardToSyslog=no\nForwardToKMsg=no\nForwardToConsole=no\nForwardToWall=no\n"
        )
        script = f'mount --bind "$1" /run && exec {JOURNALD}'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(run)]

    def ready(self) -> bool:
        """Whether its socket takes a connection (a dead one's is left behind) and it has opened its file."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(self.socket) == 0 and any(self.files.glob("*/system.journal"))

    def journalctl(self, *arguments: str, catalog: Path | None = None) -> str:
        """What `journalctl` prints for this journal; `catalog`: a .catalog file that `-x` takes its texts from.

        journalctl compiles it with its own --update-catalog, below a root of its own, and then reads it in a mount
        namespace where that is the host's (systemd 252 has no other way).
        """
        command = ["journalctl", "--no-pager", "-D", str(self.files), *arguments]
        environment = dict(os.environ, LC_ALL="C.UTF-8")
        if catalog is not None:
            root = self.directory / "root"
            texts, database = root / "usr/lib/systemd/catalog", root / "var/lib/systemd/catalog"
            texts.mkdir(parents=True, exist_ok=True)
            database.mkdir(parents=True, exist_ok=True)
            shutil.copy(catalog, texts)
            subprocess.run(["journalctl", "--update-catalog", f"--root={root}"], check=True, timeout=30)
            script = 'mount --bind "$1" /var/lib/systemd/catalog && shift && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", script, "sh", str(database), *command]
        done = subprocess.run(command, capture_output=True, env=environment, check=True, timeout=30)
        return done.stdout.decode(errors="replace")

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """All entries that match (`SYSLOG_IDENTIFIER=k3swatch`), oldest first, decoded from JSON."""
        return [json.loads(line) for line in self.journalctl("-o", "json", "--all", *matches).splitlines()]


class WebService(Service):
    """A service that speaks HTTP on one address and port."""

    def __init__(
        self, directory: Path, address: str = "127.0.0.1", port: int = 0, prefix: Sequence[str] = ()
    ) -> None:
        super().__init__(directory, prefix)
        self.address = address
        self.port = port or free_port()

    @property
    def url(self) -> str:
        """`http://address:port`, no slash at the end."""
        return f"http://{self.address}:{self.port}"

    def ready(self) -> bool:
        """Whether it says so itself."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Alertmanager(WebService):
    """Alertmanager that groups by incident and tells one webhook at once."""

    name = "alertmanager"

    def __init__(
        self,
        directory: Path,
        webhook: str,
        address: str = "127.0.0.1",
        port: int = 0,
        prefix: Sequence[str] = (),
    ) -> None:
        """`webhook` is the URL its only receiver posts to."""
        super().__init__(directory, address, port, prefix)
        self.webhook = webhook

    def command(self) -> Sequence[str]:
        """No cluster, no wait before the first notification, resolved ones sent."""
        config = self.directory / "alertmanager.yml"
        config.write_text(
            "route: {receiver: demo, group_by: ['...'],"
            " group_wait: 0s, group_interval: 1s, repeat_interval: 1h}\n"
            f"receivers: [{{name: demo, webhook_configs: [{{url: {json.dumps(self.webhook)}}}]}}]\n"
        )
        return [
            "prometheus-alertmanager",
            f"--config.file={config}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}:{self.port}",
            "--cluster.listen-address=",
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire now (GET /api/v2/alerts)."""
        return get_json(f"{self.url}/api/v2/alerts") or []


class Prometheus(WebService):
    """Prometheus that scrapes `targets` and evaluates `rules` every `interval`, and tells `alertmanagers`."""

    name = "prometheus"

    def __init__(
        self,
        directory: Path,
        targets: Sequence[str],
        rules: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
        interval: str = "1s",
        address: str = "127.0.0.1",
        port: int = 0,
        prefix: Sequence[str] = (),
        instance: str = "",
    ) -> None:
        """`targets` and `alertmanagers` are `host:port`; `instance` is what the targets are called (their address)."""
        super().__init__(directory, address, port, prefix)
        self.targets = list(targets)
        self.rules = [str(path) for path in rules]
        self.alertmanagers = list(alertmanagers)
        self.interval = interval
        self.labels = {"instance": instance} if instance else {}

    def command(self) -> Sequence[str]:
        """The configuration is JSON, which is YAML."""
        config = self.directory / "prometheus.yml"
        scrape = {
            "job_name": "k3swatch",
            "static_configs": [{"targets": self.targets, "labels": self.labels}],
        }
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": self.interval, "evaluation_interval": self.interval},
                    "rule_files": self.rules,
                    "scrape_configs": [scrape],
                    "alerting": {
                        "alertmanagers": [{"static_configs": [{"targets": self.alertmanagers}]}],
                    },
                }
            )
        )
        return [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}:{self.port}",
            "--log.level=warn",
        ]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of a PromQL expression: `[{"metric": {...}, "value": [time, "1"]}, ...]`."""
        answer = get_json(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        return list(answer["data"]["result"]) if answer else []

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing alerts of the loaded rules."""
        answer = get_json(f"{self.url}/api/v1/alerts")
        return list(answer["data"]["alerts"]) if answer else []


class Webhook:
    """A receiver that keeps every notification Alertmanager posts; in this process, on a thread."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.notifications: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                outer.notifications.append(json.loads(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What to give to Alertmanager."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/"

    def alerts(self, status: str) -> list[dict[str, Any]]:
        """Every alert of every notification so far with this status, `firing` or `resolved`."""
        return [
            alert
            for notification in list(self.notifications)
            for alert in notification["alerts"]
            if alert["status"] == status
        ]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
