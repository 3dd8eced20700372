"""The flow watch for hosts where no probe can be loaded: conntrack's NEW events."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.clock import Clock
from k3swatch.decode.conntrack import decode_new
from k3swatch.decode.event import format_endpoint
from k3swatch.errors import DecodeError
from k3swatch.live.doer import Doer, NoDoer
from k3swatch.live.protected import Endpoint, endpoints
from k3swatch.model.flow import Flow, FlowCount, Outcome
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import Attach, Protocol
from k3swatch.sources.conntrack import ConntrackEvents

_MOST_DESTINATIONS = 1000

_Row = tuple[Protocol, int, str | None]


class ConntrackWatch:
    """See FlowWatch. Sees diverted connections only, and of those not the ones that a filter drops."""

    attach = Attach.CONNTRACK
    ipvs = ""

    def __init__(self, clock: Clock, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused
        self.doer: Doer = NoDoer(refused)
        self._clock = clock
        self._events = ConntrackEvents()
        self._protected: frozenset[Endpoint] = frozenset()
        self._local: frozenset[Address] = frozenset()
        self._counts: dict[_Row, int] = {}
        self._undecoded = 0

    def fileno(self) -> int:
        """See FlowWatch."""
        return self._events.fileno()

    def read(self) -> list[Flow]:
        """See FlowWatch; `at` is the time of reading."""
        now = self._clock.now()
        flows = []
        for raw in self._events.read():
            try:
                flow = decode_new(raw, now)
            except DecodeError:
                self._undecoded += 1
                continue
            if self._diverted(flow):
                self._count(flow)
                flows.append(flow)
        return flows

    def counts(self) -> list[FlowCount]:
        """See FlowWatch; diverted ones only, those that were read."""
        return [
            FlowCount(protocol, port, Outcome.DIVERTED, destination, connections)
            for (protocol, port, destination), connections in self._counts.items()
        ]

    def lost(self) -> dict[str, int]:
        """`conntrack`: times the socket's buffer was full. `undecoded`: events that could not be read."""
        return {"conntrack": self._events.lost, "undecoded": self._undecoded}

    def protect(self, ports: Iterable[ProtectedPort], addresses: Iterable[Address]) -> None:
        """See FlowWatch."""
        self._local = frozenset(addresses)
        self._protected = endpoints(ports, self._local)
        self._events.watch((protocol.number, port) for protocol, port, _ in self._protected)

    def distrust(self, inodes: Iterable[int]) -> None:
        """Without effect: conntrack knows no sockets."""

    def alive(self) -> bool:
        """Whether the kernel makes conntrack events at all: the sysctl nf_conntrack_events can turn them off."""
        return self._events.enabled()

    def keepsakes(self) -> list[int]:
        """See FlowWatch."""
        return []

    def close(self) -> None:
        """See FlowWatch."""
        self._events.close()

    def _diverted(self, flow: Flow) -> bool:
        """The filter knows ports, not addresses: whose port it is, and that ours on another address is ours."""
        if (flow.protocol, flow.dialled_port, flow.dialled) not in self._protected:
            return False
        ours = flow.reached in self._local and flow.reached_port == flow.dialled_port
        return flow.outcome is Outcome.DIVERTED and not ours

    def _count(self, flow: Flow) -> None:
        row: _Row = (flow.protocol, flow.dialled_port, format_endpoint(flow.reached, flow.reached_port))
        if row not in self._counts and len(self._counts) >= _MOST_DESTINATIONS:
            row = (flow.protocol, flow.dialled_port, None)
        self._counts[row] = self._counts.get(row, 0) + 1
