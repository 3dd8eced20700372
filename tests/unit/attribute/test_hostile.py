"""Files that somebody made to hurt: bounded time and memory, no exception, no name that was not there."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import shutil
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from support.effort import effort

from k3swatch.attribute import kine, published
from k3swatch.attribute.kine import Kine
from k3swatch.attribute.receiver import receiver
from k3swatch.attribute.root import Root
from k3swatch.attribute.wire import metadata
from k3swatch.demo import node as names
from k3swatch.demo.kubernetes import CONTAINER
from k3swatch.demo.node import Node
from k3swatch.errors import DecodeError
from k3swatch.model.finding import Culprit, Finding
from k3swatch.view.who import taken_by

CONFIG = f"{names.TASKS}/{CONTAINER}/config.json"
CONTENTS = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 20_000,
    "large": b'{"annotations":"' + b"x" * 1_000_000 + b'"}',
    "lists": b"[" + b"[]," * 40_000 + b"[]]",
    "number": b'{"kind":' + b"9" * 50_000 + b"}",
    "null": b"null",
    "bytes": bytes(range(256)) * 10,
    "wrong types": b'{"kind":"cniCacheV1","containerId":7,"cniArgs":{},"result":[],"annotations":[1],"linux":3}',
    "empty": b"",
}


@pytest.mark.parametrize("path", [names.RESULT, CONFIG, "var/lib/cni/networks/cbr0/10.42.0.244"])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_damaged_files_are_no_answer(
    node: Node, root: Root, portmap: Finding, path: str, content: bytes
) -> None:
    (node.directory / path).write_bytes(content)
    tracemalloc.start()
    answer = receiver(portmap, root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer is not None
    assert answer.culprit.pod == f"kube-system/{names.POD_NAME}"  # by the other sources
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "path", [names.RESULT, CONFIG, names.DATASTORE, "var/lib/cni/networks/cbr0/10.42.0.244"]
)
def test_every_cut_and_flip_is_survived(node: Node, portmap: Finding, path: str) -> None:
    good = (node.directory / path).read_bytes()
    rng = random.Random(7)
    for _ in range(60):
        damaged = bytearray(good[: rng.randrange(len(good))] if rng.random() < 0.5 else good)
        for _ in range(rng.randrange(4)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (node.directory / path).write_bytes(damaged)
        with Root(str(node.directory)) as root:
            assert receiver(portmap, root) is not None


def test_hostile_names_are_shown_as_escapes(node: Node, root: Root, portmap: Finding) -> None:
    evil = "x\x1b[2J\n\u202e\ud800"
    (node.directory / names.RESULT).write_text(
        (node.directory / names.RESULT).read_text().replace(names.POD_NAME, json.dumps(evil)[1:-1])
    )
    (node.directory / CONFIG).unlink()
    answer = receiver(portmap, root)
    assert answer is not None
    assert answer.culprit.pod is not None
    answer.culprit.pod.encode()  # nothing that cannot be sent
    assert taken_by(answer.culprit).isprintable()


def test_names_of_any_length_are_refused(node: Node, root: Root, portmap: Finding) -> None:
    for path in (names.RESULT, CONFIG):
        file = node.directory / path
        file.write_text(file.read_text().replace(names.POD_NAME, "y" * 5000))
    answer = receiver(portmap, root)
    assert answer is not None
    assert answer.culprit.pod is None


def test_links_to_outside_tell_nothing(node: Node, portmap: Finding, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (node.directory / "var/lib/cni").rename(outside)
    (node.directory / "var/lib/cni").symlink_to(outside)
    (node.directory / "run").rename(tmp_path / "run")
    os.mkfifo(node.directory / "run")
    with Root(str(node.directory)) as root:
        answer = receiver(portmap, root)
    assert answer is not None
    assert answer.culprit.pod is None


def test_thousands_of_pods(node: Node, portmap: Finding) -> None:
    """A full node ten times over: names are many, files read are few."""
    results = node.directory / "var/lib/cni/results"
    content = json.dumps({"kind": "cniCacheV1", "containerId": "x"})
    for number in range(5000):
        (results / f"cbr0-{number:064x}-eth0").write_text(content)
        (node.directory / f"var/lib/cni/networks/cbr0/10.43.{number // 250}.{number % 250}").write_text("x")
    with Root(str(node.directory), seconds=20.0) as root:
        with effort(0.5):
            receiver(portmap, root)
        assert not root.spent
        answer = receiver(portmap, root)
    assert answer is not None
    assert answer.culprit.confidence == "high"


def test_thousands_of_tasks_and_processes_end_in_time(node: Node, portmap: Finding) -> None:
    for number in range(3000):
        (node.directory / names.TASKS / f"{number:064x}").mkdir()
        process = node.directory / "proc" / str(number)
        process.mkdir()
        (process / "cgroup").write_text(f"0::/kubepods/pod{number:032x}/x\n")
    with Root(str(node.directory), seconds=20.0) as root, effort(2.0):
        receiver(portmap, root)
    (node.directory / names.RESULT).unlink()
    (node.directory / CONFIG).unlink()
    with Root(str(node.directory), seconds=20.0) as root, effort(2.0):
        receiver(portmap, root)


PODMAN = f"run/containers/storage/overlay-containers/{CONTAINER}/userdata/hosts"
LISTED = "var/lib/containers/storage/overlay-containers/containers.json"
DOCKER = f"var/lib/docker/containers/{CONTAINER}/config.v2.json"


@pytest.mark.parametrize("path", [PODMAN, LISTED, DOCKER])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_damaged_files_of_docker_and_podman(tmp_path: Path, path: str, content: bytes) -> None:
    for file, good in ((PODMAN, f"10.88.0.2\t{CONTAINER[:12]} web\n"), (path, None)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content if good is None else good.encode())
    with Root(str(tmp_path), seconds=20.0) as root:  # a busy machine is not what is tested here
        found = published.of_address(root, ipaddress.ip_address("10.88.0.2"))
    expected = None if path == PODMAN else ("podman", f"podman:{CONTAINER[:12]}")
    assert found == expected


def test_thousands_of_published_containers_with_hostile_names(tmp_path: Path) -> None:
    evil = "x\x1b[2J\n\u202e"
    listed = [{"id": f"{number:064x}", "names": [evil]} for number in range(5000)]
    (tmp_path / LISTED).parent.mkdir(parents=True)
    (tmp_path / LISTED).write_text(json.dumps(listed))
    for number in range(2000):
        hosts = tmp_path / f"run/containers/storage/overlay-containers/{number:064x}/userdata/hosts"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f"10.88.{number // 250}.{number % 250} {'0' * 12}\n" * 300)
    with Root(str(tmp_path), seconds=20.0) as root, effort(2.0):
        found = published.of_address(root, ipaddress.ip_address("10.88.0.7"))
        published.of_address(root, ipaddress.ip_address("203.0.113.1"))
    assert found is None or taken_by(Culprit(container=found[1])).isprintable()


def test_thousands_of_cached_pods_with_the_same_host_port(node: Node, portmap: Finding) -> None:
    """A stale rule is compared with those that run: names of a few are read, not of all."""
    content = json.loads((node.directory / names.RESULT).read_text())
    for number in range(3000):
        identifier = f"{number:064x}"
        file = node.directory / f"var/lib/cni/results/cbr0-{identifier}-eth0"
        file.write_text(json.dumps(content | {"containerId": identifier}))
    for task in (CONTAINER, names.LB):
        shutil.rmtree(node.directory / names.TASKS / task)
    (node.directory / "var/lib/cni/networks/cbr0/10.42.0.244").write_text("f" * 64)
    with Root(str(node.directory), seconds=20.0) as root, effort(2.0):
        answer = receiver(portmap, root, port=6443)
    assert answer is not None
    assert answer.culprit.left_behind


def test_a_datastore_without_index_or_that_is_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kine, "_SECONDS", 0.001)
    path = node.directory / names.DATASTORE
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE kine (id INTEGER PRIMARY KEY, name, deleted INTEGER, value BLOB)")
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 0, x'' FROM n LIMIT 400000"
        database.execute(f"INSERT INTO kine (name, deleted, value) {endless}")
    with Root(str(node.directory)) as root, Kine(root) as store:
        with effort(0.5):
            assert store.service("default", "x") is None
        assert any("interrupted" in trouble for trouble in root.troubles)
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with Root(str(node.directory)) as root, Kine(root) as store:
        assert store.service("default", "x") is None


@pytest.mark.parametrize(
    "data", [b"", b"k8s\0\x17", b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"k8s\0\x12\x05ab"]
)
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        metadata(data)
    assert "\n" not in str(raised.value)


def test_random_bytes_are_no_object_and_no_crash() -> None:
    rng = random.Random(3)
    good = names.stored("v1", "Pod", "a", "b", "c", {"k": "v"}, ("DaemonSet", "d"))
    for _ in range(3000):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        try:
            metadata(bytes(damaged))
        except DecodeError:
            continue
