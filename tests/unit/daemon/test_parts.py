"""Small parts of the daemon: commits, sources that fail, the control socket, sd_notify, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from k3swatch.daemon.commits import Commits
from k3swatch.daemon.control import MAX_ANSWER, ControlSocket, ask
from k3swatch.daemon.notify import Notifier
from k3swatch.daemon.signals import Signals
from k3swatch.daemon.source import Source
from k3swatch.errors import NotPermitted, SourceError
from k3swatch.model.incident import Event, Notice

NFT, IPTABLES = (100, "nft"), (101, "iptables")


@pytest.mark.parametrize(
    ("seen", "after", "upto", "expected"),
    [
        ([(8, 1.0, NFT)], 7, 8, (1.0, NFT)),
        ([(8, 1.0, NFT), (9, 2.0, NFT)], 7, 9, (1.0, NFT)),
        ([(8, 1.0, NFT), (9, 2.0, IPTABLES)], 7, 9, (1.0, None)),  # who of them?
        ([(8, 1.0, NFT), (9, 2.0, IPTABLES)], 8, 9, (2.0, IPTABLES)),
        ([(8, 1.0, NFT)], 7, 9, (1.0, None)),  # 9 was lost, and it may have been the one
        ([(10, 1.0, NFT)], 7, 9, (None, None)),  # came after the look
        ([(7, 1.0, NFT)], 7, 7, (None, None)),
        ([], 7, 8, (None, None)),
        ([(8, 1.0, None)], 7, 8, (1.0, None)),  # a kernel that does not name it
        ([(8, 1.0, NFT)], None, 8, (None, None)),  # the first look: the rules are older
        ([(8, 1.0, NFT)], 7, None, (None, None)),
        ([(0xFFFFFFFF, 1.0, NFT), (0, 2.0, NFT), (1, 3.0, NFT)], 0xFFFFFFFE, 1, (1.0, NFT)),
    ],
)
def test_who_committed_what_was_seen(
    seen: list[tuple[int, float, tuple[int, str] | None]],
    after: int | None,
    upto: int | None,
    expected: tuple[float | None, tuple[int, str] | None],
) -> None:
    commits = Commits()
    for generation, at, committer in seen:
        commits.add(generation, at, committer)
    assert commits.between(after, upto) == expected


def test_commits_take_no_more_room_than_they_need() -> None:
    commits = Commits()
    for generation in range(100_000):
        commits.add(generation, float(generation), NFT)
    assert commits.between(99_990, 99_999) == (99_991.0, NFT)
    assert commits.between(0, 99_999)[1] is None


class Hand:
    """A clock that is moved by hand."""

    time = 100.0

    def now(self) -> float:
        return self.time + 1e9

    def monotonic(self) -> float:
        return self.time


class Thing:
    """Something that can be closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def held(source: Source[Thing]) -> Thing | None:
    """What it has now."""
    return source.current


def test_a_source_is_told_lost_once_and_back_once_and_tried_ever_more_seldom() -> None:
    clock, events = Hand(), list[Event]()
    source: Source[Thing] = Source("netlink", events.append, clock, 5.0)
    tries = 0

    def refuse() -> Thing:
        nonlocal tries
        tries += 1
        raise SourceError("gone", "modprobe it")

    for _ in range(200):  # 20 seconds
        source.attempt(refuse)
        clock.time += 0.1
    assert 5 <= tries <= 7  # after 1, 2, 4, 5, 5 seconds
    assert [(event.notice, event.subject, event.message, event.hint) for event in events] == [
        (Notice.BLIND, "netlink", "netlink: gone", "modprobe it")
    ]
    assert source.blind_seconds == pytest.approx(20.0)
    clock.time += 5
    thing = Thing()
    source.attempt(lambda: thing)
    assert held(source) is thing
    assert events[-1].notice is Notice.SIGHTED
    clock.time += 60
    assert source.blind_seconds == pytest.approx(25.0)
    source.failed(SourceError("broke"))
    assert (held(source), thing.closed) == (None, 1)
    assert [event.notice for event in events] == [Notice.BLIND, Notice.SIGHTED, Notice.BLIND]
    assert not source.due
    clock.time += 1.1
    assert source.due


def test_a_source_that_is_blind_for_another_reason_says_so() -> None:
    clock, events = Hand(), list[Event]()
    source: Source[Thing] = Source("x", events.append, clock, 5.0)
    for error in (SourceError("x: a"), SourceError("x: a"), OSError("b"), OSError("b")):
        source.failed(error)
    assert [event.message for event in events] == ["x: a", "x: b"]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlSocket]:
    made = ControlSocket(str(tmp_path / "run" / "control.sock"))
    yield made
    made.close()


def asked(control: ControlSocket, document: bytes) -> bytes:
    """What a client gets."""
    answers: list[bytes] = []
    client = threading.Thread(target=lambda: answers.append(ask(control.path)))
    client.start()
    while client.is_alive():
        control.answer(document)
        client.join(0.01)
    return answers[0]


def test_control_socket_answers_whatever_the_size(control: ControlSocket) -> None:
    assert asked(control, b'{"a": 1}') == b'{"a": 1}'
    big = os.urandom(200_000)
    assert asked(control, big) == big


def test_control_socket_waits_for_nobody(control: ControlSocket) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(control.path)
        control.answer(b"x" * MAX_ANSWER)
        control.answer(b"nobody waits")
        assert asked(control, b"next") == b"next"


def test_control_socket_is_for_owner_and_group(control: ControlSocket) -> None:
    assert os.stat(control.path).st_mode & 0o777 == 0o660


def test_control_socket_left_by_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    control = ControlSocket(path)
    assert asked(control, b"here") == b"here"
    control.close()
    assert not os.path.exists(path)


def test_control_socket_never_replaces_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(SourceError, match="Address already in use"):
        ControlSocket(str(path))
    assert path.read_text() == "data"


def test_asking_where_nobody_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        ask(str(tmp_path / "absent"))
    assert not isinstance(caught.value, NotPermitted)
    assert "is the daemon running" in caught.value.hint


def test_notifier_speaks_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        notifier = Notifier()
        notifier.ready("well")
        notifier.watchdog()
        notifier.reloading()
        notifier.stopping()
        said = [manager.recv(1000).decode() for _ in range(4)]
    assert said[0] == "READY=1\nSTATUS=well"
    assert said[1] == "WATCHDOG=1"
    assert said[2].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert said[3] == "STOPPING=1"
    assert notifier.watchdog_interval == 15.0


def test_notifier_hands_descriptors_to_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open("/dev/null") as file:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        notifier.keep("probe-1", [file.fileno(), file.fileno()])
        assert notifier.forget("probe-1")
        kept, descriptors, _, _ = socket.recv_fds(manager, 1000, 4)
        assert [os.path.sameopenfile(one, file.fileno()) for one in descriptors] == [True, True]
        for one in descriptors:
            os.close(one)
        assert kept == b"FDSTORE=1\nFDNAME=probe-1\nFDPOLL=0"
        assert manager.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=probe-1"


@pytest.mark.parametrize(
    ("ours", "number", "names", "wanted"),
    [
        (True, "3", "a:a:b", [("a", 3), ("a", 4), ("b", 5)]),
        (False, "2", "a:b", []),  # somebody else's, inherited by mistake
        (True, "3", "a:b", []),
        (True, "0", "", []),
    ],
)
def test_notifier_inherits(
    ours: bool, number: str, names: str, wanted: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "set_inheritable", lambda *_: None)
    pid = os.getpid() if ours else 1
    notifier = Notifier({"LISTEN_PID": str(pid), "LISTEN_FDS": number, "LISTEN_FDNAMES": names})
    assert notifier.inherited() == wanted
    assert notifier.inherited() == []


def test_notifier_in_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"k3w-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Notifier().status("x")
        assert manager.recv(100) == b"STATUS=x"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "junk"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_whether_the_manager_wants_signs_of_life(environ: dict[str, str], interval: float | None) -> None:
    notifier = Notifier(environ)
    assert notifier.watchdog_interval == interval
    notifier.watchdog()


def test_notifier_outlives_its_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Notifier().ready("x")


@pytest.mark.timeout(10)
def test_notifier_does_not_wait_for_a_manager_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        for _ in range(1000):  # more than the queue of a socket takes (net.unix.max_dgram_qlen)
            notifier.status("busy")
        notifier.stopping()
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while manager.recv(100):
                pass
        notifier.watchdog()
        assert manager.recv(100) == b"WATCHDOG=1"


def test_signals_are_read_in_their_order_and_given_back() -> None:
    before = signal.getsignal(signal.SIGHUP)
    signals = Signals()
    try:
        assert signals.read() == []
        signals.wake()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.read() == ["SIGHUP", "SIGTERM"]
        for _ in range(100_000):
            signals.wake()  # must not block when nobody reads
    finally:
        signals.close()
    assert signal.getsignal(signal.SIGHUP) is before
