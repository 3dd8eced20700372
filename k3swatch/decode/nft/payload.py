"""payload: `tcp dport`, `ip daddr` and whatever else lies at a known place of the packet; read or written.

NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN be32 to read; _SREG instead of _DREG, and _CSUM_*, to write.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register
from k3swatch.model.expr import Payload, PayloadSet

_DREG, _BASE, _OFFSET, _LEN, _SREG = range(1, 6)


def payload(attributes: Attributes) -> Payload | PayloadSet:
    """Bytes of the packet into a register, or (with an sreg) the other way."""
    place = attributes.be32(_BASE), attributes.be32(_OFFSET), attributes.be32(_LEN)
    if _SREG in attributes:
        return PayloadSet(register(attributes, _SREG), *place)
    return Payload(register(attributes, _DREG), *place)
