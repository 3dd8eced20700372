"""Conntrack NEW events as connections: recorded ones, and what a hostile or future kernel might send."""

from __future__ import annotations

import pytest

from k3swatch.decode.conntrack import decode_new
from k3swatch.errors import DecodeError
from k3swatch.model.flow import Outcome
from k3swatch.model.words import Protocol

# recorded on kernel 6.18: `nft … dnat ip to 10.42.0.244:6444`, a connection 192.168.1.50 -> 192.168.1.233:6443
DIVERTED_V4 = bytes.fromhex(
    "c400000000010006000000000000000002000000340001801400018008000100c0a8013208000200c0a801e91c0002800500010006000000"
    "06000200c0b4000006000300192b00003400028014000180080001000a2a00f408000200c0a801321c000280050001000600000006000200"
    "192c000006000300c0b4000008000c00d410bd3a08000300000001a80800070000000078300004802c000180050001000100000005000200"
    "0a000000050003000000000006000400030000000600050000000000"
)
# the same, `dnat ip6 to [fd42::244]:6443`, fd00:1::51 -> [fd00:1::233]:6443
DIVERTED_V6 = bytes.fromhex(
    "f40000000001000600000000000000000a0000004c0001802c00018014000300fd00000100000000000000000000005114000400fd000001"
    "0000000000000000000002331c000280050001000600000006000200d2f6000006000300192b00004c0002802c00018014000300fd420000"
    "00000000000000000000024414000400fd0000010000000000000000000000511c000280050001000600000006000200192b000006000300"
    "d2f6000008000c00ed219ff908000300000001a80800070000000078300004802c0001800500010001000000050002000a00000005000300"
    "0000000006000400030000000600050000000000"
)
# the first rule again, a datagram
DIVERTED_UDP = bytes.fromhex(
    "9400000000010006000000000000000002000000340001801400018008000100c0a8013208000200c0a801e91c0002800500010011000000"
    "06000200ca68000006000300192b00003400028014000180080001000a2a00f408000200c0a801321c000280050001001100000006000200"
    "192c000006000300ca68000008000c00a0329b6808000300000001a8080007000000001e"
)
# no rule, 192.168.1.50 -> 192.168.1.233:8443
DELIVERED = bytes.fromhex(
    "c400000000010006000000000000000002000000340001801400018008000100c0a8013208000200c0a801e91c0002800500010006000000"
    "060002008c1400000600030020fb0000340002801400018008000100c0a801e908000200c0a801321c000280050001000600000006000200"
    "20fb0000060003008c14000008000c00a397626908000300000001880800070000000078300004802c000180050001000100000005000200"
    "0a000000050003000000000006000400030000000600050000000000"
)


@pytest.mark.parametrize(
    ("raw", "protocol", "source", "dialled", "reached", "outcome"),
    [
        (
            DIVERTED_V4,
            Protocol.TCP,
            ("192.168.1.50", 49332),
            ("192.168.1.233", 6443),
            ("10.42.0.244", 6444),
            Outcome.DIVERTED,
        ),
        (
            DIVERTED_V6,
            Protocol.TCP,
            ("fd00:1::51", 54006),
            ("fd00:1::233", 6443),
            ("fd42::244", 6443),
            Outcome.DIVERTED,
        ),
        (
            DIVERTED_UDP,
            Protocol.UDP,
            ("192.168.1.50", 51816),
            ("192.168.1.233", 6443),
            ("10.42.0.244", 6444),
            Outcome.DIVERTED,
        ),
        (
            DELIVERED,
            Protocol.TCP,
            ("192.168.1.50", 35860),
            ("192.168.1.233", 8443),
            ("192.168.1.233", 8443),
            Outcome.DELIVERED,
        ),
    ],
)
def test_recorded(
    raw: bytes,
    protocol: Protocol,
    source: tuple[str, int],
    dialled: tuple[str, int],
    reached: tuple[str, int],
    outcome: Outcome,
) -> None:
    flow = decode_new(raw, at=12.5)
    assert (str(flow.source), flow.source_port) == source
    assert (str(flow.dialled), flow.dialled_port) == dialled
    assert (str(flow.reached), flow.reached_port) == reached
    assert (flow.protocol, flow.outcome, flow.at, flow.count) == (protocol, outcome, 12.5, 1)


@pytest.mark.parametrize("raw", [DIVERTED_V4, DIVERTED_V6, DIVERTED_UDP])
def test_cut_anywhere_it_is_an_error_or_an_undamaged_answer(raw: bytes) -> None:
    """Every prefix, with the length field put right: never an exception of another kind, never other tuples."""
    whole = decode_new(raw, 0.0)
    for length in range(len(raw)):
        cut = length.to_bytes(4, "little") + raw[4:length]
        try:
            assert decode_new(cut, 0.0) == whole
        except DecodeError:
            continue


@pytest.mark.parametrize("raw", [DIVERTED_V4, DIVERTED_V6])
def test_no_changed_byte_makes_another_exception(raw: bytes) -> None:
    refused = []
    for place in range(4, len(raw)):
        for value in (0, 1, 0x7F, 0xFF):
            try:
                decode_new(raw[:place] + bytes([value]) + raw[place + 1 :], 0.0)
            except DecodeError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert not [message for message in refused if "\n" in message]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "netlink: 0 bytes, want a header of 16"),
        (DIVERTED_V4[:-4], "netlink: message of length 196, have 192"),
        (
            DIVERTED_V4[:4] + b"\x02\x01" + DIVERTED_V4[6:],
            "conntrack: message of type 0x102, want 0x100",
        ),
        ((18).to_bytes(4, "little") + DIVERTED_V4[4:18], "conntrack: body of 2 bytes, want 4"),
        ((20).to_bytes(4, "little") + DIVERTED_V4[4:20], "conntrack: attribute 1 is missing"),
        (
            DIVERTED_V4.replace(b"\x05\x00\x01\x00\x06", b"\x05\x00\x01\x00\x84", 1),
            "conntrack: original: transport: protocol 132, want 6 or 17",
        ),
        (
            DIVERTED_V4.replace(b"\x08\x00\x01\x00", b"\x08\x00\x03\x00", 1),
            "conntrack: original: address: attribute 3: 4 bytes, want 16",
        ),
    ],
)
def test_errors_read_as_a_path(raw: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_new(raw, 0.0)
    assert str(caught.value) == message
