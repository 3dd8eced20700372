"""What the probe (or conntrack) tells about real connections to a protected port."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from k3swatch.model.port import Address
from k3swatch.model.words import Protocol


class Outcome(StrEnum):
    """What became of one connection: label values of `k3swatch_connections_total`."""

    DELIVERED = "delivered"
    DIVERTED = "diverted"
    DROPPED = "dropped"  # seen in kfree_skb before any reply


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection as conntrack knows it: who dialled what, and where it really went."""

    protocol: Protocol
    source: Address
    source_port: int
    dialled: Address  # destination of the ORIGINAL tuple
    dialled_port: int
    reached: Address  # source of the REPLY tuple
    reached_port: int
    outcome: Outcome
    at: float  # CLOCK_REALTIME seconds
    drop_reason: str | None = None
    count: int = 1  # connections this event stands for; 0: one told before was dropped
    listener: int = 0  # inode of the listening socket here that has it; 0: not known, or it went elsewhere


@dataclass(frozen=True, slots=True)
class FlowCount:
    """One row of the kernel's counter map: connections so far, never decreasing while the probe is attached."""

    protocol: Protocol
    port: int
    outcome: Outcome
    destination: str | None  # "10.42.0.244:6443" for diverted ones
    connections: int
