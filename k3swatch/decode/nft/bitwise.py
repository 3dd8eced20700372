"""bitwise and byteorder: `meta mark & 0x4000 == 0x4000`, `ip saddr 10.0.0.0/9`, shifts, host to network
order.

NFTA_BITWISE_SREG, _DREG, _LEN be32; _MASK, _XOR nested (op 0); _OP be32; _DATA nested or _SREG2 be32 (other
ops). NFTA_BYTEORDER_SREG, _DREG, _OP, _LEN, _SIZE be32.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register, register_or_none, value
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Bitwise, Byteorder

_SREG, _DREG, _LEN, _MASK, _XOR, _OP, _DATA, _SREG2 = range(1, 9)
_BYTEORDER_OP, _BYTEORDER_LEN, _BYTEORDER_SIZE = 3, 4, 5


def bitwise(attributes: Attributes) -> Bitwise:
    """Bits of one register into another; see Bitwise."""
    sreg, dreg = register(attributes, _SREG), register(attributes, _DREG)
    length, op = attributes.be32(_LEN), attributes.be32(_OP, 0)
    if op == 0:
        mask, xor = value(attributes, _MASK), value(attributes, _XOR)
        if not len(mask) == len(xor) == length <= 64:
            raise DecodeError(f"{attributes.where}: mask {len(mask)}, xor {len(xor)}, length {length}")
        return Bitwise(sreg, dreg, length, mask, xor)
    if op > 5 or length > 64:
        raise DecodeError(f"{attributes.where}: op {op} on {length} bytes")
    sreg2 = register_or_none(attributes, _SREG2)
    right = b"" if sreg2 is not None else value(attributes, _DATA)
    return Bitwise(sreg, dreg, length, op=op, data=right, sreg2=sreg2)


def byteorder(attributes: Attributes) -> Byteorder:
    """Swap the units of a register between host and network order."""
    op, length = attributes.be32(_BYTEORDER_OP), attributes.be32(_BYTEORDER_LEN)
    size = attributes.be32(_BYTEORDER_SIZE)
    if op > 1 or length > 64 or size not in (2, 4, 8):
        raise DecodeError(f"{attributes.where}: op {op}, length {length}, size {size}")
    return Byteorder(register(attributes, _SREG), register(attributes, _DREG), op, length, size)
