"""The probe's records and counter rows as values; their layout against the C compiler's."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from support.compiled import printed

from k3swatch.decode import event
from k3swatch.errors import DecodeError
from k3swatch.model.flow import Flow, FlowCount, Outcome
from k3swatch.model.words import Protocol

PRINT_LAYOUT = r"""
#include <stdio.h>
#include "events.h"
#define PRINT(number) printf("%zu\n", (size_t)(number));
int main(void) { LAYOUT(PRINT) return 0; }
"""

PRINT_ENUMS = r"""
#include <stdio.h>
#include "events.h"
int main(void)
{
	printf("%d %d %d\n", DELIVERED, DIVERTED, DROPPED);
	printf("%d %d %d %d %d\n", SEEN_QUEUED, SEEN_FREED, LOST_EVENT, LOST_IDENTITY, LOST_COUNT);
	printf("%d\n", LAYOUT_ENTRIES);
	return 0;
}
"""


def test_layout_is_the_compilers(repo: Path, tmp_path: Path) -> None:
    output = printed(repo, tmp_path, PRINT_LAYOUT)
    assert tuple(map(int, output.split())) == event.LAYOUT


def test_numbers_are_the_headers(repo: Path, tmp_path: Path) -> None:
    outcomes, stats, entries = printed(repo, tmp_path, PRINT_ENUMS).splitlines()
    assert outcomes == "0 1 2"
    numbers = (
        event.SEEN_QUEUED,
        event.SEEN_FREED,
        event.LOST_EVENT,
        event.LOST_IDENTITY,
        event.LOST_COUNT,
    )
    assert tuple(map(int, stats.split())) == numbers
    assert int(entries) == len(event.LAYOUT)
    assert [event.decode_count(key, event.ZERO_COUNT).outcome for key in first_rows()] == [
        Outcome.DELIVERED,
        Outcome.DIVERTED,
        Outcome.DROPPED,
    ]


def test_layout_that_differs_is_refused() -> None:
    event.check_layout(event.LAYOUT)
    with pytest.raises(DecodeError, match=r"^probe: struct layout \[20\], want \[20, 16, "):
        event.check_layout((20,))


def first_rows() -> list[bytes]:
    return event.first_count_keys(Protocol.TCP, 6443)


def mapped(text: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{text}").packed


def record(
    outcome: int = 1, protocol: int = 6, reason: int = 0, reached: bytes = mapped("10.42.0.244")
) -> bytes:
    """One event as the probe would send it, fields by hand."""
    return (
        (5_000_000_000).to_bytes(8, "little")
        + (7).to_bytes(8, "little")
        + mapped("192.168.1.50")
        + mapped("192.168.1.233")
        + reached
        + (40000).to_bytes(2, "little")
        + (6443).to_bytes(2, "little")
        + (6444).to_bytes(2, "little")
        + bytes([protocol, outcome])
        + reason.to_bytes(4, "little")
        + (77).to_bytes(4, "little")
    )


def test_event() -> None:
    assert event.decode_event(record(), epoch=1000.5, reasons={}) == Flow(
        protocol=Protocol.TCP,
        source=ipaddress.ip_address("192.168.1.50"),
        source_port=40000,
        dialled=ipaddress.ip_address("192.168.1.233"),
        dialled_port=6443,
        reached=ipaddress.ip_address("10.42.0.244"),
        reached_port=6444,
        outcome=Outcome.DIVERTED,
        at=1005.5,
        drop_reason=None,
        count=7,
        listener=77,
    )


@pytest.mark.parametrize(
    ("reason", "shown"), [(0, None), (58, "NEIGH_FAILED"), (999, "reason 0x3e7"), (0x30001, "reason 0x30001")]
)
def test_drop_reasons_are_named_by_the_kernels_own_list(reason: int, shown: str | None) -> None:
    flow = event.decode_event(record(2, reason=reason), 0.0, {58: "NEIGH_FAILED"})
    assert (flow.outcome, flow.drop_reason) == (Outcome.DROPPED, shown)


def test_ipv6_event() -> None:
    reached = ipaddress.IPv6Address("fd42::244")
    assert event.decode_event(record(reached=reached.packed), 0.0, {}).reached == reached


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "event: 0 bytes, want 80"),
        (record()[:-1], "event: 79 bytes, want 80"),
        (record() + b"\0", "event: 81 bytes, want 80"),
        (record(outcome=3), "outcome 3, want 0..2"),
        (record(protocol=132), "protocol 132, want 6 or 17"),
    ],
)
def test_events_that_do_not_fit(raw: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        event.decode_event(raw, 0.0, {})
    assert str(caught.value) == message


def count_key(reached: bytes, reached_port: int, outcome: int) -> bytes:
    return (
        reached
        + reached_port.to_bytes(2, "little")
        + (6443).to_bytes(2, "little")
        + bytes([17, outcome])
        + bytes(2)
    )


def count(connections: int) -> bytes:
    return connections.to_bytes(8, "little") + bytes(24)


@pytest.mark.parametrize(
    ("key", "destination", "outcome"),
    [
        (count_key(bytes(16), 0, 0), None, Outcome.DELIVERED),
        (count_key(bytes(16), 0, 1), None, Outcome.DIVERTED),
        (count_key(mapped("10.42.0.244"), 6444, 1), "10.42.0.244:6444", Outcome.DIVERTED),
        (
            count_key(ipaddress.IPv6Address("fd42::244").packed, 6444, 1),
            "[fd42::244]:6444",
            Outcome.DIVERTED,
        ),
    ],
)
def test_count(key: bytes, destination: str | None, outcome: Outcome) -> None:
    want = FlowCount(Protocol.UDP, 6443, outcome, destination, 2**40)
    assert event.decode_count(key, count(2**40)) == want


@pytest.mark.parametrize(
    ("key", "value"), [(b"", count(1)), (bytes(23), count(1)), (count_key(bytes(16), 0, 0), bytes(31))]
)
def test_counts_that_do_not_fit(key: bytes, value: bytes) -> None:
    with pytest.raises(DecodeError, match="bytes, want 24 \\+ 32"):
        event.decode_count(key, value)


@pytest.mark.parametrize("text", ["192.168.1.233", "127.0.0.1", "fd00:1::233", "::1", "::"])
def test_addresses_there_and_back(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert len(event.encode_address(address)) == 16
    assert event.decode_address(event.encode_address(address)) == address


def test_endpoints() -> None:
    address = ipaddress.ip_address("192.168.1.233")
    assert (
        event.encode_endpoint(address, 6443, Protocol.TCP)
        == mapped("192.168.1.233") + b"\x2b\x19" + b"\x06\x00"
    )
    assert event.encode_endpoint(address) == mapped("192.168.1.233") + bytes(4)
    with pytest.raises(DecodeError):
        event.decode_address(b"\x7f\0\0\x01")
