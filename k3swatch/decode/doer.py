"""The doer's probe's bytes as values: the other half of bpf/doer.h. Pure; whatever does not fit raises DecodeError.

`LAYOUT` is compared with what the C compiler made of doer.h, by a unit test and again when the probe is attached.
"""

from __future__ import annotations

import struct

from k3swatch.decode.attributes import display
from k3swatch.errors import DecodeError
from k3swatch.model.process import Ancestor, Deed, Did, Executed
from k3swatch.model.words import Family

ANCESTORS, GROUPS = 8, 4
_GROUP = 96
EXEC = struct.Struct("=QQIIIII4x16s128s256s384s512s")
ANCESTOR = struct.Struct("=QI4x16s")
DEED = struct.Struct("=QIIHBBI16s")

LOST_EXEC, LOST_DEED = range(2)  # enum doer_stat

_DID = (Did.LISTENED, Did.CLOSED, Did.REPLACED)  # enum deed_kind
_FAMILIES = {family.nfproto: family for family in Family}


def _before(fields: str) -> int:
    return struct.calcsize("=" + fields)


# Every DOER_LAYOUT(X) of doer.h, in its order.
LAYOUT: tuple[int, ...] = (
    EXEC.size,
    _before("Q"),  # started
    _before("QQ"),  # pid
    _before("QQI"),  # uid
    _before("QQII"),  # arguments_length
    _before("QQIII"),  # arguments_kept
    _before("QQIIII"),  # depth
    _before("QQIIIII4x"),  # comm
    _before("QQIIIII4x16s"),  # filename
    _before("QQIIIII4x16s128s"),  # ancestors
    _before("QQIIIII4x16s128s256s"),  # groups
    _before("QQIIIII4x16s128s256s384s"),  # arguments
    ANCESTOR.size,
    _before("Q"),  # pid
    _before("QI4x"),  # comm
    DEED.size,
    _before("Q"),  # pid
    _before("QI"),  # thread
    _before("QII"),  # port
    _before("QIIH"),  # kind
    _before("QIIHB"),  # family
    _before("QIIHBB"),  # inode
    _before("QIIHBBI"),  # comm
    LOST_DEED + 1,  # DOER_STATS
)


def check_layout(reported: tuple[int, ...]) -> None:
    """Raises DecodeError unless the compiled probe lays out its structs as this module reads them."""
    if reported != LAYOUT:
        raise DecodeError(f"doer: struct layout {list(reported)}, want {list(LAYOUT)}")


def decode_exec(raw: bytes) -> Executed:
    """One entry of the map `execs`."""
    if len(raw) != EXEC.size:
        raise DecodeError(f"exec: {len(raw)} bytes, want {EXEC.size}")
    at, started, pid, uid, length, kept, depth, *texts = EXEC.unpack(raw)
    comm, filename, ancestors, groups, arguments = texts
    if depth > ANCESTORS or kept >= len(arguments):
        raise DecodeError(f"exec: {depth} ancestors, {kept} bytes of arguments")
    words = arguments[:kept].removesuffix(b"\0").split(b"\0") if kept else []
    parents = (ANCESTOR.unpack_from(ancestors, place * ANCESTOR.size) for place in range(depth))
    names = (display(groups[place * _GROUP :][:_GROUP]) for place in range(GROUPS))
    return Executed(
        pid=pid,
        comm=display(comm),
        filename=display(filename),
        arguments=tuple(display(word) for word in words),
        cut=length > kept,
        uid=uid,
        at=at / 1e9,
        started=started,
        ancestors=tuple(Ancestor(number, display(name), since) for since, number, name in parents),
        groups=tuple(name for name in names if name),
    )


def decode_deed(raw: bytes, epoch: float) -> Deed:
    """One record of the ring buffer. `epoch` is CLOCK_REALTIME minus CLOCK_MONOTONIC in seconds."""
    if len(raw) != DEED.size:
        raise DecodeError(f"deed: {len(raw)} bytes, want {DEED.size}")
    at, pid, _, port, kind, family, inode, comm = DEED.unpack(raw)
    if kind >= len(_DID) or (_DID[kind] is Did.REPLACED and family not in _FAMILIES):
        raise DecodeError(f"deed: kind {kind}, family {family}")
    return Deed(
        _DID[kind], epoch + at / 1e9, pid, display(comm), port or None, inode or None, _FAMILIES.get(family)
    )


def encode_port(port: int) -> bytes:
    """A key of the map `ports`."""
    return struct.pack("=H", port)
