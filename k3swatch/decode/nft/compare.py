"""cmp and range: `tcp dport 6443`, `ip daddr != 10.0.0.1`, `tcp dport != 30000-32767`.

NFTA_CMP_SREG be32, NFTA_CMP_OP be32 (enum nft_cmp_ops), NFTA_CMP_DATA nested;
NFTA_RANGE_SREG be32, NFTA_RANGE_OP be32 (enum nft_range_ops), NFTA_RANGE_FROM_DATA and _TO_DATA nested.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register, value
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Cmp, Range

_SREG, _OP, _DATA = 1, 2, 3
_FROM_DATA, _TO_DATA = 3, 4


def cmp(attributes: Attributes) -> Cmp:
    """Compare a register with a constant."""
    op = attributes.be32(_OP)
    if op > 5:
        raise DecodeError(f"{attributes.where}: no comparison {op}")
    return Cmp(register(attributes, _SREG), op, value(attributes, _DATA))


def range_(attributes: Attributes) -> Range:
    """Is a register inside (or outside) a range, both ends included."""
    op = attributes.be32(_OP)
    low, high = value(attributes, _FROM_DATA), value(attributes, _TO_DATA)
    if op > 1 or len(low) != len(high):
        raise DecodeError(f"{attributes.where}: op {op}, {len(low)} and {len(high)} bytes")
    return Range(register(attributes, _SREG), op, low, high)
