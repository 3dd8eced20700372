"""What becomes of packets that a rule hands to a program: nft's queue, NFQUEUE, and verdicts that carry a queue."""

from __future__ import annotations

import dataclasses

import pytest
from support.build import TableRuleset, dport, node, verdict

from k3swatch.evaluate import judge
from k3swatch.model.expr import Code, Expr, Immediate, Meta, Queue, Verdict, XtTarget
from k3swatch.model.finding import Finding
from k3swatch.model.port import ProtectedPort
from k3swatch.model.queue import COPY_NONE, PacketQueue
from k3swatch.model.ruleset import INPUT
from k3swatch.model.words import State, Vantage
from k3swatch.model.xt import XtQueue

API = ProtectedPort("k3s-api", 6443)
SURICATA = PacketQueue(5, 812, 2, "/usr/bin/suricata (pid 812)")
Readers = tuple[PacketQueue, ...] | None

UNKNOWN, BLOCKED = {State.UNKNOWN}, {State.BLOCKED}


def judged(last: Expr, queues: Readers) -> list[Finding]:
    ruleset = TableRuleset()
    ruleset.base("t", "c", INPUT, [*dport(6443), Meta(1, 3), last], kind="filter", priority=0)
    findings = judge(ruleset, dataclasses.replace(node(), queues=queues), [API])[0].findings
    return [finding for finding in findings if finding.vantage is Vantage.EXTERNAL]


def loaded(code: int) -> Expr:
    return Immediate(0, b"", Verdict(code))


@pytest.mark.parametrize(
    ("last", "queues", "states"),
    [
        (Queue(5), (), BLOCKED),
        (Queue(5), (SURICATA,), UNKNOWN),
        (Queue(5), None, UNKNOWN),
        (Queue(5, 1, 1), (), set()),
        (Queue(5, 1, 1), (SURICATA,), UNKNOWN),
        (Queue(4, 2), (SURICATA,), {State.UNKNOWN, State.BLOCKED}),
        (Queue(4, 2, 1), (SURICATA,), UNKNOWN),
        (Queue(4, 2), (SURICATA, PacketQueue(4, 9)), UNKNOWN),
        (Queue(6, 4), (SURICATA,), BLOCKED),
        (Queue(5, 1, 1), (PacketQueue(5, 9, COPY_NONE),), BLOCKED),  # bound, and not yet configured: -EINVAL
        (Queue(sreg=1), (), UNKNOWN),  # a number from the packet's mark, which is anybody's
        (XtTarget("NFQUEUE", 3, b"", XtQueue(5)), (), BLOCKED),
        (XtTarget("NFQUEUE", 3, b"", XtQueue(5, 1, True)), (), set()),
        (XtTarget("NFQUEUE", 3, b"", XtQueue(5)), (SURICATA,), UNKNOWN),
        (loaded(5 << 16 | Code.QUEUE), (), BLOCKED),
        (loaded(5 << 16 | 0x8000 | Code.QUEUE), (), set()),
        (loaded(5 << 16 | Code.QUEUE), (SURICATA,), UNKNOWN),
    ],
)
def test_the_reader_decides_and_nobody_is_a_drop(last: Expr, queues: Readers, states: set[State]) -> None:
    assert {finding.state for finding in judged(last, queues)} == states


def test_a_share_is_said_as_one() -> None:
    found = judged(Queue(4, 4), (SURICATA,))
    conditions = {finding.state: finding.conditions for finding in found}
    assert conditions == {
        State.BLOCKED: ("3 of 4 connections, by hash over nfqueue 4-7",),
        State.UNKNOWN: ("1 of 4 connections, by hash over nfqueue 4-7",),
    }


def test_who_reads_it_is_named() -> None:
    (finding,) = judged(Queue(5), (SURICATA,))
    assert finding.why == "handed to /usr/bin/suricata (pid 812), which reads nfqueue 5 and decides"
    (finding,) = judged(Queue(5), ())
    assert (finding.why, finding.certain) == (
        "nobody reads nfqueue 5: the kernel drops what it is handed",
        True,
    )


def test_behind_a_bypassed_queue_the_next_rule_is_not_asked() -> None:
    ruleset = TableRuleset()
    rules: list[list[Expr]] = [[*dport(6443), Queue(5, 1, 1)], [*dport(6443), *verdict(Code.DROP)]]
    ruleset.base("t", "c", INPUT, *rules, kind="filter", priority=0)
    assert not judge(ruleset, dataclasses.replace(node(), queues=()), [API])[0].findings
