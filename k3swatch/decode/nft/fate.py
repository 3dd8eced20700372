"""log, reject, queue, notrack, synproxy, dup, fwd: what else is done to the packet.

NFTA_LOG_GROUP be16, _PREFIX text; NFTA_REJECT_TYPE be32, _ICMP_CODE u8; NFTA_QUEUE_NUM, _TOTAL, _FLAGS be16,
_SREG_QNUM be32; NFTA_DUP_SREG_ADDR, _SREG_DEV be32; NFTA_FWD_SREG_DEV, _SREG_ADDR, _NFPROTO be32.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes, display
from k3swatch.decode.nft.data import register_or_none
from k3swatch.model.expr import Dup, Flow, Fwd, Log, Notrack, Queue, Reject, Synproxy

_LOG_GROUP, _LOG_PREFIX = 1, 2
_REJECT_TYPE, _REJECT_CODE = 1, 2
_QUEUE_NUM, _QUEUE_TOTAL, _QUEUE_FLAGS, _QUEUE_SREG = 1, 2, 3, 4
_DUP_ADDR, _DUP_DEV = 1, 2
_FWD_DEV, _FWD_ADDR, _FWD_NFPROTO = 1, 2, 3


def log(attributes: Attributes) -> Log:
    """`log prefix "..."`."""
    prefix = display(attributes.raw(_LOG_PREFIX)) if _LOG_PREFIX in attributes else ""
    return Log(prefix, attributes.be16(_LOG_GROUP) if _LOG_GROUP in attributes else None)


def reject(attributes: Attributes) -> Reject:
    """`reject with tcp reset`."""
    return Reject(attributes.be32(_REJECT_TYPE), attributes.u8(_REJECT_CODE, 0))


def queue(attributes: Attributes) -> Queue:
    """`queue num 0-3 bypass`, `queue to tcp dport map @numbers`."""
    num, total = attributes.be16(_QUEUE_NUM, 0), attributes.be16(_QUEUE_TOTAL, 1)
    return Queue(num, total, attributes.be16(_QUEUE_FLAGS, 0), register_or_none(attributes, _QUEUE_SREG))


def notrack(attributes: Attributes) -> Notrack:
    """`notrack`."""
    return Notrack()


def synproxy(attributes: Attributes) -> Synproxy:
    """`synproxy mss 1460`."""
    return Synproxy()


def dup(attributes: Attributes) -> Dup:
    """`dup to 10.0.0.1`."""
    return Dup(register_or_none(attributes, _DUP_ADDR), register_or_none(attributes, _DUP_DEV))


def flow(attributes: Attributes) -> Flow:
    """`flow add @ft`: NFTA_FLOW_TABLE_NAME."""
    return Flow(attributes.text(1))


def fwd(attributes: Attributes) -> Fwd:
    """`fwd to eth1`."""
    nfproto = attributes.be32(_FWD_NFPROTO) if _FWD_NFPROTO in attributes else None
    return Fwd(register_or_none(attributes, _FWD_DEV), register_or_none(attributes, _FWD_ADDR), nfproto)
