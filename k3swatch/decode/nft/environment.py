"""meta, ct, rt, socket: what is known about a packet beside its bytes; `meta mark`, `ct state`, `iifname`.

NFTA_META_DREG, _KEY, _SREG be32; NFTA_CT_DREG, _KEY be32, _DIRECTION u8, _SREG be32; NFTA_RT_DREG, _KEY be32;
NFTA_SOCKET_KEY, _DREG, _LEVEL be32.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register
from k3swatch.model.expr import Ct, CtSet, Meta, MetaSet, Rt, Socket

_DREG, _KEY = 1, 2
_META_SREG = 3
_CT_DIRECTION, _CT_SREG = 3, 4
_SOCKET_KEY, _SOCKET_DREG, _SOCKET_LEVEL = 1, 2, 3


def meta(attributes: Attributes) -> Meta | MetaSet:
    """`meta mark` into a register, or `meta mark set` from one."""
    if _META_SREG in attributes:
        return MetaSet(register(attributes, _META_SREG), attributes.be32(_KEY))
    return Meta(register(attributes, _DREG), attributes.be32(_KEY))


def ct(attributes: Attributes) -> Ct | CtSet:
    """`ct state`, `ct original daddr` into a register, or `ct mark set` from one."""
    direction = attributes.u8(_CT_DIRECTION) if _CT_DIRECTION in attributes else None
    if _CT_SREG in attributes:
        return CtSet(register(attributes, _CT_SREG), attributes.be32(_KEY), direction)
    return Ct(register(attributes, _DREG), attributes.be32(_KEY), direction)


def rt(attributes: Attributes) -> Rt:
    """`rt nexthop`."""
    return Rt(register(attributes, _DREG), attributes.be32(_KEY))


def socket(attributes: Attributes) -> Socket:
    """`socket transparent 1`."""
    dreg = register(attributes, _SOCKET_DREG)
    return Socket(dreg, attributes.be32(_SOCKET_KEY), attributes.be32(_SOCKET_LEVEL, 0))
