"""The journal sink against a datagram socket that decodes what journald would."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.effort import effort

from k3swatch.model.incident import Change, Event, Notice
from k3swatch.sinks.fields import event_priority, priority
from k3swatch.sinks.journald import KEPT, Journald
from k3swatch.sinks.native import FIELD, encode, valid
from k3swatch.view.catalog import ENTRIES, FIELDS, Kind


def decode(entry: bytes) -> list[tuple[str, bytes]]:
    """The reader's side of the protocol, written from its description."""
    fields = []
    while entry:
        line, _, entry = entry.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            size = int.from_bytes(entry[:8], "little")
            name, value, end = line, entry[8 : 8 + size], entry[8 + size : 9 + size]
            assert end == b"\n"
            entry = entry[9 + size :]
        fields.append((name.decode(), value))
    return fields


class Receiver:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(5)

    def take(self) -> list[tuple[str, bytes]]:
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        if descriptors:
            with open(descriptors[0], "rb") as file:
                file.seek(0)
                data = file.read()
        return decode(data)

    def close(self) -> None:
        self.socket.close()
        os.unlink(self.path)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "socket")
    yield receiver
    receiver.socket.close()


@pytest.fixture
def journald() -> Iterator[Callable[..., Journald]]:
    sinks: list[Journald] = []

    def build(*arguments: Any, **fields: Any) -> Journald:
        sinks.append(Journald(*arguments, **fields))
        return sinks[-1]

    yield build
    for sink in sinks:
        sink.close(1.0)


def started(message: str = "hello", **fields: Any) -> Event:
    return replace(Event(Notice.STARTED, "k3swatch", message, 1.0), **fields)


def test_a_transition_with_all_its_fields(make: Any, receiver: Receiver, journald: Any) -> None:
    sink = journald(receiver.path)
    sink.publish(make.transition(Change.OPENED))
    fields = receiver.take()
    assert fields[0][0] == "MESSAGE"
    values = dict(fields)
    assert values["MESSAGE_ID"].decode() == ENTRIES[Kind.DIVERTED].id
    assert values["PRIORITY"] == b"2"
    assert values["SYSLOG_IDENTIFIER"] == b"k3swatch"
    assert values["K3SWATCH_PORT"] == b"tcp/6443"
    assert values["K3SWATCH_STATE"] == b"diverted"
    assert values["K3SWATCH_CHANGE"] == b"opened"
    assert values["K3SWATCH_MECHANISM"] == b"dnat"
    assert values["K3SWATCH_DESTINATION"] == b"10.42.0.244:6443"
    assert values["K3SWATCH_RULE"] == b"tcp dport 6443 dnat to 10.42.0.244:6443"
    assert values["K3SWATCH_CHAIN"] == b"CNI-DN-00ae1f04b10f949419f13"
    assert values["K3SWATCH_HANDLE"] == b"15"
    assert values["K3SWATCH_PID"] == b"4242"
    assert values["K3SWATCH_COMM"] == b"iptables"
    assert values["K3SWATCH_GENERATION"] == b"42"
    assert [value for name, value in fields if name == "K3SWATCH_VANTAGE"] == [b"external", b"local"]
    assert sink.failures == 0


def test_every_field_is_documented(make: Any, receiver: Receiver, journald: Any) -> None:
    sink = journald(receiver.path)
    rich = make.finding(conditions=("c",), why="w")
    step = replace(rich.path[0], comment="hello")
    sink.publish(make.transition(Change.OPENED, make.incident(replace(rich, path=(step,)))))
    sink.notify(started(hint="do"))
    documented = {name for name, _ in FIELDS}
    for fields in (receiver.take(), receiver.take()):
        own = {name for name, _ in fields if name.startswith("K3SWATCH_")}
        assert own
        assert own <= documented


def test_hostile_values_forge_nothing(make: Any, receiver: Receiver, journald: Any) -> None:
    evil = "x\nPRIORITY=7\nMESSAGE=all is well\n\n\0\udcff"
    sink = journald(receiver.path)
    step = replace(make.finding().path[0], rule=evil, comment=evil, chain=evil, table=evil)
    finding = make.finding(path=(step,), why=evil, conditions=(evil,))
    sink.publish(make.transition(Change.OPENED, make.incident(finding, committer=(1, evil))))
    fields = receiver.take()
    assert [value for name, value in fields if name == "PRIORITY"] == [b"2"]
    assert len([name for name, _ in fields if name == "MESSAGE"]) == 1
    assert dict(fields)["K3SWATCH_RULE"] == evil.encode(errors="backslashreplace")


def test_a_field_is_bounded_and_a_large_entry_goes_as_a_memfd(receiver: Receiver, journald: Any) -> None:
    sink = journald(receiver.path)
    sink._socket._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    many = tuple((f"K3SWATCH_F{n}", "y" * 10_000) for n in range(50))
    sink.notify(started(fields=many))
    fields = receiver.take()
    assert len(fields) > 50
    assert dict(fields)["K3SWATCH_F49"] == b"y" * FIELD
    assert sink.failures == 0


def test_names_that_are_not_ours_to_send() -> None:
    assert valid("K3SWATCH_X")
    for name in ("", "_PID", "a", "A=B", "A\nB", "9A", "A" * 65, "Ä"):
        assert not valid(name), name
    with pytest.raises(ValueError, match="field name"):
        encode([("_PID", "1")])


def test_a_bad_field_of_an_event_is_left_out_and_the_rest_is_told(receiver: Receiver, journald: Any) -> None:
    sink = journald(receiver.path)
    sink.notify(started(fields=(("bad name", "x"), ("K3SWATCH_PORT", "tcp/6443"))))
    assert dict(receiver.take())["K3SWATCH_PORT"] == b"tcp/6443"


def test_journald_absent_is_said_once_and_lines_go_to_stderr(
    make: Any, tmp_path: Path, journald: Any
) -> None:
    read, write = os.pipe()
    with open(read) as lines, open(write, "w") as stderr:
        sink = journald(str(tmp_path / "socket"), stderr)
        sink.publish(make.transition(Change.OPENED))
        sink.notify(started("two\nlines"))
        assert lines.readline().startswith("<4>k3swatch: journald cannot be told (")
        assert lines.readline().startswith(
            "<2>k3swatch: tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443 for "
        )
        assert lines.readline() == "<6>k3swatch: two\\nlines\n"
        assert sink.failures == 2
        receiver = Receiver(tmp_path / "socket")
        sink.notify(started("back"))
        assert dict(receiver.take())["MESSAGE"] == b"back"
        receiver.close()
        sink.notify(started("gone again"))
        assert "cannot be told" in lines.readline()
        assert lines.readline() == "<6>k3swatch: gone again\n"


def test_not_enabled_means_stderr_without_complaint(journald: Any) -> None:
    read, write = os.pipe()
    with open(read) as lines, open(write, "w") as stderr:
        sink = journald(stderr=stderr, enabled=False)
        sink.notify(started())
        assert lines.readline() == "<6>k3swatch: hello\n"
        assert sink.failures == 0


def test_who_looks_at_a_terminal_sees_every_line_once(
    receiver: Receiver, tmp_path: Path, journald: Any
) -> None:
    """`k3swatch run` by hand: beside the journal, and when there is none; the time instead of a priority."""
    read, write = os.pipe()
    with open(read) as lines, open(write, "w") as stderr:
        clock = time.strftime("%H:%M:%S", time.localtime(1.0))
        journald(receiver.path, stderr, watched=True).notify(started())
        assert dict(receiver.take())["MESSAGE"] == b"hello"
        assert lines.readline() == f"{clock} hello\n"
        absent = journald(str(tmp_path / "none"), stderr, watched=True)
        absent.notify(started("one"))
        absent.notify(started("two"))
        said = [lines.readline() for _ in range(3)]
        assert said[0] == f"{clock} one\n"
        assert said[1].startswith(f"{clock} journald cannot be told (")
        assert said[2] == f"{clock} two\n"


def test_a_journald_that_does_not_read_blocks_nobody_and_gets_it_later(
    receiver: Receiver, journald: Any
) -> None:
    sink = journald(receiver.path)
    with effort(2.0):  # who waited would wait for ever
        for number in range(500):
            sink.notify(started(f"number {number}"))
    assert sink._waiting, "the receiver's queue has room for all: the test tests nothing"
    assert sink.failures > 0
    for _ in range(500 - KEPT - sink.failures):
        receiver.take()
    sink.observe(None)
    seen = [dict(receiver.take())["MESSAGE"] for _ in range(min(KEPT, 5))]
    assert seen
    for _ in range(20):
        sink.observe(None)
        receiver.socket.settimeout(0.1)
        while True:
            try:
                seen.append(dict(receiver.take())["MESSAGE"])
            except TimeoutError:
                break
    assert seen[-1] == b"number 499"


def test_a_stderr_that_does_not_read_blocks_nobody(tmp_path: Path, journald: Any) -> None:
    read, write = os.pipe()
    with open(read), open(write, "w") as stderr:
        sink = journald(str(tmp_path / "none"), stderr)
        with effort(5.0):  # who waited would wait for ever
            for _ in range(2000):
                sink.notify(started("x" * 500))
        assert sink.failures > 2000
        os.read(read, 1 << 20)


def test_priorities(make: Any) -> None:
    assert priority(make.transition(Change.OPENED)) == 2
    assert priority(make.transition(Change.CONFIRMED)) == 2
    assert priority(make.transition(Change.CHANGED)) == 4
    assert priority(make.transition(Change.RESOLVED)) == 5
    assert priority(make.transition(Change.OPENED, make.incident(make.finding(shadowed=True)))) == 5
    assert priority(make.transition(Change.OPENED, make.incident(make.finding(certain=False)))) == 4
    assert priority(make.transition(Change.OPENED, make.incident(severity="warning"))) == 4
    assert event_priority(started()) == 6
    lasting = Event(Notice.LISTENER_CHANGED, "p", "m", 1.0, fields=(("K3SWATCH_SEVERITY", "warning"),))
    assert event_priority(lasting) == 4
    assert event_priority(replace(lasting, fields=(("K3SWATCH_SEVERITY", "notice"),))) == 5


def test_what_the_catalog_shows_can_be_pasted(make: Any, receiver: Receiver, journald: Any) -> None:
    sink = journald(receiver.path)
    sink.publish(make.transition(Change.OPENED))
    values = dict(receiver.take())
    assert values["WATCH_PORT"] == b"tcp/6443"
    assert values["WATCH_CHAIN"] == values["K3SWATCH_CHAIN"]
    step = replace(make.finding().path[0], chain="x; reboot\n")
    sink.publish(make.transition(Change.OPENED, make.incident(make.finding(path=(step,)))))
    assert dict(receiver.take())["WATCH_CHAIN"] == b"'x; reboot\\n'"
