"""What a walk through the chains can end in, before it is put in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from k3swatch.evaluate.cube import Cube
from k3swatch.evaluate.packet import Packet, Target, Turn, Turned
from k3swatch.model.finding import PathStep
from k3swatch.model.ruleset import Rule
from k3swatch.model.words import Mechanism

__all__ = ["Fate", "Outcome", "Target", "Turned"]


class Fate(Enum):
    """What happens to the packet."""

    MAPPED = "mapped"  # its destination is set (perhaps to what it was)
    DROPPED = "dropped"
    REJECTED = "rejected"
    ROUTED = "routed"  # sent out by routing, addressed as it is
    UNKNOWN = "unknown"  # decided by something that cannot be read


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way a walk can end. `path` are the jumps and, last, the rule that decides (empty: a chain's policy); before
    them, for a packet that NAT had sent elsewhere, the path of the rule that did.

    `shadow` names the (group, chain) that decides before this one gets a say; `group` is the group of chains tied in
    priority this one belongs to, and the chain's place in it.
    """

    fate: Fate
    cube: Cube
    path: tuple[Rule | PathStep, ...]
    mechanism: Mechanism = Mechanism.NONE
    target: Target | None = None
    shadow: tuple[int, int] | None = None
    group: tuple[int, int] = (0, 0)
    why: str = ""
    packet: Packet | None = None  # as it came to the deciding rule
    turn: Turn = Turn.FIRST  # which packet of the connection

    @property
    def taken(self) -> tuple[Rule | PathStep, ...]:
        """The part of the path by which it had been sent elsewhere before this decides; empty when it had not."""
        turned = self.packet.turned if self.packet is not None else None
        return turned.path if turned is not None else ()
