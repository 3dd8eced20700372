"""exthdr: `tcp option maxseg size`, `frag id`.

NFTA_EXTHDR_DREG be32, _TYPE u8, _OFFSET, _LEN, _FLAGS, _OP, _SREG be32.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register_or_none
from k3swatch.model.expr import Exthdr

_DREG, _TYPE, _OFFSET, _LEN, _FLAGS, _OP, _SREG = range(1, 8)


def exthdr(attributes: Attributes) -> Exthdr:
    """Read (dreg), write (sreg) or strip (neither) a TCP or IP option or an IPv6 extension header."""
    return Exthdr(
        register_or_none(attributes, _DREG),
        attributes.u8(_TYPE),
        attributes.be32(_OFFSET, 0),
        attributes.be32(_LEN, 0),
        attributes.be32(_FLAGS, 0),
        attributes.be32(_OP, 0),
        register_or_none(attributes, _SREG),
    )
