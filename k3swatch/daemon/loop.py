"""The daemon: one thread that waits for the kernel, for clients and for time, and does what each asks.

A commit wakes it at once; commits that come while it is busy cause one more look. Beside that the generation is
asked for every second and everything is read again every 30 seconds, so that a lost event costs seconds, not
truth. No decision is made here: evaluate and incident make them.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable
from dataclasses import replace

import k3swatch.evaluate.text  # noqa: F401  now: the first alert need not wait for it
from k3swatch import config as configuration
from k3swatch.clock import Clock, SystemClock
from k3swatch.config import Config
from k3swatch.daemon import notices, report
from k3swatch.daemon.attribution import Attribution, with_named
from k3swatch.daemon.control import ControlSocket
from k3swatch.daemon.handover import Handover
from k3swatch.daemon.notify import Notifier
from k3swatch.daemon.protected import Protected
from k3swatch.daemon.signals import Signals
from k3swatch.daemon.sinks import Sinks
from k3swatch.daemon.sources import DOER, Ruleset, Sources
from k3swatch.daemon.watch import Watch
from k3swatch.daemon.ways import Ways, sought
from k3swatch.errors import ConfigError, SourceError, Unsupported
from k3swatch.incident.engine import Engine
from k3swatch.incident.guarded import GuardWatch
from k3swatch.incident.listener import ListenerWatch
from k3swatch.incident.who import subject
from k3swatch.k3s.ways import serves_api
from k3swatch.live.flows import FlowWatch
from k3swatch.model.incident import Event, Transition
from k3swatch.model.words import Mechanism

POLL, RESYNC = 1.0, 30.0  # seconds
SETTLED = 0.02  # seconds from a listener's announcement until sock_diag surely shows it


class Daemon:
    """Everything `k3swatch run` holds."""

    def __init__(
        self,
        find: Callable[[], str | None],
        config: Config,
        sinks: Sinks,
        clock: Clock,
        signals: Signals,
        notifier: Notifier,
        root: str = "/",
    ) -> None:
        """`find` says where the configuration is, at each reload: there may be a file by then. `root`: the directory
        that the node's files are below."""
        self._find = find
        self.config, self.sinks, self.clock = config, sinks, clock
        self.signals, self.notifier = signals, notifier
        self.selector = selectors.DefaultSelector()
        self.sources = Sources(self.selector, clock, self.tell, signals.wake)
        self.handover = Handover(notifier, clock)
        self.attribution = Attribution(root, clock, signals.wake, self.sources.executed)
        self.protected = Protected(config, root, clock)
        self.watch = Watch(self.sources, clock, self.protected.ports, self.attribution.committer)
        self.ways = Ways(root, clock, signals.wake)
        self.watch.ours = self.ways.ours
        self.engine = Engine(sinks.incidents())
        self.listeners = ListenerWatch()
        self.guarded = GuardWatch()
        self.started_at = clock.monotonic()
        self.evaluations = 0
        self.evaluation_seconds = 0.0
        self._not_before = self._next_poll = self._next_resync = self._next_beat = 0.0
        self._ready = False
        self._confinable = notifier.managed  # else nobody starts us again when the probe must be loaded anew
        self._stopping = ""
        self._control: ControlSocket | None = None
        self.selector.register(signals, selectors.EVENT_READ, self._signalled)

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. Raises NotPermitted when the kernel lets us see nothing from the start."""
        self._open_control()
        try:
            while not self._stopping:
                self._turn()
                for key, _ in self.selector.select(self._patience()):
                    key.data()
        except Exception as error:
            self._stopping = notices.because(error)
            raise
        finally:
            self.notifier.stopping()
            self.tell(notices.stopped(self._stopping or "an error", self.clock.now()))
            self.sources.close()
            self.attribution.close()
            self.ways.close()
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
            self.watch.dirty = True  # what happened while it was blind is not known
            self.watch.protect()
        flows = self.sources.flows.current
        if flows is not None and self.sources.flows.name in blind:
            self.tell(notices.attached(flows.attach, flows.refused, self.clock.now()))
            self._take_over(flows)
        if now >= self._next_poll:
            self._next_poll = now + POLL
            self._poll()
        if now >= self._next_resync:
            self.watch.dirty = True
        if self.watch.dirty and now >= self._not_before:
            self._look()
        wall = self.clock.now()
        for event in self.sinks.reported():
            self.tell(event)
        self._publish(self.engine.tick(wall))
        self._attribute()
        self._tell_ways()
        for event in (*self.listeners.tick(wall), *map(notices.guarded, self.guarded.tick(wall))):
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
            if self.watch.healthy():
                self.notifier.watchdog()

    def _take_over(self, flows: FlowWatch) -> None:
        """This process sees connections: from now on, and what was seen while there was none."""
        protected_at = self.clock.now()
        self.handover.keep(flows)
        seen, wrong = self.handover.take(protected_at)
        for text in wrong:
            self.tell(notices.not_handed_over(text, self.clock.now()))
        for port, finding, flow in self.watch.explained(seen):
            if finding.mechanism is Mechanism.UNEXPLAINED:
                finding = replace(finding, why="seen while no k3swatch ran: the rule may be gone since")
            self._publish(self.engine.flow(port.name, finding, flow, self.clock.now()))

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
        if self.watch.dirty:
            due.append(self._not_before)
        if self.notifier.watchdog_interval is not None:
            due.append(self._next_beat)
        due += [
            now + at - wall
            for at in (self.engine.deadline(), self.listeners.deadline(), self.guarded.deadline())
            if at is not None
        ]
        return max(0.0, min(due) - now)

    # what is seen

    def _source_ready(self, name: str) -> None:
        """The selector says that a source has something."""
        if name == self.sources.commits.name:
            self.watch.read_commits()
        elif name == self.sources.addresses.name:
            self.watch.read_addresses()
        elif name == DOER:
            if self.watch.read_deeds():  # a listener is told of just before it is there to be found
                self._next_poll = min(self._next_poll, self.clock.monotonic() + SETTLED)
        else:
            for port, finding, flow in self.watch.read_flows():
                self._publish(self.engine.flow(port.name, finding, flow, self.clock.now()))
            self._seek()

    def _poll(self) -> None:
        """Once a second: has anything moved without word? And what was counted meanwhile?"""
        self.watch.poll()
        if self.protected.moved():
            self._protect()
            self.tell(notices.k3s_moved(self.protected.k3s, self.protected.ports, self.clock.now()))
        self.engine.flows_visible(self.sources.flows.current is not None, self.clock.now())
        blind = {source.name: source.blind_seconds for source in self.sources.all}
        self.sinks.meter(report.attach(self), report.counts(self), report.lost(self), blind)
        self.sinks.recount(self.engine.incidents)
        self.notifier.status(report.status_line(self))
        self.handover.settle()
        self._seek()

    def _look(self) -> None:
        """Observe, and publish what changed."""
        began = self.clock.monotonic()
        observation = with_named(self.watch.observation())
        waited = self.attribution.before_telling(observation)
        now = self.clock.now()
        self._publish(self.engine.attributed(waited, now) if waited else [])
        before = {incident.id for incident in self.engine.incidents}
        changes = self.engine.observe(observation, now)
        if not self.evaluations:
            still = [incident for incident in self.engine.incidents if incident.id in before]
            self.tell(notices.started(self.engine.observation, still, now))
        self._publish(changes)
        self._seek(bool(changes))
        held = map(notices.guarded, self.guarded.observe(observation, now))
        for event in (*self.listeners.observe(observation, now), *held):
            self.tell(event)
        ended = self.clock.monotonic()
        self.evaluations += 1
        self.evaluation_seconds = ended - began
        self.sinks.observe(self.engine.observation, self.evaluation_seconds)
        self._watch_receivers()
        self.watch.protect()
        # never busy for more than half of the time, however fast commits come: the host has work to do
        self._not_before = ended + self.evaluation_seconds
        self._next_resync = ended + RESYNC

    def _attribute(self) -> None:
        """Tell what became known about who takes the connections."""
        learned = self.attribution.learned(self.sources.ruleset.current)
        if learned:
            self._publish(self.engine.attributed(learned, self.clock.now()))
            self.sinks.observe(self.engine.observation)

    def _seek(self, now: bool = False) -> None:
        """Have the ways to the API tried while it is taken."""
        wanted = sought(self.engine, self.protected.k3s, self.sources.ruleset.current)
        if wanted is None:
            self.ways.rest()
        else:
            self.ways.want(*wanted, now)

    def _tell_ways(self) -> None:
        """Tell which of them work."""
        tried = self.ways.learned()
        if tried is not None:
            ports = {port.name for port in self.protected.ports if serves_api(port)}
            self._publish(self.engine.ways(ports, tried, self.clock.now()))

    def _publish(self, transitions: list[Transition]) -> None:
        for transition in transitions:
            self.sinks.publish(transition)
        if transitions:
            self._watch_receivers()

    def _watch_receivers(self) -> None:
        found = [(each, one.spec) for one in self.engine.incidents for each in one.findings]
        ports = {subject(each): int(spec.partition("/")[2]) for each, spec in found}
        self.attribution.watch((each for each, _ in found), ports)

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

    def _protect(self) -> None:
        """Other ports may be in force."""
        self.watch.ports, self.watch.dirty = self.protected.ports, True
        self.watch.protect()

    def _reload(self) -> None:
        self.notifier.reloading()
        try:
            config = configuration.load(self._find())
        except ConfigError as error:
            self.tell(notices.rejected(error, self.clock.now()))
        else:
            waiting = self.sinks.configure(self.config, config, self.engine.incidents)
            self.config = config
            self.protected.load(config)
            self._protect()
            self.tell(notices.loaded(config, self.protected.ports, waiting, self.clock.now()))
        self.notifier.ready(report.status_line(self))


def run(find: Callable[[], str | None], root: str = "/") -> None:
    """`k3swatch run`: returns after SIGTERM or SIGINT. `find` says where the configuration is, None: nowhere; `root`
    is the directory that the node's files are below.

    Raises ConfigError, NotPermitted, and SourceError when the metrics cannot be served where they should be.
    """
    config = configuration.load(find())
    with contextlib.suppress(Unsupported):  # said, tried again and watched as blindness
        Ruleset().close()
    signals = Signals()
    try:
        clock = SystemClock()
        daemon = Daemon(find, config, Sinks(config, clock, signals.wake), clock, signals, Notifier(), root)
        daemon.run()
    finally:
        signals.close()
    if daemon.sources.exhausted:
        raise SourceError("the probe is gone; a confined daemon cannot load it again", "start it again")
