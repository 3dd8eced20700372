"""The daemon's sources, each opened on its own, watched by the selector, opened again when it fails."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable
from typing import TypeVar

from k3swatch.clock import Clock
from k3swatch.daemon import confine
from k3swatch.daemon.notices import because
from k3swatch.daemon.source import Source
from k3swatch.errors import DecodeError, K3swatchError, SourceError
from k3swatch.live.flows import FlowWatch, open_flow_watch
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.model.incident import Event
from k3swatch.model.process import Executed
from k3swatch.model.words import Attach
from k3swatch.sources.nftables import GenerationEvents, NftablesSource
from k3swatch.sources.rtnetlink import AddressEvents

Watched = TypeVar("Watched", GenerationEvents, AddressEvents, FlowWatch)

SOON, LATER = 5.0, 60.0  # seconds, the longest pauses: a netlink socket costs nothing, the probe loader does
DOER = "doer"  # what `ready` is told when a process did something; it is no source of its own
LIFE = 20.0  # seconds a confined daemon lives at least, whatever happens to its probe: restarts stay rare


class Ruleset(LiveRuleset):
    """The live ruleset with a socket of its own. Raises what LiveRuleset raises."""

    def __init__(self) -> None:
        self._own = NftablesSource()
        try:
            super().__init__(self._own)
        except K3swatchError:
            self._own.close()
            raise

    def close(self) -> None:
        """Give the socket back."""
        self._own.close()


class Sources:
    """What the daemon reads.

    `attempted`: the probe was tried at least once since the start. `confined`: nothing can be executed any more, so
    the probe cannot be loaded again. `exhausted`: but it should be; only a new process can do that.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        clock: Clock,
        tell: Callable[[Event], None],
        wake: Callable[[], None],
    ) -> None:
        """`tell` takes events about blindness; `wake` ends a wait of the loop from another thread."""
        self.ruleset: Source[Ruleset] = Source("nf_tables", tell, clock, SOON)
        self.commits: Source[GenerationEvents] = Source("commits", tell, clock, SOON)
        self.addresses: Source[AddressEvents] = Source("addresses", tell, clock, SOON)
        self.flows: Source[FlowWatch] = Source("connections", tell, clock, LATER)
        self.attempted = self.confined = self.exhausted = False
        self._clock, self._born = clock, clock.monotonic()
        self._selector, self._wake = selector, wake
        self._loading: threading.Thread | None = None
        self._loaded: list[FlowWatch | Exception] = []

    @property
    def all(
        self,
    ) -> tuple[Source[Ruleset], Source[GenerationEvents], Source[AddressEvents], Source[FlowWatch]]:
        """Every one, for metrics and `status`."""
        return (self.ruleset, self.commits, self.addresses, self.flows)

    @property
    def retry_at(self) -> float:
        """When the next closed one is to be tried, monotonic seconds; infinity when all are open."""
        blind = [source.retry_at for source in self.all if source.current is None]
        return min(blind, default=float("inf")) if self._loading is None else float("inf")

    def maintain(self, ready: Callable[[str], None]) -> None:
        """Open what is closed and due. The selector then calls `ready` with the source's name."""
        self.ruleset.attempt(Ruleset)
        self.commits.attempt(lambda: self._watched(self.commits, GenerationEvents(), ready))
        self.addresses.attempt(lambda: self._watched(self.addresses, AddressEvents(), ready))
        if self.confined:
            if self.flows.due:
                self.flows.retry_at = self._born + LIFE
                self.exhausted = self.flows.due
        elif self._loading is None:
            if self.flows.due:
                # takes seconds on a slow machine: not in the loop, where a commit may arrive meanwhile
                self._loading = threading.Thread(target=self._load, name="probe-loader", daemon=True)
                self._loading.start()
        elif self._loaded:
            self._loading.join()
            self._loading, self.attempted = None, True
            self.flows.attempt(lambda: self._with_doer(self._take_flows(), ready))

    def executed(self, pid: int) -> Executed | None:
        """What a process executed last, as far as the probe knows."""
        watch = self.flows.current
        if watch is None:
            return None
        try:
            return watch.doer.executed(pid)
        except (SourceError, DecodeError):
            return None  # a name less; if the probe is broken, connections tell

    def confine(self) -> None:
        """Give up what only loading the probe needs, once connections are seen: see daemon/confine.py.

        Until they are seen the loader is tried again and again. SourceError when the kernel declines.
        """
        watch = self.flows.current
        if watch is not None and not self.confined:
            confine.forbid_exec()
            self.confined = True
            confine.give_up(confine.LOADER_CAPABILITIES, watch.lost)

    def close(self) -> None:
        """Close all of them."""
        for source in self.all:
            source.close()

    def _load(self) -> None:
        try:
            self._loaded.append(open_flow_watch())
        except (K3swatchError, OSError) as error:
            self._loaded.append(error)
        except Exception as error:  # noqa: BLE001  the loop waits for this thread's word, and nobody else asks for it
            self._loaded.append(SourceError(because(error)))
        self._wake()

    def _take_flows(self) -> FlowWatch:
        result = self._loaded.pop()
        if isinstance(result, Exception):
            raise result
        if result.attach is Attach.NONE:
            result.close()
            raise SourceError("; ".join(result.refused), "connections cannot be seen; rules still are")
        return result

    def _with_doer(self, current: FlowWatch, ready: Callable[[str], None]) -> FlowWatch:
        self._watched(self.flows, current, ready)
        fd, leave = current.doer.fileno(), self.flows.before_close
        if fd is not None and leave is not None:
            self._selector.register(fd, selectors.EVENT_READ, lambda: ready(DOER))
            self.flows.before_close = lambda: (self._selector.unregister(fd), leave())
        return current

    def _watched(self, source: Source[Watched], current: Watched, ready: Callable[[str], None]) -> Watched:
        self._selector.register(current, selectors.EVENT_READ, lambda: ready(source.name))
        source.before_close = lambda: self._selector.unregister(current)
        return current
