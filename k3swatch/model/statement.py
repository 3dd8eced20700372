"""nf_tables statements as values: what rules do to a packet, named as `uapi/linux/netfilter/nf_tables.h` has them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PayloadSet:
    """NFTA_PAYLOAD_* with an sreg: writes to the packet."""

    sreg: int
    base: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class MetaSet:
    """NFTA_META_* with an sreg."""

    sreg: int
    key: int


@dataclass(frozen=True, slots=True)
class CtSet:
    """NFTA_CT_* with an sreg; `direction` of a zone: 0 original, 1 reply, None both."""

    sreg: int
    key: int
    direction: int | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Dynset:
    """NFTA_DYNSET_*: op 0 add, 1 update, 2 delete; continues, or breaks when the set is full. flags 1: inverted."""

    set: str
    op: int
    sreg_key: int
    sreg_data: int | None = None
    flags: int = 0


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
    """NFTA_MASQ_*: source NAT only; ports are in registers."""

    flags: int = 0
    proto_min: int | None = None
    proto_max: int | None = None


@dataclass(frozen=True, slots=True)
class Tproxy:
    """NFTA_TPROXY_*: hand the packet to a local transparent socket; family 0 means both."""

    family: int
    addr: int | None = None
    port: int | None = None


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
    """NFTA_QUEUE_*: to a program in user space; flags 1: bypass when nobody listens. `sreg`: the number is there."""

    num: int = 0
    total: int = 1
    flags: int = 0
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
class Flow:
    """NFTA_FLOW_*: `flow add @table`: later packets of the connection bypass the hooks (flow_offload)."""

    table: str


@dataclass(frozen=True, slots=True)
class Fwd:
    """NFTA_FWD_*: netdev only, moves the packet to another device."""

    dev: int | None = None
    addr: int | None = None
    nfproto: int | None = None
