"""Addresses, interfaces and sockets from the bytes of rtnetlink and sock_diag."""

from __future__ import annotations

import ipaddress
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import nla, nlmsg

from k3swatch.decode.host import decode_address, decode_link, decode_socket
from k3swatch.errors import DecodeError
from k3swatch.model.port import Interface, ListeningSocket, LocalAddress
from k3swatch.model.words import Family, Protocol

V4, V6, PEER = b"\xc0\xa8\1\xe9", b"\xfd" + bytes(14) + b"\1", b"\n\0\0\2"


def address(family: int, flags: int, *attributes: bytes) -> bytes:
    return nlmsg(20, struct.pack("=BBBBI", family, 24, flags, 0, 3) + b"".join(attributes))


def link(flags: int, *attributes: bytes, kind: int = 1) -> bytes:
    return nlmsg(16, struct.pack("=BxHiII", 0, kind, 3, flags, 0) + b"".join(attributes))


def diag(family: int, source: bytes, *attributes: bytes) -> bytes:
    ids = struct.pack(">HH", 6443, 0) + source.ljust(16, b"\0") + bytes(16) + struct.pack("=I8x", 7)
    return nlmsg(
        20,
        struct.pack("=BBBB", family, 10, 0, 0)
        + ids
        + struct.pack("=IIIII", 0, 0, 0, 1000, 4242)
        + b"".join(attributes),
    )


def test_ipv4_address_is_the_local_one_not_the_peer() -> None:
    raw = address(2, 0x80, nla(1, PEER), nla(2, V4), nla(3, b"eth0\0"))
    assert decode_address(raw) == LocalAddress(ipaddress.ip_address("192.168.1.233"), 3, 24)


def test_ipv6_address_with_long_flags() -> None:
    raw = address(10, 0, nla(1, V6), nla(8, struct.pack("=I", 0x120)))
    assert decode_address(raw) == LocalAddress(ipaddress.ip_address("fd00::1"), 3, 24, deprecated=True)


def test_an_interface_that_asks_for_no_hardware_address() -> None:
    assert [decode_link(link(flags, nla(3, b"d0\0"))).arp for flags in (0x1, 0x81)] == [True, False]


@pytest.mark.parametrize(
    ("flags", "tentative"), [(0x80, False), (0xC0, True), (0xC8, True), (0x44, False)], ids=hex
)
def test_an_address_that_others_may_have_is_tentative(flags: int, tentative: bool) -> None:
    """Duplicate address detection runs, or has failed; an optimistic one is used meanwhile (RFC 4429)."""
    assert decode_address(address(10, flags, nla(1, V6))).tentative is tentative


def test_link() -> None:
    raw = link(0x1, nla(3, b"veth0\0"), nla(27, struct.pack("=I", 5)), nla(18, nla(1, b"veth\0")))
    assert decode_link(raw) == Interface(3, "veth0", up=True, group=5, kind="veth")
    assert decode_link(link(0x8, nla(3, b"lo\0"), kind=772)) == Interface(
        3, "lo", up=False, loopback=True, type=772
    )


def test_bridge() -> None:
    """Its address, and whose hooks it calls: IFLA_BR_NF_CALL_IP6TABLES."""
    options = nla(36, b"\0") + nla(37, b"\1")
    raw = link(0x1, nla(3, b"br0\0"), nla(1, b"\2\0\0\0\0\1"), nla(18, nla(1, b"bridge\0") + nla(2, options)))
    found = decode_link(raw)
    assert (found.mac, found.calls) == (b"\2\0\0\0\0\1", frozenset({Family.IP6}))


def test_listening_socket() -> None:
    assert decode_socket(diag(2, V4), Protocol.TCP) == ListeningSocket(
        Protocol.TCP, ipaddress.ip_address("192.168.1.233"), 6443, inode=4242, uid=1000, interface=7
    )
    both = decode_socket(diag(10, bytes(16), nla(11, b"\0")), Protocol.TCP)
    assert both.address == ipaddress.ip_address("::")
    assert not both.v6only
    assert decode_socket(diag(10, bytes(16), nla(11, b"\1")), Protocol.TCP).v6only


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (address(2, 0), "address: attribute 1 is missing"),
        (address(2, 0, nla(1, b"\n")), "address: address of 1 bytes in family 2"),
        (address(99, 0, nla(1, V4)), "address: address of 4 bytes in family 99"),
        (nlmsg(20, b"\0"), "address: message of type 20 with 1 bytes"),
        (link(0, nla(3, b"lo\0")), "address: message of type 16"),
    ],
)
def test_error_reads_as_a_path(raw: bytes, why: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode_address(raw)
    assert str(error.value).startswith(why)


@given(st.sampled_from([16, 20]), st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_decode_error(kind: int, body: bytes) -> None:
    for decoder in (decode_address, decode_link, lambda raw: decode_socket(raw, Protocol.UDP)):
        with suppress(DecodeError):
            decoder(nlmsg(kind, body))
