"""The file of `restore --apply`: it comes back as it was, and a damaged or hostile one is one error, never a crash."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3swatch.errors import DecodeError, SourceError
from k3swatch.live import savedfile
from k3swatch.live.saved import Saved, SavedElement, SavedRule, SavedSet

RULE = SavedRule(
    "tcp dport 6443 dnat to 10.0.0.1",
    "ip",
    "nat",
    "CNI-DN-00ae",
    15,
    b"\x00\xff rule",
    ((14, "aa"), (15, "bb")),
    (SavedSet("__set0", b"set", (b"one", b"two")),),
)
ELEMENT = SavedElement("element", "ip", "kube-proxy", "service-ips", b"\x01\x02")
SAVED: list[Saved] = [RULE, ELEMENT]


def content() -> dict[str, Any]:
    return savedfile.document("tcp/6443", 42, SAVED, {"taken_at": 1.5})


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = savedfile.write(str(tmp_path / "restore"), "one.json", content())
    assert savedfile.read(path) == ("tcp/6443", SAVED)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(tmp_path / "restore").st_mode & 0o777 == 0o700


def test_nothing_is_overwritten_and_no_link_is_followed(tmp_path: Path) -> None:
    """The state directory is the daemon's user's: what that could have put there must not lead root elsewhere."""
    target = tmp_path / "target"
    target.write_text("precious")
    directory = tmp_path / "restore"
    directory.mkdir()
    (directory / "one.json").symlink_to(target)
    with pytest.raises(SourceError, match=r"one\.json"):
        savedfile.write(str(directory), "one.json", content())
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(SourceError, match="link"):
        savedfile.write(str(tmp_path / "link"), "two.json", content())
    assert target.read_text() == "precious"
    assert [each.name for each in directory.iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    "damage",
    [
        {"removed": None},
        {"removed": [{}]},
        {"removed": [{"what": "table", "text": "", "family": "ip", "table": "x"}]},
        {"removed": ["x"]},
        {"schema": 99},
        {"kind": "k3swatch-snapshot"},
    ],
)
def test_what_is_damaged_is_said_in_one_line(damage: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(content() | damage))
    with pytest.raises(DecodeError) as caught:
        savedfile.read(str(path))
    assert "\n" not in str(caught.value)


def test_a_rule_that_is_not_in_its_own_chain_has_no_place(tmp_path: Path) -> None:
    document = content()
    document["removed"][0]["handle"] = 99
    path = tmp_path / "one.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DecodeError, match="not in its own chain"):
        savedfile.read(str(path))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(["text", "handle", "message", "chain_before", "sets", "what", "element", "family"]),
    value=_JSON,
    which=st.integers(0, 1),
)
def test_any_value_anywhere_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object, which: int
) -> None:
    document = content()
    document["removed"][which][key] = value
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    with contextlib.suppress(DecodeError):
        savedfile.read(str(path))
