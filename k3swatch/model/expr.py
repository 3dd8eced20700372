"""nf_tables expressions as values, named and numbered as `uapi/linux/netfilter/nf_tables.h` has them.

Register numbers are kept as the kernel sends them: 0 verdict, 1..4 (16 bytes each), 8..23 (4 bytes each).
Whatever the decoder does not know becomes `Opaque`; it is never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

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
class PayloadSet:
    """NFTA_PAYLOAD_* with an sreg: writes to the packet."""

    sreg: int
    base: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Meta:
    """NFTA_META_* with a dreg: `key` is enum nft_meta_keys."""

    dreg: int
    key: int


@dataclass(frozen=True, slots=True)
class MetaSet:
    """NFTA_META_* with an sreg."""

    sreg: int
    key: int


@dataclass(frozen=True, slots=True)
class Ct:
    """NFTA_CT_* with a dreg: `key` is enum nft_ct_keys, `direction` IP_CT_DIR_* or None."""

    dreg: int
    key: int
    direction: int | None = None


@dataclass(frozen=True, slots=True)
class CtSet:
    """NFTA_CT_* with an sreg."""

    sreg: int
    key: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """NFTA_LOOKUP_*: is the key in set `set`? With a dreg it is a map (dreg 0: verdict map). flags 1: inverted."""

    set: str
    sreg: int
    dreg: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Dynset:
    """NFTA_DYNSET_*: op 0 add, 1 update, 2 delete; continues, or breaks when the set is full. flags 1: inverted."""

    set: str
    op: int
    sreg_key: int
    sreg_data: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Fib:
    """NFTA_FIB_*: result 1 oif, 2 oifname, 3 addrtype; flags 1 saddr, 2 daddr, 4 mark, 8 iif, 16 oif, 32 present."""

    dreg: int
    result: int
    flags: int


@dataclass(frozen=True, slots=True)
class Nat:
    """NFTA_NAT_*: type 0 snat, 1 dnat; `flags` NF_NAT_RANGE_* (`uapi/linux/netfilter/nf_nat.h`; 64 is netmap)."""

    type: int
    family: int
    addr_min: int | None = None
    addr_max: int | None = None
    proto_min: int | None = None
    proto_max: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Redir:
    """NFTA_REDIR_*: registers of the first and last port, None when the port is kept."""

    proto_min: int | None = None
    proto_max: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Masq:
    """NFTA_MASQ_*: source NAT only."""

    flags: int = 0


@dataclass(frozen=True, slots=True)
class Tproxy:
    """NFTA_TPROXY_*: hand the packet to a local transparent socket; family 0 means both."""

    family: int
    addr: int | None = None
    port: int | None = None


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
class Counter:
    """NFTA_COUNTER_*."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Log:
    """NFTA_LOG_*: never a verdict. `prefix` is hostile text."""

    prefix: str = ""
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """NFTA_LIMIT_*: breaks when over the rate. flags 1: inverted (matches when over)."""

    rate: int
    unit: int
    burst: int
    type: int
    flags: int


@dataclass(frozen=True, slots=True)
class Quota:
    """NFTA_QUOTA_*: matches until used up. flags 1: inverted."""

    bytes: int
    flags: int
    consumed: int = 0


@dataclass(frozen=True, slots=True)
class Connlimit:
    """NFTA_CONNLIMIT_*: flags 1: inverted."""

    count: int
    flags: int


@dataclass(frozen=True, slots=True)
class Objref:
    """NFTA_OBJREF_*: type is NFT_OBJECT_* (1 counter, 2 quota, 3 ct helper, 4 limit, 5 connlimit, ...)."""

    type: int
    name: str | None = None
    sreg: int | None = None
    set: str | None = None


@dataclass(frozen=True, slots=True)
class Notrack:
    """No attributes: the packet will bypass conntrack, hence NAT."""


@dataclass(frozen=True, slots=True)
class Reject:
    """NFTA_REJECT_*: type 0 icmp, 1 tcp reset, 2 icmpx."""

    type: int
    code: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """NFTA_QUEUE_*: to a program in user space; flags 1: bypass when nobody listens."""

    num: int = 0
    total: int = 1
    flags: int = 0


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
class Last:
    """NFTA_LAST_*: only a timestamp."""


@dataclass(frozen=True, slots=True)
class Synproxy:
    """NFTA_SYNPROXY_*: answers the SYN itself, then lets the handshake through."""


@dataclass(frozen=True, slots=True)
class Dup:
    """NFTA_DUP_*: copies the packet; the original goes on."""

    addr: int | None = None
    dev: int | None = None


@dataclass(frozen=True, slots=True)
class Fwd:
    """NFTA_FWD_*: netdev only, moves the packet to another device."""

    dev: int | None = None
    addr: int | None = None
    nfproto: int | None = None


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
    | Fwd
    | XtMatch
    | XtTarget
    | Opaque
)
