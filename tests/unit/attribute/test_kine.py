"""The datastore: newest revisions, tombstones, a live writer's WAL, and that looking leaves nothing behind."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from k3swatch.attribute.kine import Kine
from k3swatch.attribute.root import Root
from k3swatch.demo import node as names
from k3swatch.demo.node import Node


def files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_the_newest_revision_counts(node: Node, root: Root) -> None:
    with Kine(root) as store:
        assert store.open
        service = store.service("default", names.SERVICE)
        assert service is not None
        assert (service.exists, service.meta.uid) == (True, names.SERVICE_UID)
        pod = store.pod("kube-system", names.POD_NAME)
        assert pod is not None
        assert pod.meta.owner == ("DaemonSet", names.DAEMON_SET)
        assert pod.meta.labels["svccontroller.k3s.cattle.io/svcnamespace"] == "default"
        never = store.service("default", "never")
        assert never is not None
        assert not never.exists
    node.service_deleted()
    with Kine(root) as store:
        gone = store.service("default", names.SERVICE)
        assert gone is not None
        assert not gone.exists


def test_no_datastore_is_no_answer(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root, Kine(root) as store:
        assert not store.open
        assert store.service("default", "x") is None
        assert root.troubles == []


def test_what_a_running_k3s_has_only_in_its_wal_is_seen(node: Node, root: Root) -> None:
    path = node.directory / names.DATASTORE
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        key = f"/registry/services/specs/default/{names.SERVICE}"
        writer.execute("INSERT INTO kine (name, created, deleted) VALUES (?, 0, 1)", (key,))
        assert files(path.parent) == ["state.db", "state.db-shm", "state.db-wal"]
        with Kine(root) as store:
            found = store.service("default", names.SERVICE)
            assert found is not None
            assert not found.exists
        assert files(path.parent) == ["state.db", "state.db-shm", "state.db-wal"]


def test_looking_makes_no_file(node: Node, root: Root) -> None:
    """K3s has been stopped: the header says WAL, but there is none, and a reader must not make one."""
    path = node.directory / names.DATASTORE
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
    assert files(path.parent) == ["state.db"]
    os.chmod(path.parent, 0o500)
    with Kine(root) as store:
        found = store.service("default", names.SERVICE)
        assert found is not None
        assert found.exists
    assert files(path.parent) == ["state.db"]
