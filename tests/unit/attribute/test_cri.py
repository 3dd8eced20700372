"""The container runtime asked over a Unix socket: what it answers, and peers that answer to hurt."""

from __future__ import annotations

import shutil
import socket
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cri import SOCKET, Peer, Runtime, speaks
from support.cri import sandbox as message
from support.effort import effort

from k3swatch.attribute import cri
from k3swatch.attribute.cni import Pod
from k3swatch.attribute.cri import Cri, Listed, owner
from k3swatch.attribute.receiver import receiver
from k3swatch.attribute.root import Root
from k3swatch.attribute.wire import delimited, messages
from k3swatch.demo import node as names
from k3swatch.demo.kubernetes import CONTAINER
from k3swatch.demo.node import Node
from k3swatch.model.finding import Finding, Orphan

LABELS = {
    "svccontroller.k3s.cattle.io/svcname": names.SERVICE,
    "svccontroller.k3s.cattle.io/svcnamespace": "default",
}


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose sockets fit in sun_path."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="k3w-") as directory:
        yield Path(directory)


def sandbox(
    identifier: str = CONTAINER,
    name: str = names.POD_NAME,
    labels: dict[str, str] | None = None,
    state: int = 0,
) -> bytes:
    """The incident's, unless something else is said."""
    return message(identifier, name, names.POD_UID, "kube-system", labels or LABELS, state)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Peers that answer share a busy machine with us; those that do not are timed."""
    if "hostile_peers" not in request.node.name:
        monkeypatch.setattr(cri, "SECONDS", 5.0)


def ask(directory: Path, peer: Peer) -> tuple[Listed | bool | None, list[str]]:
    runtime = Runtime(directory, peer)
    try:
        with Root(str(directory)) as root:
            return Cri().sandbox(root, CONTAINER), root.troubles
    finally:
        runtime.close()


def test_the_sandbox_with_its_labels(short: Path) -> None:
    found, troubles = ask(short, speaks(sandbox("another"), sandbox()))
    assert isinstance(found, Listed)
    assert found.pod == Pod("kube-system", names.POD_NAME, names.POD_UID)
    assert (found.labels, found.ready, troubles) == (LABELS, True, [])


def test_only_the_one_asked_for_counts(short: Path) -> None:
    assert ask(short, speaks(sandbox("another")))[0] is False


def test_a_stopped_sandbox_is_not_ready(short: Path) -> None:
    found, _ = ask(short, speaks(sandbox(state=1)))
    assert isinstance(found, Listed)
    assert not found.ready


def test_files_and_socket_of_the_runtime_that_disagree(node: Node, short: Path, portmap: Finding) -> None:
    """The address is leased to another container by now. Is the first one gone? Its runtime says both."""
    home = short / "node"
    shutil.copytree(node.directory, home)
    (home / "var/lib/cni/networks/cbr0/10.42.0.244").write_text("f" * 64)
    runtime = Runtime(home, speaks(sandbox("another")))
    try:
        with Root(str(home), seconds=20.0) as root:
            answer = receiver(portmap, root, cri=Cri())
    finally:
        runtime.close()
    assert answer is not None
    assert not answer.culprit.left_behind
    assert answer.culprit.confidence == "low"
    said = f"container {CONTAINER[:12]} runs by its files of the runtime, not by the CRI"
    assert said in answer.culprit.contradictions
    with Root(str(home), seconds=20.0) as root:  # the lease alone contradicts the rule
        alone = receiver(portmap, root)
    assert alone is not None
    assert said not in alone.culprit.contradictions


def test_a_sandbox_that_the_cri_says_stopped_is_gone(node: Node, short: Path, portmap: Finding) -> None:
    home = short / "node"
    shutil.copytree(node.directory, home)
    (home / "var/lib/cni/networks/cbr0/10.42.0.244").write_text("f" * 64)
    for task in (CONTAINER, names.LB):
        shutil.rmtree(home / names.TASKS / task)
    for state, gone in ((0, False), (1, True)):
        (home / SOCKET).unlink(missing_ok=True)
        runtime = Runtime(home, speaks(sandbox(state=state)))
        try:
            with Root(str(home), seconds=20.0) as root:
                answer = receiver(portmap, root, cri=Cri())
        finally:
            runtime.close()
        assert answer is not None
        assert answer.culprit.left_behind is gone
        assert answer.culprit.orphan == (Orphan.SANDBOX if gone else None)


def test_no_runtime_is_no_answer(short: Path) -> None:
    with Root(str(short)) as root:
        assert Cri().sandbox(root, CONTAINER) is None
        assert root.troubles == []


def test_one_that_is_silent_makes_another_ones_no_worthless(short: Path) -> None:
    """The pod may be of the runtime that does not answer."""
    dead = socket.socket(socket.AF_UNIX)
    (short / "run/containerd").mkdir(parents=True)
    dead.bind(str(short / "run/containerd/containerd.sock"))  # nobody accepts
    try:
        assert ask(short, speaks())[0] is None
    finally:
        dead.close()


@pytest.mark.parametrize(("seconds", "answered"), [(None, False), (20.0, True)])
def test_a_runtime_that_is_busy_answers_who_has_the_time(
    short: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None, answered: bool
) -> None:
    """The daemon asks again; a command has this one look, and waits for longer."""
    monkeypatch.setattr(cri, "SECONDS", 0.3)

    def busy(connection: socket.socket) -> None:
        time.sleep(0.6)
        speaks(sandbox())(connection)

    runtime = Runtime(short, busy)
    try:
        with Root(str(short), seconds=20.0) as root:
            found = Cri(seconds=seconds).sandbox(root, CONTAINER)
    finally:
        runtime.close()
    assert isinstance(found, Listed) is answered


def drain(connection: socket.socket) -> None:
    """Takes everything and says nothing, until the other end has had enough."""
    while connection.recv(65536):
        pass


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"\xff" * 65536)


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"\0")
        time.sleep(0.01)


def settings(connection: socket.socket) -> None:
    """Valid frames without end: an empty SETTINGS frame, each of which wants an answer."""
    while True:
        connection.sendall(b"\0\0\0\4\0\0\0\0\0" * 4000)


def continuation(connection: socket.socket) -> None:
    """HEADERS that never end (CVE-2024-27316 and its kin)."""
    connection.sendall(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\0\0\0\0\1\x88")
    while True:
        connection.sendall(b"\0\x3f\xff\x09\0\0\0\0\1" + b"\0" * 16383)


HOSTILE = {
    "silent": drain,
    "closes": lambda connection: None,
    "http1": lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "flood": flood,
    "drip": drip,
    "settings": settings,
    "continuation": continuation,
    "says no": speaks(status="12"),
    "status": speaks(status="\u00e9" * 9),
    "garbage": speaks(b"\xff" * 1000),
    "huge": speaks(*[b"x" * 60_000] * 40),
}


@pytest.mark.parametrize("peer", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_peers_cost_little_and_say_nothing(
    node: Node, short: Path, portmap: Finding, peer: Peer
) -> None:
    home = short / "node"
    node.directory.rename(home)
    node.directory.mkdir()
    runtime = Runtime(home, peer)
    tracemalloc.start()
    try:
        with Root(str(home), seconds=20.0) as root:
            asked = Cri()
            begin = time.monotonic()
            with effort(4 * cri.SECONDS):  # tracemalloc slows it down, too
                answer = receiver(portmap, root, cri=asked)
            spent = time.monotonic() - begin
            assert asked.sandbox(root, CONTAINER) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        runtime.close()
        node.directory.rmdir()
        home.rename(node.directory)
    assert answer is not None
    assert answer.culprit.pod == f"kube-system/{names.POD_NAME}"  # by the other sources
    assert answer.culprit.confidence == "high"
    assert not answer.culprit.left_behind
    assert "cri" not in answer.culprit.sources
    assert all(note.isprintable() for note in answer.culprit.notes)
    assert spent < 30 * cri.SECONDS  # of a busy machine; half of these peers would never end
    assert peak < 8 << 20
    assert runtime.asked == 1  # and is left alone for a while


def test_labels_of_any_number_and_names_of_any_kind(short: Path) -> None:
    many = {f"{number:05d}": "x" for number in range(300)}
    found, _ = ask(short, speaks(sandbox(name="e\x1b[2J\u202e", labels=many)))
    assert isinstance(found, Listed)
    assert len(found.labels) == cri.LABELS
    assert found.pod is not None
    found.pod.path.encode()


@pytest.mark.parametrize(
    ("pod", "labels", "expected"),
    [
        ("web-7d4b9-x2x4z", {"pod-template-hash": "7d4b9"}, "Deployment/web"),
        ("web-7d4b9-x2x4z", {"pod-template-hash": "other"}, None),
        ("db-0", {"statefulset.kubernetes.io/pod-name": "db-0"}, "StatefulSet/db"),
        (
            "svclb-x-abcde",
            {"controller-revision-hash": "1", "pod-template-generation": "1"},
            "DaemonSet/svclb-x",
        ),
        ("once-abcde", {"batch.kubernetes.io/job-name": "once"}, "Job/once"),
        ("bare", {}, None),
    ],
)
def test_owners(pod: str, labels: dict[str, str], expected: str | None) -> None:
    assert owner(Pod("default", pod), labels) == expected


def test_fields_are_read_as_they_are_written() -> None:
    content = bytes(range(256)) * 300
    assert dict(messages(delimited(3, content))) == {3: content}
