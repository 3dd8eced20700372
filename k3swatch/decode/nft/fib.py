"""fib: `fib daddr type local`. NFTA_FIB_DREG, _RESULT, _FLAGS be32."""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register
from k3swatch.model.expr import Fib

_DREG, _RESULT, _FLAGS = 1, 2, 3


def fib(attributes: Attributes) -> Fib:
    """What the routing table says of an address of the packet."""
    return Fib(register(attributes, _DREG), attributes.be32(_RESULT), attributes.be32(_FLAGS))
