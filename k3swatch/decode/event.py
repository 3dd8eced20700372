"""The probe's bytes as values, and addresses as the probe's bytes: the other half of bpf/events.h.

Pure and bounds-checked; whatever does not fit raises DecodeError. `LAYOUT` is compared with what the C compiler
made of events.h, by a unit test and again when the probe is attached.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping

from k3swatch.errors import DecodeError
from k3swatch.model.flow import Flow, FlowCount, Outcome
from k3swatch.model.port import Address
from k3swatch.model.words import Protocol

INODE = struct.Struct("=I")
ENDPOINT = struct.Struct("=16sHBx")
COUNT_KEY = struct.Struct("=16sHHBB2x")
COUNT = struct.Struct("=QQQI4x")
EVENT = struct.Struct("=QQ16s16s16sHHHBBII")

SEEN_QUEUED, SEEN_FREED, LOST_EVENT, LOST_IDENTITY, LOST_COUNT = range(5)  # enum stat

ZERO_COUNT = bytes(COUNT.size)

_OUTCOMES = (Outcome.DELIVERED, Outcome.DIVERTED, Outcome.DROPPED)  # enum outcome
_PROTOCOLS = {protocol.number: protocol for protocol in Protocol}


def _before(fields: str) -> int:
    return struct.calcsize("=" + fields)


# Every LAYOUT(X) of events.h, in its order.
LAYOUT: tuple[int, ...] = (
    ENDPOINT.size,
    _before("16s"),  # port
    _before("16sH"),  # protocol
    COUNT_KEY.size,
    _before("16s"),  # reached_port
    _before("16sH"),  # port
    _before("16sHH"),  # protocol
    _before("16sHHB"),  # outcome
    COUNT.size,
    0,  # connections
    EVENT.size,
    _before("Q"),  # connections
    _before("QQ"),  # source
    _before("QQ16s"),  # dialled
    _before("QQ16s16s"),  # reached
    _before("QQ16s16s16s"),  # source_port
    _before("QQ16s16s16sH"),  # dialled_port
    _before("QQ16s16s16sHH"),  # reached_port
    _before("QQ16s16s16sHHH"),  # protocol
    _before("QQ16s16s16sHHHB"),  # outcome
    _before("QQ16s16s16sHHHBB"),  # drop_reason
    _before("QQ16s16s16sHHHBBI"),  # listener
    LOST_COUNT + 1,  # STATS
)


def check_layout(reported: tuple[int, ...]) -> None:
    """Raises DecodeError unless the compiled probe lays out its structs as this module reads them."""
    if reported != LAYOUT:
        raise DecodeError(f"probe: struct layout {list(reported)}, want {list(LAYOUT)}")


def encode_address(address: Address) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d."""
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def decode_address(raw: bytes) -> Address:
    """The reverse of encode_address."""
    if len(raw) != 16:
        raise DecodeError(f"address: {len(raw)} bytes, want 16")
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address


def encode_endpoint(address: Address, port: int = 0, protocol: Protocol | None = None) -> bytes:
    """A key of the maps `protected` and (without port and protocol) `local`."""
    return ENDPOINT.pack(encode_address(address), port, protocol.number if protocol else 0)


def encode_inode(inode: int) -> bytes:
    """A key of the map `strangers`."""
    return INODE.pack(inode & 0xFFFFFFFF)


def first_count_keys(protocol: Protocol, port: int) -> list[bytes]:
    """The keys of the rows every protected port starts with: one for each outcome, no destination."""
    return [COUNT_KEY.pack(bytes(16), 0, port, protocol.number, number) for number in range(len(_OUTCOMES))]


def decode_count(key: bytes, value: bytes) -> FlowCount:
    """One row of the counter map."""
    if len(key) != COUNT_KEY.size or len(value) != COUNT.size:
        raise DecodeError(f"count: {len(key)} + {len(value)} bytes, want {COUNT_KEY.size} + {COUNT.size}")
    reached, reached_port, port, protocol, outcome = COUNT_KEY.unpack(key)
    connections = COUNT.unpack(value)[0]
    destination = format_endpoint(decode_address(reached), reached_port) if reached_port else None
    return FlowCount(_protocol(protocol), port, _outcome(outcome), destination, connections)


def decode_event(raw: bytes, epoch: float, reasons: Mapping[int, str]) -> Flow:
    """One record of the ring buffer.

    `epoch` is CLOCK_REALTIME minus CLOCK_MONOTONIC in seconds, `reasons` the kernel's enum skb_drop_reason.
    """
    if len(raw) != EVENT.size:
        raise DecodeError(f"event: {len(raw)} bytes, want {EVENT.size}")
    at, connections, source, dialled, reached, *rest = EVENT.unpack(raw)
    source_port, dialled_port, reached_port, protocol, outcome, reason, listener = rest
    return Flow(
        protocol=_protocol(protocol),
        source=decode_address(source),
        source_port=source_port,
        dialled=decode_address(dialled),
        dialled_port=dialled_port,
        reached=decode_address(reached),
        reached_port=reached_port,
        outcome=_outcome(outcome),
        at=epoch + at / 1e9,
        drop_reason=reasons.get(reason, f"reason {reason:#x}") if reason else None,
        count=connections,
        listener=listener,
    )


def format_endpoint(address: Address, port: int) -> str:
    """`10.42.0.244:6443`, `[fd00::5]:6443`."""
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _protocol(number: int) -> Protocol:
    if number not in _PROTOCOLS:
        raise DecodeError(f"protocol {number}, want 6 or 17")
    return _PROTOCOLS[number]


def _outcome(number: int) -> Outcome:
    if number >= len(_OUTCOMES):
        raise DecodeError(f"outcome {number}, want 0..{len(_OUTCOMES) - 1}")
    return _OUTCOMES[number]
