"""Blobs of real iptables and ip6tables rules: what each says. iptables_rules.txt has the command beside the bytes."""

from __future__ import annotations

import pytest
from support.rules import IPTABLES_FILE, Sample, blobs, pack, read, unpack

from k3swatch.decode.xt import IPV4, IPV6, MATCHES, TARGETS
from k3swatch.model.expr import XtMatch, XtTarget

SAMPLES = read(IPTABLES_FILE)


@pytest.mark.parametrize(("sample", "block"), SAMPLES, ids=[sample.rule for sample, _ in SAMPLES])
def test_blob(sample: Sample, block: str) -> None:
    kinds = ("  match ", "  target ", "  opaque ")
    expected = [line.strip() for line in block.splitlines() if line.startswith(kinds)]
    assert blobs(sample.exprs) == expected
    assert not any(line.endswith(": None") for line in expected), "iptables made it, so it must be understood"


def test_bytes_survive_the_file() -> None:
    for raw in (
        b"",
        bytes(5),
        bytes(6),
        b"\x10" + bytes(9) + b"\x01",
        bytes(range(256)),
        b"\x10\x00\x01" * 9,
    ):
        assert unpack(pack(raw)) == raw


def test_every_match_and_target_of_this_iptables_has_a_sample() -> None:
    """What iptables 1.8.9 on this kernel no longer makes, or needs hardware or a policy for, is listed here."""
    sampled = {
        (expr.name, expr.revision)
        for sample, _ in SAMPLES
        for expr in sample.exprs
        if isinstance(expr, XtMatch | XtTarget)
    }
    newest: dict[str, int] = {}
    for table in (tables[nfproto] for tables in (MATCHES, TARGETS) for nfproto in (IPV4, IPV6)):
        for name, revision in table:
            newest[name] = max(revision, newest.get(name, 0))
    made_otherwise = {
        "udp",
        "mark",
        "limit",
        "state",
        "NFLOG",
        "TRACE",
        "NOTRACK",
    }  # native, or as another match
    cannot_be_made = {
        "LED",
        "SECMARK",
        "ipvs",
        "l2tp",
        "dst",
        "mh",
        "srh",
    }  # no such option in this kernel or rule
    # iptables prefers the older revision while it can say the same
    not_newest = {"SNAT", "AUDIT"}
    missing = {name for name, revision in newest.items() if (name, revision) not in sampled}
    assert missing == made_otherwise | cannot_be_made | not_newest
