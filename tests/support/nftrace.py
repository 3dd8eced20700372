"""What the kernel itself says it did to a packet: nf_tables' trace, rule by rule, over netlink.

Follows nft_trace_notify (net/netfilter/nf_tables_trace.c). A trace message is of type NFT_MSG_TRACE in the group
NFNLGRP_NFTRACE; its family is the base chain's table's. The headers of the packet come with the first message of each
base chain it enters, later ones carry the same id. Only packets whose `nf_trace` bit a rule has set are traced: `TABLE`
sets it for all TCP, before any other chain, and does nothing else.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.message import nft_message
from k3swatch.model.expr import Code
from k3swatch.model.ruleset import ChainRef
from k3swatch.sources.events import EventSocket
from k3swatch.sources.netlink import NETLINK_NETFILTER

_TRACE, _NFNLGRP_NFTRACE = 17, 9
_T_TABLE, _T_CHAIN, _T_HANDLE, _T_TYPE, _T_VERDICT, _T_ID, _T_TRANSPORT = 1, 2, 3, 4, 5, 6, 9
_POLICY, _RETURN, _RULE = 1, 2, 3
_T_POLICY, _T_CT_ID = 16, 18  # the connection: since 6.17
_SO_RCVBUFFORCE = 33

NAME = "k3trace"
TABLE = f"""table inet {NAME} {{
	chain pre {{
		type filter hook prerouting priority -460
		meta l4proto tcp meta nftrace set 1
	}}
	chain out {{
		type filter hook output priority -460
		meta l4proto tcp meta nftrace set 1
	}}
}}
"""

Flow = tuple[str, int]  # the address and port of a client


@dataclass(frozen=True, slots=True)
class Step:
    """A rule that a packet met (`handle` 0: the chain's policy, or its end) and the verdict; `chain` of a jump.

    `packet` tells the packets of a connection apart: a reject sends its answer before it is done.
    """

    ref: ChainRef
    handle: int
    code: int
    chain: str | None = None
    packet: int = 0

    @property
    def place(self) -> tuple[ChainRef, int]:
        """Which rule it is."""
        return self.ref, self.handle


class Tracer:
    """The trace of the network namespace it was made in."""

    def __init__(self) -> None:
        self._events = EventSocket(NETLINK_NETFILTER, [_NFNLGRP_NFTRACE], "nf_tables trace")
        with socket.socket(fileno=socket.dup(self._events.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)

    def read(self, clients: Collection[Flow] = ()) -> dict[Flow, list[Step]]:
        """All that was traced since the last time of the connections of `clients`, both directions, in order.

        AssertionError when some was lost.
        """
        messages: list[bytes] = []
        while more := self._events.read():
            messages += more
        assert not self._events.lost, "trace messages were lost"
        return by_flow(messages, clients)

    def close(self) -> None:
        """Hear no more."""
        self._events.close()


def by_flow(messages: Iterable[bytes], clients: Collection[Flow]) -> dict[Flow, list[Step]]:
    """The steps of every connection, in order. No two clients may have the same port: by that their packets are known,
    whatever addresses NAT gives them.
    """
    by_port = {flow[1]: flow for flow in clients}
    flows: dict[int, Flow] = {}
    connections: dict[int, Flow] = {}
    found: dict[Flow, list[Step]] = {}
    for raw in messages:
        message = nft_message(raw, _TRACE, "trace")
        attributes = message.attributes("trace")
        number = attributes.be32(_T_ID)
        connection = attributes.be32(_T_CT_ID) if _T_CT_ID in attributes else None
        if _T_TRANSPORT in attributes:
            flows.pop(number, None)
            for port in _ports(attributes.raw(_T_TRANSPORT)):
                if port in by_port:
                    flows[number] = by_port[port]
                    connections.setdefault(connection or 0, by_port[port])
            if connection in connections:  # under another port once its source is translated
                flows[number] = connections[connection]
        if number in flows:
            found.setdefault(flows[number], []).extend(_step(message.family, attributes))
    return found


def _ports(transport: bytes) -> tuple[int, int]:
    return int.from_bytes(transport[:2]), int.from_bytes(transport[2:4])


def _step(family: str, attributes: Attributes) -> Iterator[Step]:
    ref = ChainRef(family, attributes.text(_T_TABLE), attributes.text(_T_CHAIN))
    kind, packet = attributes.be32(_T_TYPE), attributes.be32(_T_ID)
    if kind == _POLICY:
        yield Step(ref, 0, attributes.be32(_T_POLICY), packet=packet)
    elif kind == _RETURN:
        yield Step(ref, 0, Code.RETURN, packet=packet)
    elif kind == _RULE:
        verdict = attributes.nested(_T_VERDICT, "verdict")
        code = verdict.be32(1)
        code -= (code >> 31) << 32
        chain = verdict.text(2) if 2 in verdict else None
        yield Step(ref, attributes.be64(_T_HANDLE, 0), code, chain, packet)


def path_to(steps: Iterable[Step], wanted: Step) -> tuple[tuple[ChainRef, int], ...]:
    """The jumps that led to a step, and the step: each rule by its chain and handle."""
    stack: list[Step] = []
    for step in steps:
        if step.packet != wanted.packet:
            continue
        while stack and (stack[-1].ref.family, stack[-1].ref.table, stack[-1].chain) != (
            step.ref.family,
            step.ref.table,
            step.ref.chain,
        ):
            stack.pop()
        if step is wanted:
            return (*(each.place for each in stack), step.place)
        if step.code in (Code.JUMP, Code.GOTO):
            stack.append(step)
    return ()
