"""Rules are passed over by their port only where that is certain."""

from __future__ import annotations

import pytest
from support.build import dnat, dport, saddr

from k3swatch.evaluate.prefilter import required_ports
from k3swatch.evaluate.ranges import Ranges
from k3swatch.model.expr import Bitwise, Cmp, Expr, Immediate, Lookup, MetaSet, Payload, Range, XtMatch
from k3swatch.model.xt import Multiport, Ports


@pytest.mark.parametrize(
    ("exprs", "ports"),
    [
        pytest.param([*dport(80), *dnat("10.1.1.1", 80)], ((80, 80),), id="tcp dport 80"),
        pytest.param([*saddr("10.0.0.0/8"), *dport(80)], ((80, 80),), id="after another match"),
        pytest.param([Payload(1, 2, 2, 2), Cmp(1, 1, b"\0\x50")], None, id="tcp dport != 80"),
        pytest.param([Payload(1, 2, 2, 2), Range(1, 0, b"\0\x50", b"\0\x5a")], ((80, 90),), id="a range"),
        pytest.param([Payload(1, 2, 0, 2), Cmp(1, 0, b"\0\x50")], None, id="the source port"),
        pytest.param([Payload(1, 2, 0, 4), Cmp(1, 0, b"\0\x50\0\x50")], None, id="both ports in one load"),
        pytest.param(
            [Payload(1, 2, 2, 2), Bitwise(1, 1, 2, b"\xff\0", b"\0\0"), Cmp(1, 0, b"\0\0")], None, id="masked"
        ),
        pytest.param([Immediate(1, b"\1\0\0\0"), MetaSet(1, 3), *dport(80)], None, id="has an effect before"),
        pytest.param([XtMatch("tcp", 0, b"", Ports(6, destination=(80, 90)))], ((80, 90),), id="xt tcp"),
        pytest.param(
            [XtMatch("tcp", 0, b"", Ports(6, destination=(80, 90), invert_destination=True))],
            None,
            id="inverted",
        ),
        pytest.param(
            [Payload(1, 2, 2, 2), Lookup("__map0", 1, dreg=0), Payload(1, 2, 2, 2), Cmp(1, 0, b"\0\x50")],
            None,
            id="a verdict map before it",
        ),
        pytest.param([XtMatch("multiport", 1, b"", Multiport(1, ((80, 80),)))], ((80, 80),), id="multiport"),
        pytest.param([XtMatch("multiport", 1, b"", Multiport(2, ((80, 80),)))], None, id="either port"),
    ],
)
def test_required_ports(exprs: list[Expr], ports: Ranges | None) -> None:
    assert required_ports(exprs) == ports
