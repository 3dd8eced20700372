"""The flow watch that rests on the probe: counts from the kernel's map, events from its ring buffer."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterable

from k3swatch.clock import Clock
from k3swatch.decode import event
from k3swatch.live.doer import Doer, open_doer
from k3swatch.live.protected import endpoints
from k3swatch.model.flow import Flow, FlowCount, Outcome
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import Attach, Protocol
from k3swatch.sources.probe import Probe

MOST_STRANGERS = 1024  # max_entries of `strangers`


class ProbeWatch:
    """See FlowWatch. Sees delivered, diverted and dropped connections, tracked or not.

    It belongs to the network namespace it was opened in. A connection that was diverted counts as diverted whatever
    became of it then; if a drop was what gave it away, the flow has a `drop_reason`. Raises SourceError,
    NotPermitted, Unsupported or DecodeError at once when the probe cannot be had.
    """

    def __init__(self, prefer: Attach | None, clock: Clock) -> None:
        self._clock = clock
        self._probe = Probe(prefer.value if prefer else None)
        try:
            event.check_layout(self._probe.layout)
            self.attach = Attach(self._probe.attach)
            self.ipvs = self._probe.ipvs
            self.refused = self._probe.refused
            self.doer: Doer = open_doer(self._probe.doer, clock)
            self._seen = (0, 0)
            self._beacon = _Beacon()
        except BaseException:
            self._probe.close()
            raise

    def fileno(self) -> int:
        """See FlowWatch."""
        return self._probe.fileno()

    def read(self) -> list[Flow]:
        """See FlowWatch. `Flow.count` adds up to the connections of its kind, but for races between CPUs."""
        epoch = self._clock.now() - self._clock.monotonic()
        return [event.decode_event(raw, epoch, self._probe.reasons) for raw in self._probe.records()]

    def counts(self) -> list[FlowCount]:
        """See FlowWatch. Every protected port has a delivered and a dropped row from the start.

        Of diverted connections there is a row for each destination; past 1000 destinations, one without takes the
        rest. Ports that are no longer protected keep their rows.
        """
        rows = self._probe.counts(event.COUNT_KEY.size, event.COUNT.size)
        counts = (event.decode_count(key, value) for key, value in rows)
        return [
            row
            for row in counts
            if row.connections or row.outcome is not Outcome.DIVERTED or row.destination is not None
        ]

    def lost(self) -> dict[str, int]:
        """`ring`: events, the counts have them. `identity`: maybe counted twice. `count`, `missed`: not counted."""
        return {
            "ring": self._probe.stat(event.LOST_EVENT),
            "identity": self._probe.stat(event.LOST_IDENTITY),
            "count": self._probe.stat(event.LOST_COUNT),
            "missed": self._probe.missed(),
        }

    def protect(self, ports: Iterable[ProtectedPort], addresses: Iterable[Address]) -> None:
        """See FlowWatch. Rows of `counts` come first, protection last, so that nothing is seen half set up."""
        ports, addresses = tuple(ports), frozenset(addresses)
        wanted = endpoints(ports, addresses)
        for protocol, port in {(protocol, port) for protocol, port, _ in wanted}:
            for key in event.first_count_keys(protocol, port):
                self._probe.add_count(key, event.ZERO_COUNT)
        size = event.ENDPOINT.size
        self._probe.replace("local", map(event.encode_endpoint, addresses), size)
        self._probe.watch_udp(sum(protocol is Protocol.UDP for protocol, _, _ in wanted))
        self._probe.replace(
            "protected",
            (event.encode_endpoint(address, port, protocol) for protocol, port, address in wanted),
            size,
        )

    def distrust(self, inodes: Iterable[int]) -> None:
        """See FlowWatch."""
        keys = map(event.encode_inode, itertools.islice(inodes, MOST_STRANGERS))
        self._probe.replace("strangers", keys, event.INODE.size)

    def alive(self) -> bool:
        """Whether both programs have run since the last call, and the module that kprobes are in is still the same.

        On a host where nothing was sent or dropped in between, one datagram over lo to a port of ours that is
        closed makes both happen, before sending returns: the packet leaves, and is dropped.
        """
        if self._probe.outlived():
            return False
        if not self._ran():
            self._beacon.send()
            return self._ran()
        return True

    def keepsakes(self) -> list[int]:
        """See FlowWatch."""
        return self._probe.keepsakes()

    def close(self) -> None:
        """See FlowWatch."""
        self._beacon.close()
        self._probe.close()

    def _ran(self) -> bool:
        before = self._seen
        now = (self._probe.stat(event.SEEN_QUEUED), self._probe.stat(event.SEEN_FREED))
        if now[0] == before[0] or now[1] == before[1]:
            return False
        self._seen = now
        return True


class _Beacon:
    """A datagram from this namespace to itself that nobody takes.

    One socket holds the target port, connected elsewhere so that it receives nothing from the other: nobody else
    can get the port and be surprised.
    """

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def send(self) -> None:
        """Send it; whether that worked (lo may be down) shows in what the probe saw."""
        with contextlib.suppress(OSError):
            if self._sockets is None:
                self._sockets = self._open()
            sender, holder = self._sockets
            sender.sendto(b"k3swatch", holder.getsockname())

    def close(self) -> None:
        """Free the sockets."""
        for one in self._sockets or ():
            one.close()

    @staticmethod
    def _open() -> tuple[socket.socket, socket.socket]:
        sender, holder = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        try:
            sender.setblocking(False)
            holder.bind(("127.0.0.1", 0))
            holder.connect(("127.0.0.1", 9))
        except OSError:
            sender.close()
            holder.close()
            raise
        return sender, holder
