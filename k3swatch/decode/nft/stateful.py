"""counter, limit, quota, connlimit, last, objref: expressions that remember; `counter`, `limit rate
10/second`.

NFTA_COUNTER_BYTES, _PACKETS be64; NFTA_LIMIT_RATE, _UNIT be64, _BURST, _TYPE, _FLAGS be32; NFTA_QUOTA_BYTES
be64, _FLAGS be32, _CONSUMED be64; NFTA_CONNLIMIT_COUNT, _FLAGS be32; NFTA_LAST_*; NFTA_OBJREF_IMM_TYPE
be32, _IMM_NAME name, or _SET_SREG be32, _SET_NAME name.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register
from k3swatch.model.expr import Connlimit, Counter, Last, Limit, Objref, Quota

_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_LIMIT_RATE, _LIMIT_UNIT, _LIMIT_BURST, _LIMIT_TYPE, _LIMIT_FLAGS = range(1, 6)
_QUOTA_BYTES, _QUOTA_FLAGS, _QUOTA_CONSUMED = 1, 2, 4
_CONNLIMIT_COUNT, _CONNLIMIT_FLAGS = 1, 2
_OBJREF_TYPE, _OBJREF_NAME, _OBJREF_SREG, _OBJREF_SET = range(1, 5)


def counter(attributes: Attributes) -> Counter:
    """Packets and bytes so far."""
    return Counter(attributes.be64(_COUNTER_PACKETS), attributes.be64(_COUNTER_BYTES))


def limit(attributes: Attributes) -> Limit:
    """A token bucket: `rate` per `unit` seconds."""
    return Limit(
        attributes.be64(_LIMIT_RATE),
        attributes.be64(_LIMIT_UNIT),
        attributes.be32(_LIMIT_BURST, 0),
        attributes.be32(_LIMIT_TYPE, 0),
        attributes.be32(_LIMIT_FLAGS, 0),
    )


def quota(attributes: Attributes) -> Quota:
    """So many bytes, then no more."""
    flags, consumed = attributes.be32(_QUOTA_FLAGS, 0), attributes.be64(_QUOTA_CONSUMED, 0)
    return Quota(attributes.be64(_QUOTA_BYTES), flags, consumed)


def connlimit(attributes: Attributes) -> Connlimit:
    """`ct count over 10`."""
    return Connlimit(attributes.be32(_CONNLIMIT_COUNT), attributes.be32(_CONNLIMIT_FLAGS, 0))


def last(attributes: Attributes) -> Last:
    """When it last matched: nothing that decides."""
    return Last()


def objref(attributes: Attributes) -> Objref:
    """A named object, or one picked from a map by a key."""
    if _OBJREF_SET in attributes:
        return Objref(0, sreg=register(attributes, _OBJREF_SREG), set=attributes.text(_OBJREF_SET))
    return Objref(attributes.be32(_OBJREF_TYPE), attributes.text(_OBJREF_NAME))
