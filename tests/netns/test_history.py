"""`k3swatch history` of a real daemon's store: while it runs, when it was stopped, when it was killed."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon

from k3swatch.demo.netns import Namespace, namespaces

Run = Callable[..., subprocess.CompletedProcess[str]]
NFT = (
    "table ip evil { chain o { type nat hook output priority -100; tcp dport 6443 dnat to 10.9.9.9:443; }; }"
)


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespaces("past") as spaces:
        spaces["past"].ip("link set lo up", "route add default dev lo")
        with spaces["past"].inside():
            listener = socket.create_server(("0.0.0.0", 6443))
        with listener:
            yield spaces["past"]


def ask(k3swatch: Run, daemon: Daemon, *arguments: str) -> str:
    done = k3swatch(daemon.space, "history", "--config", str(daemon.config), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def incidents(k3swatch: Run, daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ask(k3swatch, daemon, "--format", "json", "--since", "1h"))[
        "incidents"
    ]
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_same_is_told_with_the_daemon_and_without(
    end: signal.Signals, space: Namespace, tmp_path: Path, k3swatch: Run
) -> None:
    daemon = Daemon(space, tmp_path)
    nothing = k3swatch(space, "history", "--config", str(daemon.config))
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr.splitlines()[0].endswith("incidents.db: there is none")
    with daemon:
        space.run("nft", NFT)
        daemon.until_said("is DIVERTED to 10.9.9.9:443")
        daemon.until(lambda: incidents(k3swatch, daemon), "in the store")
        (one,) = incidents(k3swatch, daemon)
        assert (one["state"], one["resolved_at"]) == ("diverted", None)
        assert one["transitions"][0]["change"] == "opened"  # and then which ways to the API are left
        assert "OPEN for" in ask(k3swatch, daemon)
        space.run("nft", "delete table ip evil")
        daemon.until_said("the port is delivered again")
        daemon.until(lambda: incidents(k3swatch, daemon)[0]["resolved_at"], "its end in the store")
        while_it_runs = ask(k3swatch, daemon)
        assert daemon.stop(end) == (0 if end is signal.SIGTERM else -end)
        assert ask(k3swatch, daemon) == while_it_runs
    lines = while_it_runs.splitlines()
    assert "  tcp/6443 (k3s-api) DIVERTED to 10.9.9.9:443" in lines[0]
    assert "    by ip evil o handle 2: tcp dport 6443 dnat to 10.9.9.9:443" in lines
    assert lines[-1] == "1 incident"
    assert one["id"] in while_it_runs
    end_line = r"resolved   the port is delivered, undone by nft \(pid \d+\)$"
    assert any(re.search(end_line, line) for line in lines), while_it_runs


def test_reading_does_not_disturb_the_daemon(space: Namespace, tmp_path: Path, k3swatch: Run) -> None:
    """root reads while it is stopped; then it starts again and goes on writing."""
    daemon = Daemon(space, tmp_path)
    with daemon:
        space.run("nft", NFT)
        daemon.until(
            lambda: (tmp_path / "state/incidents.db").exists() and incidents(k3swatch, daemon), "in the store"
        )
        daemon.stop(signal.SIGKILL)
        incidents(k3swatch, daemon)
        space.run("nft", "delete table ip evil")
        daemon.start()
        daemon.until(lambda: incidents(k3swatch, daemon)[0]["resolved_at"], "its end in the store")
        assert "store" not in daemon.said()
