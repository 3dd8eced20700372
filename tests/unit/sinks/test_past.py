"""What happened, read back: beside a running daemon, without one, from a file that is damaged; never written."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k3swatch import cli
from k3swatch.errors import NotPermitted, SourceError
from k3swatch.model.incident import Change
from k3swatch.sinks.database import FILE, Database
from k3swatch.sinks.past import past

Life = Callable[..., Database]


@pytest.fixture
def life(make: Any, tmp_path: Path) -> Life:
    """`life(3)`: a store with so many incidents, one every 1000 s, resolved after 200 s; open for writing."""

    def build(count: int, directory: Path = tmp_path) -> Database:
        database = Database(directory / FILE)
        for number in range(count):
            opened = 1000.0 * (number + 1)
            one = make.incident(opened_at=opened)
            one = replace(one, id=f"{number:012x}", updated_at=opened)
            database.write(make.transition(Change.OPENED, one, at=opened))
            ended = replace(one, updated_at=opened + 200, resolved_at=opened + 200)
            database.write(make.transition(Change.RESOLVED, ended, at=opened + 200))
        return database

    return build


def files(directory: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_uid, path.stat().st_size) for path in directory.iterdir()}


def test_incidents_with_what_was_told_newest_last(life: Life, tmp_path: Path) -> None:
    life(3).close()
    found = past(str(tmp_path))
    assert [one.incident.opened_at for one in found.pasts] == [1000, 2000, 3000]
    assert [told.change for told in found.pasts[0].told] == ["opened", "resolved"]
    assert [told.state for told in found.pasts[0].told] == ["diverted", "delivered"]
    assert (found.omitted, found.unreadable) == (0, 0)


def test_since_keeps_what_happened_since_and_what_is_open(life: Life, make: Any, tmp_path: Path) -> None:
    database = life(3)
    old = replace(make.incident(opened_at=1.0), id="open")
    database.write(make.transition(Change.OPENED, old, at=1.0))
    database.close()
    assert [one.incident.id for one in past(str(tmp_path), 2200).pasts] == ["open", f"{1:012x}", f"{2:012x}"]
    assert [one.incident.id for one in past(str(tmp_path), 2201).pasts] == ["open", f"{2:012x}"]


def test_the_newest_are_kept_and_the_rest_is_counted(life: Life, tmp_path: Path) -> None:
    life(5).close()
    found = past(str(tmp_path), limit=2)
    assert [one.incident.opened_at for one in found.pasts] == [4000, 5000]
    assert found.omitted == 3


def test_beside_a_writer_the_last_transition_is_seen(life: Life, make: Any, tmp_path: Path) -> None:
    """It is in the write-ahead log only: a reader that took the file as it stands would miss it."""
    database = life(1)
    alone = sqlite3.connect(f"{(tmp_path / FILE).as_uri()}?mode=ro&immutable=1", uri=True)
    with closing(alone), pytest.raises(sqlite3.OperationalError, match="no such table"):
        alone.execute("SELECT * FROM incidents")
    assert len(past(str(tmp_path)).pasts) == 1
    database.write(make.transition(Change.OPENED, make.incident(opened_at=9000.0), at=9000.0))
    assert len(past(str(tmp_path)).pasts) == 2
    database.close()


def test_a_reader_does_not_hold_up_the_writer(life: Life, make: Any, tmp_path: Path) -> None:
    database = life(1)
    uri = f"{(tmp_path / FILE).as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM incidents").fetchone()
        began = time.monotonic()
        database.write(make.transition(Change.OPENED, make.incident(opened_at=9000.0), at=9000.0))
        assert time.monotonic() - began < 0.9  # the writer gives up after a second
    database.close()


def test_nothing_is_left_in_the_directory(life: Life, tmp_path: Path) -> None:
    """root reads a store of the user k3swatch: a log of root's in its directory would be in that daemon's way."""
    life(2).close()
    before = files(tmp_path)
    assert set(before) == {FILE}
    past(str(tmp_path))
    assert files(tmp_path) == before


def test_after_a_crash_the_log_is_read_and_stays_the_daemons(life: Life, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        life(2)
        os._exit(0)  # as if killed: the log is not folded in
    os.waitpid(child, 0)
    assert f"{FILE}-wal" in files(tmp_path)
    if os.geteuid() == 0:
        for path in tmp_path.iterdir():
            os.chown(path, 1234, 1234)
    owners = {name: uid for name, (uid, _) in files(tmp_path).items()}
    assert len(past(str(tmp_path)).pasts) == 2
    assert {name: uid for name, (uid, _) in files(tmp_path).items()} == owners
    database = Database(tmp_path / FILE)
    assert len(list(database.open_incidents())) == 0
    database.close()


def test_no_store_is_no_empty_history(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent", Path("/dev/null")):
        with pytest.raises(SourceError, match="there is none"):
            past(str(directory))


def corrupt(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "text":
        path.write_text("not a database, but long enough to look like one\n" * 100)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "holes":
        content[100:] = bytes(len(content) - 100)
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize("how", ["text", "empty", "cut", "holes", "newer"])
def test_a_damaged_store_is_said_and_not_touched(how: str, life: Life, tmp_path: Path) -> None:
    life(20).close()
    corrupt(tmp_path / FILE, how)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(SourceError, match=f"^history: {tmp_path / FILE}: ") as caught:
        past(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert (tmp_path / FILE).read_bytes() == before
    assert set(files(tmp_path)) <= {FILE}


def test_one_incident_that_cannot_be_read_is_counted(life: Life, tmp_path: Path) -> None:
    life(4).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.execute("UPDATE incidents SET body='{' WHERE id=?", (f"{1:012x}",))
        connection.execute("UPDATE transitions SET at='yesterday' WHERE incident=?", (f"{2:012x}",))
    found = past(str(tmp_path))
    assert [one.incident.id for one in found.pasts] == [f"{0:012x}", f"{3:012x}"]
    assert found.unreadable == 2


@pytest.mark.parametrize("at", ["NaN", "Infinity", "1e300", "-5", "253402300800"])
@pytest.mark.parametrize("field", ["opened_at", "updated_at", "resolved_at"])
def test_an_incident_at_an_impossible_time_is_counted(
    at: str, field: str, life: Life, tmp_path: Path
) -> None:
    life(2).close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        query = connection.execute("SELECT body FROM incidents WHERE id=?", (f"{0:012x}",))
        body = json.loads(query.fetchone()[0]) | {field: json.loads(at)}
        connection.execute("UPDATE incidents SET body=? WHERE id=?", (json.dumps(body), f"{0:012x}"))
    found = past(str(tmp_path))
    assert ([one.incident.id for one in found.pasts], found.unreadable) == ([f"{1:012x}"], 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_who_may_not_read_it_is_told_so(life: Life, tmp_path: Path) -> None:
    directory = Path(f"/tmp/k3w-{os.getpid()}-past")
    directory.mkdir(mode=0o700)
    try:
        life(1, directory).close()
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                past(str(directory))
            except NotPermitted as error:
                os._exit(0 if "Permission denied" in str(error) and error.hint else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


# the command


def command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, list[str]]:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"ports": [{"port": 6443}], "state": {"path": str(tmp_path)}}))
    status = cli.main(["history", "--config", str(config), *arguments])
    out, err = capsys.readouterr()
    return status, out, err.splitlines()


def test_the_command_prints_a_timeline(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    life(2).close()
    status, out, err = command(tmp_path, capsys)
    assert (status, err) == (0, [])
    assert out.count("DIVERTED to 10.42.0.244:6443") == 2
    assert out.endswith("2 incidents\n")
    status, out, err = command(tmp_path, capsys, "--since", "1h")
    assert (status, out.splitlines()[-1][:21], err) == (0, "no incidents, since 2", [])


def test_the_command_as_json(life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    life(2).close()
    status, out, _ = command(tmp_path, capsys, "--format", "json", "--since", "1970-01-01")
    document = json.loads(out)
    assert status == 0
    assert [one["opened_at"] for one in document["incidents"]] == [1000, 2000]
    assert [each["change"] for each in document["incidents"][1]["transitions"]] == ["opened", "resolved"]


@pytest.mark.parametrize("how", ["missing", "text"])
def test_the_command_without_a_store_is_one_line_and_a_hint(
    how: str, life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if how != "missing":
        life(1).close()
        corrupt(tmp_path / FILE, how)
    status, out, err = command(tmp_path, capsys)
    assert (status, out, len(err)) == (2, "", 2)
    assert err[0].startswith("k3swatch: history: ")
    assert err[1].startswith("hint: ")
