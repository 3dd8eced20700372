"""Which paths to the API work now: tried by a thread of its own while a port of the API is taken.

It dials what the last evaluation leaves alone, when an incident of such a port opens or changes and once a minute after
that. Its connections are real ones: the probe counts them as what they become, delivered. One that is diverted all the
same (the rules changed under it) is not taken for somebody's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from k3swatch.attribute.root import Root
from k3swatch.clock import Clock
from k3swatch.daemon.proxied import proxied
from k3swatch.incident.engine import Engine
from k3swatch.k3s.find import Found
from k3swatch.k3s.settings import Settings
from k3swatch.k3s.ways import Candidate, candidates, serves_api
from k3swatch.live.handshake import handshake
from k3swatch.model.flow import Flow
from k3swatch.model.incident import Incident
from k3swatch.model.ruleset import Ruleset
from k3swatch.model.way import Answer, Way
from k3swatch.model.words import State

SECONDS = 0.7  # for one connection
AGAIN = 60.0
OWN, RECENT = 64, 10.0  # local ports of our connections that are remembered, and for how many seconds
# the cluster's CA, as a server and as an agent has it; the unit masks both from the service
AUTHORITIES = ("server/tls/server-ca.crt", "agent/server-ca.crt")

TAKEN = (State.DIVERTED, State.BLOCKED)

Tried = tuple[Way, ...]


def sought(
    engine: Engine, found: Found | None, ruleset: Ruleset | None
) -> tuple[Settings, tuple[Candidate, ...]] | None:
    """What to dial now; None when no port of the API is taken.

    ClusterIPs are dialled only where K3s runs or kube-proxy has a rule for them: elsewhere they may be anybody's.
    """
    verdicts = [verdict for verdict in engine.observation.verdicts if serves_api(verdict.port)]
    names = {verdict.port.name for verdict in verdicts}
    if not any(one.port in names and one.state in TAKEN and _alarms(one) for one in engine.incidents):
        return None
    settings = found.settings if found is not None else Settings()
    cluster = found is not None and found.running
    if not cluster:
        cluster = proxied(ruleset, [str(network[1]) for network in settings.service_networks]) is True
    return settings, candidates(settings, engine.observation.verdicts, cluster)


def _alarms(incident: Incident) -> bool:
    return any(not finding.shadowed and not finding.restriction for finding in incident.findings)


class Ways:
    """What was tried last. All methods are for the loop's thread."""

    def __init__(self, root: str, clock: Clock, wake: Callable[[], None]) -> None:
        self._root, self._clock, self._wake = root, clock, wake
        self._wanted: tuple[Settings, tuple[Candidate, ...]] | None = None
        self._tried: deque[Tried] = deque(maxlen=4)
        self._own: deque[tuple[int, float]] = deque(maxlen=OWN)
        self._due = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def want(self, settings: Settings, candidates: Sequence[Candidate], now: bool) -> None:
        """Try these, at once or when it is time again; none: nothing is taken."""
        with self._changed:
            wanted = (settings, tuple(candidates))
            if now or self._wanted is None or wanted != self._wanted:
                self._due = 0.0
            self._wanted = wanted
            self._changed.notify()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="ways", daemon=True)
            self._thread.start()

    def rest(self) -> None:
        """Nothing is taken: dial nobody."""
        with self._changed:
            self._wanted = None

    def learned(self) -> Tried | None:
        """What was tried since the last call; None when nothing was."""
        found = None
        while self._tried:
            found = self._tried.popleft()
        return found

    def ours(self, flow: Flow) -> bool:
        """Whether a connection from this host is one of these."""
        now = self._clock.monotonic()
        return any(port == flow.source_port and now - at < RECENT for port, at in list(self._own))

    def close(self) -> None:
        """End the thread; one that waits for an answer is left to the end of the process."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(1.0)

    # the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                now = self._clock.monotonic()
                if self._closed:
                    return
                if self._wanted is None or self._due > now:
                    self._changed.wait(AGAIN if self._wanted is None else self._due - now)
                    continue
                settings, candidates = self._wanted
                self._due = now + AGAIN
            self._tried.append(tried(self._root, self._clock, settings, candidates, self._dialling))
            self._wake()

    def _dialling(self, port: int) -> None:
        self._own.append((port, self._clock.monotonic()))


def tried(
    directory: str,
    clock: Clock,
    settings: Settings,
    candidates: Sequence[Candidate],
    dialling: Callable[[int], None] = lambda port: None,
) -> Tried:
    """Dial each, now; at most SECONDS for one. `dialling` is told the local port of each connection beforehand."""
    with Root(directory, clock) as root:
        found: Iterable[str | None] = (root.text(f"{settings.data_directory}/{file}") for file in AUTHORITIES)
        ca = next((text for text in found if text), None)
    return tuple(_try(each, ca, dialling) for each in candidates)


def _try(candidate: Candidate, ca: str | None, dialling: Callable[[int], None]) -> Way:
    try:
        shown = handshake(candidate.address, candidate.port, ca, SECONDS, dialling)
    except (OSError, ValueError) as error:
        return Way(candidate.url, Answer.SILENT, candidate.kubeconfig, why=_why(error))
    answer = {True: Answer.VERIFIED, False: Answer.STRANGER, None: Answer.ANSWERS}[shown.verified]
    why = None
    if shown.verified is None and candidate.owner is not None:  # masked CA: the kernel knows
        answer, why = Answer.VERIFIED, f"its socket is that of {candidate.owner}"
    return Way(candidate.url, answer, candidate.kubeconfig, shown.issuer, shown.names, why)


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "no answer"
    if type(error).__module__ == "ssl":  # which is not imported here: only when something is dialled
        return "no TLS"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
