"""What the guard's chain shadows is neutralised; what only bears its name, or another chain shadows, is not."""

from __future__ import annotations

import pytest
from support.build import TableRuleset, dnat, dport, node

from k3swatch.evaluate import judge
from k3swatch.model.finding import Finding
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import GUARD_FAMILY, GUARD_TABLE, PREROUTING
from k3swatch.model.words import State

OURS, EVIL = "192.168.1.233", "10.1.1.1"


def look(table: str, target: str, priority: int = -110, family: str = "inet") -> tuple[State, list[Finding]]:
    """A chain of this table before one that diverts; only what concerns the dialled address of the guard's rule."""
    ruleset = TableRuleset()
    ruleset.base(
        table, "pre", PREROUTING, [*dport(6443), *dnat(target, 6443)], priority=priority, family=family
    )
    ruleset.base("nat", "PREROUTING", PREROUTING, [*dport(6443), *dnat(EVIL, 6443)])
    (verdict,) = judge(ruleset, node(), [ProtectedPort("k3s-api", 6443)])
    return verdict.state, [each for each in verdict.findings if each.destination == f"{EVIL}:6443"]


def test_the_guard_neutralises_what_is_behind_it() -> None:
    state, findings = look(GUARD_TABLE, OURS)
    assert state is State.DELIVERED
    assert findings
    assert all(each.state is State.DIVERTED and each.shadowed and each.neutralised for each in findings)


@pytest.mark.parametrize(("table", "family"), [("mine", "inet"), (GUARD_TABLE, "ip")])
def test_another_identity_mapping_shadows_only(table: str, family: str) -> None:
    assert (family, table) != (GUARD_FAMILY, GUARD_TABLE)
    state, findings = look(table, OURS, family=family)
    assert state is State.DELIVERED
    assert findings
    assert not any(each.neutralised for each in findings)


def test_a_name_alone_neutralises_nothing() -> None:
    state, findings = look(GUARD_TABLE, "10.2.2.2")
    assert state is State.DIVERTED
    assert not any(each.neutralised for each in findings)


def test_behind_the_others_it_neutralises_nothing() -> None:
    state, findings = look(GUARD_TABLE, OURS, priority=-90)
    assert state is State.DIVERTED
    assert not any(each.shadowed or each.neutralised for each in findings)


def test_beside_them_nobody_knows() -> None:
    state, findings = look(GUARD_TABLE, OURS, priority=-100)
    assert state is State.UNKNOWN
    assert not any(each.neutralised for each in findings)
