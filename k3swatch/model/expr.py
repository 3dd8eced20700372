"""nf_tables expressions as values, named and numbered as `uapi/linux/netfilter/nf_tables.h` has them.

Register numbers are kept as the kernel sends them: 0 verdict, 1..4 (16 bytes each), 8..23 (4 bytes each).
Here are loads and tests; what acts is in `statement`, and to be had from here as well. Whatever the decoder does not
know becomes `Opaque`; it is never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from k3swatch.model.statement import (
    Connlimit,
    Counter,
    CtSet,
    Dup,
    Dynset,
    Flow,
    Fwd,
    Last,
    Limit,
    Log,
    Masq,
    MetaSet,
    Nat,
    Notrack,
    Objref,
    PayloadSet,
    Queue,
    Quota,
    Redir,
    Reject,
    Synproxy,
    Tproxy,
)
from k3swatch.model.xt import XtSpec


class Code(IntEnum):
    """Verdict codes: enum nft_verdicts and NF_* of `uapi/linux/netfilter.h`."""

    DROP = 0
    ACCEPT = 1
    STOLEN = 2
    QUEUE = 3
    CONTINUE = -1
    BREAK = -2
    JUMP = -3
    GOTO = -4
    RETURN = -5


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict; `chain` for JUMP and GOTO. `code` is raw when it is none of `Code` (then treat as opaque)."""

    code: int
    chain: str | None = None


@dataclass(frozen=True, slots=True)
class Immediate:
    """NFTA_IMMEDIATE_*: load a constant into a register, or (dreg 0) a verdict."""

    dreg: int
    data: bytes = b""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Cmp:
    """NFTA_CMP_*: `op` is enum nft_cmp_ops (0 eq, 1 neq, 2 lt, 3 lte, 4 gt, 5 gte); memcmp order."""

    sreg: int
    op: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """NFTA_RANGE_*: `op` is enum nft_range_ops (0 eq: inside, 1 neq: outside), both ends included."""

    sreg: int
    op: int
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Bitwise:
    """NFTA_BITWISE_*: op 0 (bool): dreg = (sreg & mask) ^ xor; 1 lshift, 2 rshift by `data`; 3 and, 4 or, 5 xor.

    For ops 3..5 the right side is `sreg2` when not None, else `data`.
    """

    sreg: int
    dreg: int
    length: int
    mask: bytes = b""
    xor: bytes = b""
    op: int = 0
    data: bytes = b""
    sreg2: int | None = None


@dataclass(frozen=True, slots=True)
class Byteorder:
    """NFTA_BYTEORDER_*: op 0 ntoh, 1 hton, on `length` bytes in units of `size`."""

    sreg: int
    dreg: int
    op: int
    length: int
    size: int


@dataclass(frozen=True, slots=True)
class Payload:
    """NFTA_PAYLOAD_* with a dreg: base 0 link layer, 1 network, 2 transport, 3 inner."""

    dreg: int
    base: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Meta:
    """NFTA_META_* with a dreg: `key` is enum nft_meta_keys."""

    dreg: int
    key: int


@dataclass(frozen=True, slots=True)
class Ct:
    """NFTA_CT_* with a dreg: `key` is enum nft_ct_keys, `direction` IP_CT_DIR_* or None."""

    dreg: int
    key: int
    direction: int | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """NFTA_LOOKUP_*: is the key in set `set`? With a dreg it is a map (dreg 0: verdict map). flags 1: inverted."""

    set: str
    sreg: int
    dreg: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Fib:
    """NFTA_FIB_*: result 1 oif, 2 oifname, 3 addrtype; flags 1 saddr, 2 daddr, 4 mark, 8 iif, 16 oif, 32 present."""

    dreg: int
    result: int
    flags: int


@dataclass(frozen=True, slots=True)
class Numgen:
    """NFTA_NG_*: type 0 incremental, 1 random; result is offset + 0..modulus-1."""

    dreg: int
    modulus: int
    type: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Hash:
    """NFTA_HASH_*: type 0 jenkins over `length` bytes of sreg, 1 symmetric; result is offset + 0..modulus-1."""

    dreg: int
    modulus: int
    type: int
    sreg: int | None = None
    length: int = 0
    seed: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Socket:
    """NFTA_SOCKET_*: key 0 transparent, 1 mark, 2 wildcard, 3 cgroupv2. Breaks when there is no socket."""

    dreg: int
    key: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Rt:
    """NFTA_RT_*: key 0 classid, 1 nexthop4, 2 nexthop6, 3 tcpmss, 4 xfrm."""

    dreg: int
    key: int


@dataclass(frozen=True, slots=True)
class Exthdr:
    """NFTA_EXTHDR_*: read an option or extension header; breaks when absent, unless flags 1 (present)."""

    dreg: int | None
    type: int
    offset: int
    length: int
    flags: int = 0
    op: int = 0
    sreg: int | None = None


@dataclass(frozen=True, slots=True)
class XtMatch:
    """nft_compat match. `spec` is None when the blob is not one we read: then the match may or may not hold."""

    name: str
    revision: int
    info: bytes
    spec: XtSpec | None = None


@dataclass(frozen=True, slots=True)
class XtTarget:
    """nft_compat target. `spec` is None when the blob is not one we read."""

    name: str
    revision: int
    info: bytes
    spec: XtSpec | None = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """An expression that is not understood, or whose attributes do not fit: kept whole, evaluated as maybe."""

    kind: str
    raw: bytes
    why: str = ""


Expr = (
    Immediate
    | Cmp
    | Range
    | Bitwise
    | Byteorder
    | Payload
    | PayloadSet
    | Meta
    | MetaSet
    | Ct
    | CtSet
    | Lookup
    | Dynset
    | Fib
    | Nat
    | Redir
    | Masq
    | Tproxy
    | Numgen
    | Hash
    | Counter
    | Log
    | Limit
    | Quota
    | Connlimit
    | Objref
    | Notrack
    | Reject
    | Queue
    | Socket
    | Rt
    | Exthdr
    | Last
    | Synproxy
    | Dup
    | Flow
    | Fwd
    | XtMatch
    | XtTarget
    | Opaque
)

__all__ = [
    "Bitwise",
    "Byteorder",
    "Cmp",
    "Code",
    "Connlimit",
    "Counter",
    "Ct",
    "CtSet",
    "Dup",
    "Dynset",
    "Expr",
    "Exthdr",
    "Fib",
    "Flow",
    "Fwd",
    "Hash",
    "Immediate",
    "Last",
    "Limit",
    "Log",
    "Lookup",
    "Masq",
    "Meta",
    "MetaSet",
    "Nat",
    "Notrack",
    "Numgen",
    "Objref",
    "Opaque",
    "Payload",
    "PayloadSet",
    "Queue",
    "Quota",
    "Range",
    "Redir",
    "Reject",
    "Rt",
    "Socket",
    "Synproxy",
    "Tproxy",
    "Verdict",
    "XtMatch",
    "XtTarget",
]
