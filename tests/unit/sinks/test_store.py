"""The store: what it remembers, how it is bounded, what it does with a damaged file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.store import rows

from k3swatch.clock import SystemClock
from k3swatch.errors import DecodeError, SourceError
from k3swatch.incident.engine import Engine
from k3swatch.model.finding import Culprit, Observation
from k3swatch.model.incident import Change, Event, Notice
from k3swatch.model.words import Evidence
from k3swatch.sinks import database, store
from k3swatch.sinks.codec import decode, encode
from k3swatch.sinks.database import FILE
from k3swatch.sinks.past import past
from k3swatch.sinks.store import Store


class Stores:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.opened: list[Store] = []

    def __call__(self, directory: Path) -> Store:
        self.opened.append(Store(str(directory), SystemClock(), self.events.append))
        return self.opened[-1]


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    monkeypatch.setattr(store, "RETRY", 0.05)
    stores = Stores()
    yield stores
    for each in stores.opened:
        each.close(5)


def eventually(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def rich(make: Any) -> Any:
    evil = 'x"\n\0\udcff\U0001f600'
    finding = make.finding(
        conditions=("from 1.2.3.0/24", evil),
        why=evil,
        evidence=frozenset(Evidence),
        anchor=("ip", "nat", evil),
        culprit=Culprit(pod="a/b", sources=("x", "y")),
        restriction=True,
        shadowed=True,
        certain=False,
    )
    return make.incident(
        finding,
        make.finding(*make.local, path=()),
        confirmed_at=1001.5,
        flaps=3,
        connections=7,
        flow_only=True,
        last_flow_at=1002.25,
    )


def test_an_incident_survives_as_it_is(make: Any) -> None:
    for incident in (rich(make), make.incident(), make.incident(committer=None, generation=None)):
        assert decode(encode(incident)) == incident
        assert encode(incident).isascii()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "1", '{"id": 1}', "[" * 100_000],
)
def test_nonsense_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(text)


def test_every_damaged_value_is_a_decode_error_or_harmless(make: Any) -> None:
    document = json.loads(encode(rich(make)))
    damages: tuple[Any, ...] = (None, 1, "x", [], [1], {}, -1.5, True)
    for target in (document, document["findings"][0], document["findings"][0]["path"][0]):
        for name, value in list(target.items()):
            for other in damages:
                target[name] = other
                try:
                    incident = decode(json.dumps(document))
                except DecodeError:
                    continue
                assert decode(encode(incident)) == incident
                Engine([incident]).observe(Observation((), 1), 1.0)
            target[name] = value
            del target[name]
            with contextlib.suppress(DecodeError):
                decode(json.dumps(document))
            target[name] = value


def test_a_newer_versions_field_is_skipped(make: Any) -> None:
    text = encode(make.incident())
    assert decode(text.replace('{"id"', '{"shoe_size":44,"id"', 1)) == make.incident()


def test_open_incidents_and_history_survive_a_restart(make: Any, stores: Stores, tmp_path: Path) -> None:
    first = stores(tmp_path / "new" / "folder")
    assert first.load() == ()
    other = make.incident(make.finding(destination="10.0.0.1:1"))
    for transition in (
        make.transition(Change.OPENED, rich(make)),
        make.transition(Change.OPENED, other),
        make.transition(Change.RESOLVED, other, at=1100.0),
    ):
        first.publish(transition)
    first.close(5)
    second = stores(tmp_path / "new" / "folder")
    assert second.load() == (rich(make),)
    told = rows(tmp_path / "new" / "folder")
    assert [(each.change, each.state) for each in told] == [
        ("opened", "diverted"),
        ("opened", "diverted"),
        ("resolved", "delivered"),
    ]
    assert told[2].message.startswith("tcp/6443 (k3s-api) is no longer DIVERTED to 10.0.0.1:1 ")
    assert stores.events == []


def test_connections_counted_since_the_last_transition_are_kept(
    make: Any, stores: Stores, tmp_path: Path
) -> None:
    first = stores(tmp_path)
    incident, other = make.incident(connections=1), make.incident(make.finding(destination="10.0.0.1:1"))
    for one in (incident, other):
        first.publish(make.transition(Change.OPENED, one))
    first.recount([replace(incident, connections=5), other])
    eventually(
        lambda: [each.connections for each in decoded(tmp_path)] == [5, 0]
    )  # nobody closes what is killed
    # what is told later says it better, and is not overwritten by what waited
    first.recount([replace(incident, connections=6)])
    first.publish(make.transition(Change.CONFIRMED, replace(incident, connections=7, confirmed_at=1001.0)))
    first.close(5)
    assert [each.connections for each in decoded(tmp_path)] == [7, 0]
    assert [each.change for each in rows(tmp_path)] == ["opened", "opened", "confirmed"]


def decoded(directory: Path) -> list[Any]:
    return [each.incident for each in past(str(directory)).pasts]


@pytest.mark.parametrize("damage", [b"not a database at all, whatever its name" * 30, None])
def test_a_damaged_file_is_moved_aside(
    make: Any, stores: Stores, tmp_path: Path, damage: bytes | None
) -> None:
    first = stores(tmp_path)
    for n in range(200):
        first.publish(make.transition(Change.OPENED, replace(make.incident(), id=f"{n:012x}")))
    first.close(5)
    file = tmp_path / FILE
    if damage is None:  # a page in the middle
        data = bytearray(file.read_bytes())
        data[4096 * 2 : 4096 * 6] = os.urandom(4096 * 4)
        damage = bytes(data)
    file.write_bytes(damage)
    with pytest.raises(SourceError, match="history: "):
        past(str(tmp_path))
    second = stores(tmp_path)
    assert second.load() == ()
    assert [event.notice for event in stores.events] == [Notice.SINK_FAILED]
    assert "is damaged" in stores.events[0].message
    assert second.failures == 1
    (aside,) = tmp_path.glob(f"{FILE}.damaged-*")
    assert aside.read_bytes() == damage
    second.publish(make.transition(Change.OPENED))
    second.close(5)
    assert len(rows(tmp_path)) == 1


def test_one_damaged_row_costs_one_incident(make: Any, stores: Stores, tmp_path: Path) -> None:
    first = stores(tmp_path)
    first.publish(make.transition(Change.OPENED))
    first.publish(make.transition(Change.OPENED, replace(make.incident(), id="ffffffffffff")))
    first.close(5)
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("UPDATE incidents SET body='{' WHERE id='ffffffffffff'")
    connection.commit()
    connection.close()
    second = stores(tmp_path)
    assert second.load() == (make.incident(),)
    assert second.failures == 1
    assert "forgotten" in stores.events[0].message


def test_what_cannot_be_written_waits_and_is_written_later(make: Any, stores: Stores, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("a file where the folder should be")
    sink = stores(place)
    assert sink.load() == ()
    sink.publish(make.transition(Change.OPENED))
    eventually(lambda: sink.failures >= 3)
    assert [event.notice for event in stores.events] == [Notice.SINK_FAILED]
    place.unlink()
    eventually(lambda: len(stores.events) == 2)
    assert stores.events[1].notice is Notice.SINK_RECOVERED
    assert len(rows(place)) == 1


def test_beside_a_full_disk_what_is_known_is_read_all_the_same(
    make: Any, stores: Stores, tmp_path: Path
) -> None:
    """SQLite cannot make its log there: here a folder of that name is in its way."""
    first = stores(tmp_path)
    first.publish(make.transition(Change.OPENED))
    first.close(5)
    (tmp_path / f"{FILE}-wal").mkdir()
    second = stores(tmp_path)
    assert [incident.id for incident in second.load()] == [make.transition(Change.OPENED).incident.id]
    assert second.failures == 1


def test_beside_a_full_disk_what_is_in_the_log_only_is_read_as_well(
    make: Any, stores: Stores, tmp_path: Path
) -> None:
    """A daemon was killed and there is no room for shared memory: here a link is in its way."""
    killed, left = database.Database(tmp_path / FILE), tmp_path / "left"
    killed.write(make.transition(Change.OPENED))
    killed.recount(replace(make.transition(Change.OPENED).incident, connections=7))
    left.mkdir()
    (left / f"{FILE}-shm").symlink_to("nowhere")
    for name in (FILE, f"{FILE}-wal"):
        shutil.copyfile(tmp_path / name, left / name)
    killed.close()
    assert [incident.connections for incident in stores(left).load()] == [7]
    assert [event.notice for event in stores.events] == [Notice.SINK_FAILED]
    assert not list(left.glob("*damaged*"))


def test_on_a_full_disk_the_file_stays_open(
    make: Any, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing it would remove its log, and there is no room for another; here the file may not grow."""
    opened, full = [], [True]

    class Bounded(database.Database):
        def write(self, transition: Any) -> None:
            opened.append(self)
            self._connection.execute(f"PRAGMA max_page_count={1 if full else 1000}")
            if full:
                self._connection.execute("CREATE TABLE large AS SELECT zeroblob(100000)")
            super().write(transition)

    monkeypatch.setattr(store, "Database", Bounded)
    sink = stores(tmp_path)
    sink.publish(make.transition(Change.OPENED))
    eventually(lambda: sink.failures >= 3)
    assert len(set(opened)) == 1
    full.clear()
    eventually(lambda: len(rows(tmp_path)) == 1)


def test_waiting_is_bounded_and_publishing_never_blocks(make: Any, stores: Stores, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("")
    sink = stores(place)
    start = time.monotonic()
    for _ in range(store.WAITING + 50):
        sink.publish(make.transition(Change.OPENED))
    assert time.monotonic() - start < 20  # a wait for the disk with each, RETRY long, would be a minute
    assert sink.failures >= 50
    assert len(sink._waiting) == store.WAITING


def test_a_locked_file_blocks_nobody(make: Any, stores: Stores, tmp_path: Path) -> None:
    sink = stores(tmp_path)
    sink.publish(make.transition(Change.OPENED))
    eventually(lambda: len(rows(tmp_path)) == 1)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    sink.publish(make.transition(Change.CONFIRMED))
    assert time.monotonic() - start < 0.9  # the thread that writes waits for a second
    eventually(lambda: sink.failures >= 1)
    other.rollback()
    other.close()
    eventually(lambda: len(rows(tmp_path)) == 2)


def test_the_size_is_bounded(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ROWS", 50)
    base = database.Database(tmp_path / FILE)
    still_open = make.incident(opened_at=1.0)
    base.write(make.transition(Change.OPENED, still_open))
    for n in range(400):
        over = replace(make.incident(), id=f"{n:012x}", updated_at=2000.0 + n)
        base.write(make.transition(Change.RESOLVED, over, at=2000.0 + n))
    assert [decode(body) for body in base.open_incidents()] == [still_open]
    base.close()
    connection = sqlite3.connect(tmp_path / FILE)
    assert connection.execute("SELECT count(*) FROM transitions").fetchone()[0] <= 150
    assert connection.execute("SELECT count(*) FROM incidents").fetchone()[0] <= 150
    connection.close()
    assert rows(tmp_path)[-1].at == 2399.0


def test_its_bytes_are_bounded(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Incidents that name thousands of addresses: the newest are kept, open ones whatever they cost, and it goes on."""
    monkeypatch.setattr(database, "BYTES", 1 << 20)
    base = database.Database(tmp_path / FILE)
    still_open = make.incident(opened_at=1.0)
    base.write(make.transition(Change.OPENED, still_open))
    many = tuple(f"10.{n // 250}.{n % 250}.1" for n in range(2000))
    large = make.incident()
    large = replace(large, findings=tuple(replace(each, addresses=many) for each in large.findings))
    for n in range(200):
        over = replace(large, id=f"{n:012x}", updated_at=2000.0 + n, resolved_at=2000.0 + n)
        base.write(make.transition(Change.RESOLVED, over, at=2000.0 + n))
    assert [decode(body) for body in base.open_incidents()] == [still_open]
    base.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4 << 20
    assert rows(tmp_path)[-1].at == 2199.0


def test_a_daemon_that_is_killed_leaves_a_sound_file(make: Any, stores: Stores, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from dataclasses import replace\n"
        "from k3swatch.clock import SystemClock\n"
        "from k3swatch.model.incident import Change, Transition\n"
        "from k3swatch.model.finding import PortVerdict\n"
        "from k3swatch.model.port import ProtectedPort\n"
        "from k3swatch.sinks.codec import decode\n"
        "from k3swatch.sinks.store import Store\n"
        "sink, incident, n = Store(sys.argv[1], SystemClock()), decode(sys.argv[2]), 0\n"
        "while True:\n"
        "    n += 1\n"
        "    one = replace(incident, id=f'{n:012x}')\n"
        "    sink.publish(Transition(Change.OPENED, one, PortVerdict(ProtectedPort('k3s-api', 6443)), float(n)))\n"
        "    time.sleep(0.001)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), encode(make.incident())]
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3]))
    process = subprocess.Popen(command, env=environment)
    try:
        eventually(lambda: len(rows(tmp_path)) > 20)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    told = len(rows(tmp_path))
    loaded = stores(tmp_path).load()
    assert len(loaded) == told > 20
    assert stores.events == []


def test_a_newer_versions_file_is_kept_and_not_used(stores: Stores, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    stores(tmp_path)
    assert "newer version" in stores.events[0].message
    assert len(list(tmp_path.glob(f"{FILE}.damaged-*"))) >= 1
