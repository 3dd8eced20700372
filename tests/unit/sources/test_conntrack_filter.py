"""The in-kernel filter for conntrack events, run by the kernel itself: on a Unix socket it needs no privileges."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterable

import pytest

from k3swatch.errors import Unsupported
from k3swatch.sources.conntrack import MOST_PORTS, diverted_only
from k3swatch.sources.netlink import attribute

SO_ATTACH_FILTER = 26
NESTED = 0x8000

Endpoint = tuple[str, int]


def passes(ports: Iterable[tuple[int, int]], message: bytes) -> bool:
    """Whether the filter lets a message through."""
    program = diverted_only(ports)
    code = ctypes.create_string_buffer(b"".join(program))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.setblocking(False)
        theirs.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("@HP", len(program), ctypes.addressof(code)),
        )
        ours.send(message)
        try:
            return theirs.recv(4096) == message
        except BlockingIOError:
            return False


def direction(kind: int, protocol: int, source: Endpoint, destination: Endpoint) -> bytes:
    """CTA_TUPLE_ORIG (1) or CTA_TUPLE_REPLY (2)."""
    from_address, to_address = ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])
    first = 1 if from_address.version == 4 else 3
    addresses = attribute(first, from_address.packed) + attribute(first + 1, to_address.packed)
    ports = attribute(2, source[1].to_bytes(2, "big")) + attribute(3, destination[1].to_bytes(2, "big"))
    transport = attribute(1, bytes([protocol])) + ports
    return attribute(kind | NESTED, attribute(1 | NESTED, addresses) + attribute(2 | NESTED, transport))


def new(protocol: int, dialled: Endpoint, reached: Endpoint) -> bytes:
    """A NEW event as ctnetlink sends it."""
    client = ("192.168.1.50" if ":" not in dialled[0] else "fd00:1::50", 40000)
    body = direction(1, protocol, client, dialled) + direction(2, protocol, reached, client)
    return struct.pack("=IHHIIBBH", 20 + len(body), 0x100, 0x600, 0, 0, 2, 0, 0) + body


V4, V6 = ("192.168.1.233", 6443), ("fd00:1::233", 6443)
TCP, UDP = 6, 17
PORTS = [(TCP, 6443), (TCP, 9345), (UDP, 8472)]


@pytest.mark.parametrize(
    ("protocol", "dialled", "reached", "wanted"),
    [
        (TCP, V4, V4, False),
        (TCP, V6, V6, False),
        (TCP, V4, ("10.42.0.244", 6443), True),
        (TCP, V4, ("192.168.1.232", 6443), True),
        (TCP, V4, ("192.168.1.233", 6444), True),
        (TCP, V6, ("fd00:1::233", 7443), True),
        (TCP, V6, ("fd00:1::234", 6443), True),
        (TCP, V6, ("fd00:1::1:0:233", 6443), True),
        (TCP, V6, ("fd00:1:0:1::233", 6443), True),
        (TCP, V6, ("fd01:1::233", 6443), True),
        (TCP, ("192.168.1.233", 9345), ("10.42.0.244", 6443), True),
        (TCP, ("192.168.1.233", 443), ("10.42.0.244", 6443), False),
        (UDP, V4, ("10.42.0.244", 6443), False),
        (UDP, ("192.168.1.233", 8472), ("10.42.0.244", 8472), True),
        (TCP, ("192.168.1.233", 8472), ("10.42.0.244", 8472), False),
    ],
)
def test_what_passes(protocol: int, dialled: Endpoint, reached: Endpoint, wanted: bool) -> None:
    assert passes(PORTS, new(protocol, dialled, reached)) is wanted


def test_without_ports_nothing_passes() -> None:
    assert not passes([], new(TCP, V4, ("10.42.0.244", 6443)))


def test_the_longest_filter() -> None:
    ports = [(TCP, number) for number in range(1, MOST_PORTS + 1)]
    for number in (1, MOST_PORTS):
        assert passes(ports, new(TCP, ("192.168.1.233", number), ("10.42.0.244", 6443)))
    assert not passes(ports, new(TCP, ("192.168.1.233", MOST_PORTS + 1), ("10.42.0.244", 6443)))
    with pytest.raises(Unsupported, match=f"{MOST_PORTS + 1} ports, at most {MOST_PORTS}"):
        diverted_only([*ports, (UDP, 1)])


def test_messages_cut_short_do_not_pass() -> None:
    """A missing attribute, or one that reaches over the end, is not a diversion."""
    message = new(TCP, V4, ("10.42.0.244", 6443))
    body = len(direction(1, TCP, ("192.168.1.50", 40000), V4))
    assert not passes(PORTS, message[: 20 + body])
    for length in range(20 + body):
        assert not passes(PORTS, message[:length])
