"""The daemon: one thread that waits for the kernel, for clients and for time, and does what each asks.

A commit wakes it at once; commits that come while it is busy cause one more look. Beside that the generation is
asked for every second and everything is read again every 30 seconds, so that a lost event costs seconds, not
truth. No decision is made here: evaluate and incident make them.
"""

from __future__ import annotations

import contextlib
import selectors
from dataclasses import replace

import k3swatch.evaluate.text  # noqa: F401  now: the first alert need not wait for it
from k3swatch import config as configuration
from k3swatch.clock import Clock, SystemClock
from k3swatch.config import Config
from k3swatch.daemon import notices, report
from k3swatch.daemon.commits import Commits
from k3swatch.daemon.control import ControlSocket
from k3swatch.daemon.notify import Notifier
from k3swatch.daemon.observe import explain, observe, unknown
from k3swatch.daemon.signals import Signals
from k3swatch.daemon.sinks import Sinks
from k3swatch.daemon.sources import Ruleset, Sources
from k3swatch.decode.generation import decode_newgen
from k3swatch.errors import ConfigError, DecodeError, Interrupted, SourceError, Unsupported
from k3swatch.incident.engine import Engine
from k3swatch.incident.listener import ListenerWatch
from k3swatch.live.host import read_host
from k3swatch.model.finding import Observation
from k3swatch.model.flow import Flow
from k3swatch.model.incident import Event, Transition
from k3swatch.model.port import Host, ProtectedPort

POLL, RESYNC = 1.0, 30.0  # seconds


class Daemon:
    """Everything `k3swatch run` holds."""

    def __init__(
        self, config: Config, sinks: Sinks, clock: Clock, signals: Signals, notifier: Notifier
    ) -> None:
        self.config, self.sinks, self.clock = config, sinks, clock
        self.signals, self.notifier = signals, notifier
        self.selector = selectors.DefaultSelector()
        self.sources = Sources(self.selector, clock, self.tell, signals.wake)
        self.engine = Engine(sinks.incidents())
        self.listeners = ListenerWatch()
        self.started_at = clock.monotonic()
        self.evaluations = 0
        self.evaluation_seconds = 0.0
        self._commits = Commits()
        self._host = Host()
        self._observed: int | None = None  # the generation of the last observation
        self._answered_at = 0.0  # when the kernel last said a generation
        self._had_flows = False
        self._dirty = True
        self._not_before = self._next_poll = self._next_resync = self._next_beat = 0.0
        self._ready = False
        self._confinable = notifier.managed  # else nobody starts us again when the probe must be loaded anew
        self._stopping = ""
        self._control: ControlSocket | None = None
        self.selector.register(signals, selectors.EVENT_READ, self._signalled)

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. Raises NotPermitted when the kernel lets us see nothing from the start."""
        self.tell(notices.started(self.config, self.clock.now()))
        self._open_control()
        try:
            while not self._stopping:
                self._turn()
                for key, _ in self.selector.select(self._patience()):
                    key.data()
        finally:
            self.notifier.stopping()
            self.tell(notices.stopped(self._stopping or "an error", self.clock.now()))
            self.sources.close()
            if self._control is not None:
                self._control.close()
            self.sinks.close()

    def tell(self, event: Event) -> None:
        """One event to every sink."""
        self.sinks.notify(event)

    def _turn(self) -> None:
        """Whatever is due now."""
        now = self.clock.monotonic()
        blind = [source.name for source in self.sources.all if source.current is None]
        self.sources.maintain(self._source_ready)
        if any(source.name in blind and source.current is not None for source in self.sources.all):
            self._dirty = True  # what happened while it was blind is not known
            self._protect()
        if now >= self._next_poll:
            self._next_poll = now + POLL
            self._poll()
        if now >= self._next_resync:
            self._dirty = True
        if self._dirty and now >= self._not_before:
            self._look()
        wall = self.clock.now()
        for event in self.sinks.reported():
            self.tell(event)
        self._publish(self.engine.tick(wall))
        for event in self.listeners.tick(wall):
            self.tell(event)
        if self._confinable and self.sources.flows.current is not None:
            self._confine()
        if not self._ready and self.sources.attempted:
            self._ready = True
            self.notifier.ready(report.status_line(self))
        if self.sources.exhausted:
            self._stopping = "its probe is gone, and only a new process may load it"
        if self.notifier.watchdog_interval is not None and now >= self._next_beat:
            self._next_beat = now + self.notifier.watchdog_interval
            if self.healthy():
                self.notifier.watchdog()

    def _confine(self) -> None:
        """Connections are seen, the loader has gone: nothing is executed from now on."""
        self._confinable = False
        try:
            self.sources.confine()
        except SourceError as error:
            self.tell(notices.unconfined(error, self.clock.now()))

    def _patience(self) -> float:
        """Seconds until something is due."""
        now, wall = self.clock.monotonic(), self.clock.now()
        due = [self._next_poll, self._next_resync, self.sources.retry_at]
        if self._dirty:
            due.append(self._not_before)
        if self.notifier.watchdog_interval is not None:
            due.append(self._next_beat)
        due += [
            now + at - wall for at in (self.engine.deadline(), self.listeners.deadline()) if at is not None
        ]
        return max(0.0, min(due) - now)

    def healthy(self) -> bool:
        """Whether both ways of seeing live: netlink answers and wakes us; connections are seen.

        A fallback in use counts as seeing; so does a host that never let us attach anything: starting again would
        not help there, and that nothing is seen is told as blindness instead.
        """
        answers = self.clock.monotonic() - self._answered_at < 5 * POLL
        flows = self.sources.flows.current
        sees = flows.alive() if flows is not None else not self._had_flows
        return answers and self.sources.commits.current is not None and sees

    # sources

    def _source_ready(self, name: str) -> None:
        """The selector says that a source has something."""
        if name == self.sources.commits.name:
            self._drain_commits()
        elif name == self.sources.addresses.name:
            self._drain_addresses()
        else:
            self._drain_flows()

    def _drain_commits(self) -> None:
        events = self.sources.commits.current
        if events is None:
            return
        lost = events.lost
        try:
            messages = events.read()
        except SourceError as error:
            self.sources.commits.failed(error)
            self._dirty = True
            return
        at = self.clock.now()
        for message in messages:
            try:
                generation, pid, comm = decode_newgen(message)
            except DecodeError:
                self._dirty = True  # something was committed, that much it says
                continue
            self._commits.add(generation, at, None if pid is None or comm is None else (pid, comm))
            self._dirty = self._dirty or generation != self._observed
        self._dirty = self._dirty or events.lost != lost

    def _drain_addresses(self) -> None:
        events = self.sources.addresses.current
        if events is None:
            return
        try:
            events.read()
        except SourceError as error:
            self.sources.addresses.failed(error)
        self._dirty = True

    def _drain_flows(self) -> None:
        watch = self.sources.flows.current
        if watch is None:
            return
        try:
            flows = watch.read()
        except (SourceError, DecodeError) as error:
            self.sources.flows.failed(error)
            return
        for flow in flows:
            self._flow(flow)

    def _flow(self, flow: Flow) -> None:
        port = next((port for port in self.config.ports if _dials(flow, port)), None)
        if port is None or (flow.reached, flow.reached_port) == (flow.dialled, flow.dialled_port):
            return
        finding = explain(self.sources.ruleset.current, self._host, port, flow)
        self._publish(self.engine.flow(port.name, finding, flow, self.clock.now()))

    def _poll(self) -> None:
        """Once a second: has the generation moved without word? And what was counted meanwhile?"""
        ruleset = self.sources.ruleset.current
        if ruleset is not None:
            try:
                ruleset.check()
            except Interrupted:
                self._dirty = True
            except (SourceError, DecodeError) as error:
                self.sources.ruleset.failed(error)
                self._dirty = True
            else:
                self._dirty = self._dirty or ruleset.generation != self._observed
            if self.sources.ruleset.current is not None:
                self._answered_at = self.clock.monotonic()
        self.engine.flows_visible(self.sources.flows.current is not None, self.clock.now())
        blind = {source.name: source.blind_seconds for source in self.sources.all}
        self.sinks.meter(report.attach(self), report.counts(self), report.lost(self), blind)
        self.notifier.status(report.status_line(self))

    # looking

    def _look(self) -> None:
        """Observe, and publish what changed."""
        began = self.clock.monotonic()
        self._dirty = False
        before, observation = self._observed, self._observation()
        self._drain_commits()
        at, who = self._commits.between(before, observation.generation)
        observation = replace(observation, committed_at=at, committer=who)
        self._observed = observation.generation
        now = self.clock.now()
        self._publish(self.engine.observe(observation, now))
        for event in self.listeners.observe(observation, now):
            self.tell(event)
        ended = self.clock.monotonic()
        self.evaluations += 1
        self.evaluation_seconds = ended - began
        self.sinks.observe(self.engine.observation, self.evaluation_seconds)
        self._protect()
        # never busy for more than half of the time, however fast commits come: the host has work to do
        self._not_before = ended + self.evaluation_seconds
        self._next_resync = ended + RESYNC

    def _observation(self) -> Observation:
        ruleset = self.sources.ruleset.current
        if ruleset is None:
            return unknown(self.config.ports, self.sources.ruleset.why)
        try:
            observation = observe(ruleset, self._read_host, self.config.ports, self.clock)
        except SourceError as error:
            self.sources.ruleset.failed(error)
            return unknown(self.config.ports, str(error))
        if observation.generation is None:
            self.sources.ruleset.failed(SourceError("; ".join(observation.warnings)))
        return observation

    def _read_host(self) -> Host:
        self._host = read_host()
        return self._host

    def _protect(self) -> None:
        """Tell the probe which ports on which addresses to watch."""
        watch = self.sources.flows.current
        if watch is None:
            return
        self._had_flows = True
        try:
            watch.protect(self.config.ports, self._host.local())
        except SourceError as error:
            self.sources.flows.failed(error)

    def _publish(self, transitions: list[Transition]) -> None:
        for transition in transitions:
            self.sinks.publish(transition)

    # people

    def _open_control(self) -> None:
        try:
            self._control = ControlSocket(self.config.control.socket)
        except SourceError as error:
            self.tell(notices.without_control(error, self.clock.now()))
            return
        self.selector.register(self._control, selectors.EVENT_READ, self._asked)

    def _asked(self) -> None:
        if self._control is not None:
            self._control.answer(report.status(self))

    def _signalled(self) -> None:
        for name in self.signals.read():
            if name == "SIGHUP":
                self._reload()
            elif name:
                self._stopping = name

    def _reload(self) -> None:
        self.notifier.reloading()
        try:
            config = configuration.load(self.config.path)
        except ConfigError as error:
            self.tell(notices.rejected(error, self.clock.now()))
        else:
            waiting = self.sinks.configure(self.config, config, self.engine.incidents)
            self.config = config
            self._dirty = True
            self._protect()
            self.tell(notices.loaded(config, waiting, self.clock.now()))
        self.notifier.ready(report.status_line(self))


def _dials(flow: Flow, port: ProtectedPort) -> bool:
    return flow.protocol is port.protocol and flow.dialled_port == port.port


def run(path: str | None) -> None:
    """`k3swatch run`: returns after SIGTERM or SIGINT.

    Raises ConfigError, NotPermitted, and SourceError when the metrics cannot be served where they should be.
    """
    config = configuration.load(path)
    with contextlib.suppress(Unsupported):  # said, tried again and watched as blindness
        Ruleset().close()
    signals = Signals()
    try:
        clock = SystemClock()
        daemon = Daemon(config, Sinks(config, clock, signals.wake), clock, signals, Notifier())
        daemon.run()
    finally:
        signals.close()
    if daemon.sources.exhausted:
        raise SourceError("the probe is gone; a confined daemon cannot load it again", "start it again")
