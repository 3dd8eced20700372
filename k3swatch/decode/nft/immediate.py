"""immediate: `accept`, `jump KUBE-SVC-X`, and the constants that `dnat to 10.42.0.244:6443` loads.

NFTA_IMMEDIATE_DREG be32, NFTA_IMMEDIATE_DATA nested (data.py).
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import data, register
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Immediate

_DREG, _DATA = 1, 2


def immediate(attributes: Attributes) -> Immediate:
    """The constant or the verdict; a verdict goes to register 0 and nothing else does."""
    dreg = register(attributes, _DREG)
    constant, verdict = data(attributes, _DATA)
    if (dreg == 0) != (verdict is not None):
        raise DecodeError(f"{attributes.where}: register {dreg} does not take this data")
    return Immediate(dreg, constant, verdict)
