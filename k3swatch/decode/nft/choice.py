"""numgen and hash: `numgen random mod 2`, `jhash ip saddr mod 3`: how load is spread over a map.

NFTA_NG_DREG, _MODULUS, _TYPE, _OFFSET be32; NFTA_HASH_SREG, _DREG, _LEN, _MODULUS, _SEED, _OFFSET, _TYPE
be32.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Hash, Numgen

_NG_DREG, _NG_MODULUS, _NG_TYPE, _NG_OFFSET = range(1, 5)
_SREG, _DREG, _LEN, _MODULUS, _SEED, _OFFSET, _TYPE = range(1, 8)


def numgen(attributes: Attributes) -> Numgen:
    """A counter or a random number."""
    modulus, kind = attributes.be32(_NG_MODULUS), attributes.be32(_NG_TYPE)
    if modulus == 0 or kind > 1:
        raise DecodeError(f"{attributes.where}: type {kind} mod {modulus}")
    return Numgen(register(attributes, _NG_DREG), modulus, kind, attributes.be32(_NG_OFFSET, 0))


def hash_(attributes: Attributes) -> Hash:
    """A hash of a register (jenkins) or of the connection (symmetric)."""
    modulus, kind = attributes.be32(_MODULUS), attributes.be32(_TYPE, 0)
    if modulus == 0 or kind > 1:
        raise DecodeError(f"{attributes.where}: type {kind} mod {modulus}")
    dreg, offset = register(attributes, _DREG), attributes.be32(_OFFSET, 0)
    if kind == 1:
        return Hash(dreg, modulus, kind, offset=offset)
    sreg, length = register(attributes, _SREG), attributes.be32(_LEN)
    return Hash(dreg, modulus, kind, sreg, length, attributes.be32(_SEED, 0), offset)
