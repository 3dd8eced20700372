"""The seeing half of the daemon: what the sources say, put together into observations and explained connections.

`dirty` says that what was last observed may not hold any more. Nothing here raises: what cannot be read is unknown,
and the source that failed is told blind and opened again (source.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from k3swatch.clock import Clock
from k3swatch.daemon.commits import Commits
from k3swatch.daemon.deeds import Deeds
from k3swatch.daemon.memory import trim
from k3swatch.daemon.observe import explain, observe, unknown
from k3swatch.daemon.sources import Sources
from k3swatch.daemon.strangers import Strangers
from k3swatch.decode.generation import decode_newgen
from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.live.host import HostReader
from k3swatch.model.finding import Finding, Observation
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Host, ProtectedPort
from k3swatch.model.process import Process
from k3swatch.model.words import Mechanism

LONG = 0.1  # seconds; a look that takes longer has read thousands of rules
STALE = 5.0  # seconds without a word from netlink after which it does not count as alive


class Watch:
    """What is known of the host, and whether it is still so."""

    def __init__(
        self,
        sources: Sources,
        clock: Clock,
        ports: Sequence[ProtectedPort],
        describe: Callable[[int, str], Process | None] = lambda _pid, _comm: None,
    ) -> None:
        """`describe` says who a process is; it is asked at once, before the process ends."""
        self.sources, self.ports = sources, ports
        self._describe = describe
        self.dirty = True
        self._clock = clock
        self._commits, self._deeds = Commits(), Deeds(describe)
        self._reader = HostReader(clock)
        self._host = Host()
        self._observed: int | None = None  # the generation of the last observation
        self._answered_at = 0.0  # when the kernel last said a generation
        self._had_flows = False
        self._strangers = Strangers()
        self.ours: Callable[[Flow], bool] = lambda _flow: False  # connections that this daemon makes itself

    def healthy(self) -> bool:
        """Whether both ways of seeing live: netlink answers and wakes us; connections are seen.

        A fallback in use counts as seeing; so does a host that never let us attach anything: starting again would
        not help there, and that nothing is seen is told as blindness instead.
        """
        answers = self._clock.monotonic() - self._answered_at < STALE
        flows = self.sources.flows.current
        sees = flows.alive() if flows is not None else not self._had_flows
        return answers and self.sources.commits.current is not None and sees

    def poll(self) -> None:
        """Whether the rules moved without word: a commit whose event was lost, an iptables-legacy table."""
        ruleset = self.sources.ruleset.current
        if ruleset is None:
            return
        try:
            ruleset.check()
        except Interrupted:
            self.dirty = True
        except (SourceError, DecodeError) as error:
            self.sources.ruleset.failed(error)
            self.dirty = True
            return
        else:
            self.dirty = self.dirty or ruleset.generation != self._observed
        self._answered_at = self._clock.monotonic()
        self.dirty = self.dirty or self._reader.moved(self.ports)

    def observation(self) -> Observation:
        """Everything known about the ports now, and which commit led to it."""
        self.dirty = False
        observation = self._look()
        self.read_commits()  # what came meanwhile: it may be the commit that was just seen
        at, who = self._commits.between(self._observed, observation.generation)
        doers = self._commits.doers(self._observed, observation.generation)
        self._observed = observation.generation
        self.read_deeds()
        observation = self._deeds.behind(observation)
        self._strangers = Strangers(observation, self._host)
        return replace(observation, committed_at=at, committer=who, doers=doers)

    def _look(self) -> Observation:
        ruleset = self.sources.ruleset.current
        if ruleset is None:
            return unknown(self.ports, self.sources.ruleset.why)
        began = self._clock.monotonic()
        try:
            observation = observe(ruleset, self._read_host, self.ports, self._clock)
        except SourceError as error:
            self.sources.ruleset.failed(error)
            return unknown(self.ports, str(error))
        if self._clock.monotonic() - began > LONG:
            ruleset.forget()
            trim()
        if observation.generation is None:
            self.sources.ruleset.failed(SourceError("; ".join(observation.warnings)))
        return observation

    def _read_host(self) -> Host:
        self._host = self._reader.read(self.ports)
        return self._host

    def read_commits(self) -> None:
        """Take the NEWGEN messages that wait."""
        events = self.sources.commits.current
        if events is None:
            return
        lost = events.lost
        try:
            messages = events.read()
        except SourceError as error:
            self.sources.commits.failed(error)
            self.dirty = True
            return
        at = self._clock.now()
        for message in messages:
            try:
                generation, pid, comm = decode_newgen(message)
            except DecodeError:
                self.dirty = True  # something was committed, that much it says
                continue
            who = None if pid is None or comm is None else (pid, comm)
            self._commits.add(generation, at, who, None if who is None else self._describe(*who))
            self.dirty = self.dirty or generation != self._observed
        self.dirty = self.dirty or events.lost != lost

    def read_deeds(self) -> bool:
        """Take what processes did; whether there was anything."""
        watch = self.sources.flows.current
        if watch is None:
            return False
        try:
            deeds = watch.doer.read()
        except (SourceError, DecodeError) as error:
            self.sources.flows.failed(error)
            return False
        self._deeds.add(deeds)
        self.dirty = self.dirty or bool(deeds)
        return bool(deeds)

    def read_addresses(self) -> None:
        """Take the news about addresses and interfaces; what they are now is read with the next observation."""
        events = self.sources.addresses.current
        if events is None:
            return
        try:
            events.read()
        except SourceError as error:
            self.sources.addresses.failed(error)
        self.dirty = True

    def read_flows(self) -> Iterator[tuple[ProtectedPort, Finding, Flow]]:
        """The diverted connections that were seen, each with what explains it."""
        watch = self.sources.flows.current
        if watch is None:
            return
        try:
            flows = watch.read()
        except (SourceError, DecodeError) as error:
            self.sources.flows.failed(error)
            return
        yield from self.explained(flows)

    def explained(self, flows: Iterable[Flow]) -> Iterator[tuple[ProtectedPort, Finding, Flow]]:
        """Those of `flows` that were diverted from a protected port, each with what explains it now."""
        fresh = False
        for flow in flows:
            port = next((port for port in self.ports if _dials(flow, port)), None)
            # delivered is also who was translated to the same port of another address of this host; if such a one is
            # dropped there, it is no more a diversion than one that was not translated
            own = flow.reached_port == flow.dialled_port and flow.reached in self._host.local()
            arrived = own or flow.outcome is Outcome.DELIVERED
            if port is None or (flow.source in self._host.local() and self.ours(flow)):
                continue
            if arrived:
                taken = self._strangers.taking(port, flow)
                if taken is not None:
                    yield port, taken, flow
                continue
            finding = explain(self.sources.ruleset.current, self._host, port, flow)
            if finding.mechanism is Mechanism.UNEXPLAINED and not fresh:
                # virtual servers and programs are announced by nobody: this may be the first word of them
                fresh = self.dirty = True
                finding = explain(self.sources.ruleset.current, self._read_host(), port, flow)
            yield port, finding, flow

    def protect(self) -> None:
        """Tell the probe which ports on which addresses to watch."""
        watch = self.sources.flows.current
        if watch is None:
            return
        self._had_flows = True
        try:
            watch.protect(self.ports, self._host.local())
            watch.doer.protect(self.ports)
            watch.distrust(self._strangers.inodes)
        except SourceError as error:
            self.sources.flows.failed(error)


def _dials(flow: Flow, port: ProtectedPort) -> bool:
    return flow.protocol is port.protocol and flow.dialled_port == port.port
