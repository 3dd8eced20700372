"""One source, three readers: the files in the tree are what the program would generate now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from k3swatch.model.incident import Change, Notice
from k3swatch.model.words import Mechanism, State
from k3swatch.view.catalog import COPIED, ENTRIES, FIELDS, Kind, kind_of, kind_of_notice

ROOT = Path(__file__).parents[3]


def test_generated_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_kind_has_an_entry_and_every_id_is_its_own() -> None:
    assert set(ENTRIES) == set(Kind)
    ids = [entry.id for entry in ENTRIES.values()]
    assert len(set(ids)) == len(ids)
    for entry in ENTRIES.values():
        assert len(entry.id) == 32
        assert entry.id[12] == "4", "a random (version 4) UUID"
        int(entry.id, 16)


def test_every_change_and_notice_has_a_kind(make: Any) -> None:
    for change in Change:
        assert kind_of(make.transition(change)) in Kind
    for notice in Notice:
        assert kind_of_notice(notice) in Kind
    blocked = make.incident(make.finding(state=State.BLOCKED, mechanism=Mechanism.NONE))
    assert kind_of(make.transition(Change.OPENED, blocked)) is Kind.BLOCKED
    unknown = make.incident(make.finding(state=State.UNKNOWN, mechanism=Mechanism.NONE))
    assert kind_of(make.transition(Change.OPENED, unknown)) is Kind.UNKNOWN


def test_texts_name_only_fields_that_exist_and_that_journalctl_would_replace() -> None:
    for entry in ENTRIES.values():
        named = (entry.subject + entry.text).split("@")[1::2]
        assert set(named) <= {f"WATCH_{name}" for name in COPIED}
        assert all(name.replace("_", "").isalpha() for name in named), (
            "no digits: journalctl leaves them as they are"
        )
    assert {f"K3SWATCH_{name}" for name in COPIED} <= {name for name, _ in FIELDS}


def test_the_entry_of_a_diversion_says_what_helps_and_what_harms() -> None:
    text = ENTRIES[Kind.DIVERTED].text
    for words in (
        "`ss`",
        "`lsof`",
        "admin.kubeconfig",
        "127.0.0.1:6444",
        "iptables-save",
        "https-listen-port",
    ):
        assert words in text
    assert "nft flush ruleset" in text.split("Do not:")[1]
