"""What could not be read of the host is said, whichever part it is: a warning that is lost is an all-clear too many."""

from __future__ import annotations

import pytest

from k3swatch.errors import SourceError
from k3swatch.live import ipvs
from k3swatch.live.host import read_host
from k3swatch.sources import rtnetlink, sockdiag

PARTS = [
    (rtnetlink, "addresses", "addresses"),
    (rtnetlink, "links", "interfaces"),
    (rtnetlink, "routes", "routes"),
    (rtnetlink, "policy_rules", "policy rules"),
    (sockdiag, "sockets", "TCP listeners"),
    (ipvs, "read", "IPVS"),
]


@pytest.mark.parametrize(("module", "function", "what"), PARTS, ids=[what for *_, what in PARTS])
def test_each_part_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, module: object, function: str, what: str
) -> None:
    def fails(*_: object) -> list[bytes]:
        raise SourceError("refused")

    monkeypatch.setattr(module, function, fails)
    assert f"{what}: refused" in read_host({6443}).unreadable
