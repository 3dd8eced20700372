"""Packets on their way, each with the cubes that lead there, and what comes out of a chain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from k3swatch.evaluate.cube import Cube, simplify
from k3swatch.evaluate.packet import Packet

States = dict[Packet, tuple[Cube, ...]]


@dataclass(slots=True)
class Result:
    """What comes out of a chain: packets that go on with the caller, and packets a rule accepted."""

    through: States = field(default_factory=dict)
    accepted: States = field(default_factory=dict)


def add(states: States, packet: Packet, cubes: Iterable[Cube]) -> None:
    """Put cubes to a packet's others."""
    states[packet] = (*states.get(packet, ()), *cubes)


def addressed(states: States, daddr: bytes) -> States:
    """The same packets of a connection to `daddr`."""
    return {replace(packet, daddr=daddr): cubes for packet, cubes in states.items()}


def merged(states: States) -> States:
    """The same states with as few cubes as possible."""
    result = dict(states)  # a copy asks for no hash again
    for packet, cubes in states.items():
        if len(cubes) > 1:
            result[packet] = simplify(cubes)
    return result
