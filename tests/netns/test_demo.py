"""`k3swatch demo` end to end: everything agrees, nothing is left behind, and it can fail."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k3swatch.demo import stage as stages
from k3swatch.demo.acts import ACTS, OTHER_API, PORTMAP_POD
from k3swatch.demo.netns import PREFIX, RUN_NETNS
from k3swatch.demo.screen import Screen
from k3swatch.demo.stage import stage
from k3swatch.demo.story import Story, curtain, main
from k3swatch.errors import SourceError

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory with a short name: there are sockets below it."""
    with tempfile.TemporaryDirectory(prefix="k3w-demo-") as directory:
        yield Path(directory)


def test_a_long_name_is_no_place_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, wanted in (("x", None), ("x" * 100, "/tmp")):
        monkeypatch.setattr(tempfile, "tempdir", f"/{name}")
        assert stages._place() == wanted


@pytest.fixture
def demo(place: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo as a child that keeps its files below `place`; afterwards nothing of it may be left."""
    child = subprocess.Popen(
        [sys.executable, "-m", "k3swatch.cli", "demo"],
        cwd=REPO,
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with child:
        yield child
        if child.poll() is None:
            child.terminate()
        child.wait(30)
    assert not list(place.iterdir())
    assert not list(RUN_NETNS.glob(f"{PREFIX}-{child.pid}-*"))
    until = time.monotonic() + 5  # a command it had just asked, beside journald, ends by itself
    while processes_about(place) and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes_about(place)


def processes_about(path: Path) -> list[str]:
    """Command lines of running processes that name `path`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(path) in line:
            found.append(line)
    return found


@pytest.mark.timeout(300)
def test_everything_agrees_in_time(demo: subprocess.Popen[str]) -> None:
    begin = time.monotonic()
    output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, output
    assert time.monotonic() - begin < 180  # 25 seconds on a machine of its own
    assert "✗" not in output
    assert "\x1b" not in output  # colour is for terminals
    assert max(map(len, output.splitlines())) <= 100
    for act in ACTS:
        assert act.title in output
    # the whole story as one timeline, over the reboot, and the one plan that ends it
    plan, _, history = output.partition("the plan, in its order:")[2].partition("the whole of it")
    orphan = "cause  k3s kubectl -n kube-system delete daemonset svclb-kubeapi-loadbalancer-8e92d16f\n"
    assert orphan in plan
    assert "--apply removed CNI-DN-" in plan
    told = [line.split()[-1] for line in history.splitlines() if "DIVERTED to " in line]
    assert told == [PORTMAP_POD, OTHER_API, PORTMAP_POD]
    assert "resolved   the port is delivered, undone by k3swatch (pid " in history
    assert "    3 incidents\n" in history


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(demo: subprocess.Popen[str], number: signal.Signals) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("── 0"):
            break
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, rest
    assert "Interrupted" in rest


def test_it_can_fail() -> None:
    """An answer that is not the expected one is a disagreement, and the demo says so and exits 1."""
    screen = Screen(io.StringIO())
    with stage() as on:
        story = Story(screen, on)
        story.dial(replace(ACTS[0], answers=ACTS[1].answers))
    assert (story.checks, story.disagreements) == (4, 3)
    assert curtain(screen, story, 1.0) == 1


def test_what_a_service_said_last_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug of the daemon ends the demo, whose files are gone then: the traceback is not."""
    said = [f"  line {number}\x1b[2J" for number in range(30)]

    def broken() -> Any:
        raise SourceError("k3swatch: ended with status 1", hint="\n".join(["Traceback", *said]))

    monkeypatch.setattr("k3swatch.demo.story.stage", broken)
    assert main() == 1
    shown = capsys.readouterr().out.splitlines()
    assert any("k3swatch: ended with status 1" in line for line in shown)
    assert shown[-31:] == ["Traceback", *(line.replace("\x1b", "\\x1b") for line in said)]
