"""Attribution beside the loop: alerts are told first, who takes the connections is found out by a thread of its own.

A pod's files appear milliseconds after its rule, so a new finding is looked into at once and again for two seconds;
one change is told, with the first answer that is sure or else with the best. Later every known finding is looked into
again once a minute: its pod or its Service may be gone. A slow disk holds up this thread and nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from k3swatch.attribute.clues import named, services
from k3swatch.attribute.cri import Cri
from k3swatch.attribute.process import Lookup, look, nothing
from k3swatch.attribute.receiver import Answer, receiver
from k3swatch.attribute.root import Root
from k3swatch.clock import Clock, SystemClock
from k3swatch.daemon.proxied import proxied
from k3swatch.incident.who import Subject, subject
from k3swatch.model.finding import Culprit, Finding, Observation, Orphan
from k3swatch.model.process import Process
from k3swatch.model.ruleset import Ruleset
from k3swatch.model.words import State

LOOKS = (0.0, 0.03, 0.1, 0.3, 0.8, 2.0)  # seconds after a finding is new
AGAIN = 60.0  # seconds between later looks
PATIENCE = 0.3  # seconds that an alert waits for a pod's name, where `allow` may silence it by that
CERTAIN = 20.0  # seconds that a Service must be missed before its pod counts as an orphan
ONCE = 2.0  # seconds for a runtime that is asked by a command: it will not ask again, and a node in trouble is busy
SUBJECTS = 256
COMMITS = 20  # a second whose process is looked for in /proc
RECORDS = 1000  # and in the kernel's own record, which costs microseconds

Learned = tuple[Subject, Culprit]


@dataclass(slots=True)
class _Job:
    """One subject that is being looked into."""

    finding: Finding
    port: int | None
    since: float
    due: float
    looks: int = 0
    answer: Answer | None = None


class Attribution:
    """What the daemon asks about who. All methods are for the loop's thread."""

    def __init__(self, root: str, clock: Clock, wake: Callable[[], None], executed: Lookup = nothing) -> None:
        """`root` is the directory the node's files are below; `wake` ends a wait of the loop; `executed` says what a
        process executed last."""
        self._executed = executed
        self._root, self._clock, self._wake = root, clock, wake
        self._jobs: dict[Subject, _Job] = {}
        self._services: frozenset[str] = frozenset()
        self._answers: deque[tuple[Subject, Answer]] = deque(maxlen=2 * SUBJECTS)
        self._missed: dict[Subject, float] = {}  # since when its Service is missed
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._cri = Cri(clock)  # for the thread
        self._commits: deque[float] = deque(maxlen=RECORDS)

    def watch(self, findings: Iterable[Finding], ports: Mapping[Subject, int] | None = None) -> None:
        """These are the findings of all open incidents, with the ports they are about: new ones are looked into, others
        forgotten."""
        wanted = {
            subject(each): each for each in findings if each.state is State.DIVERTED and each.destination
        }
        now = self._clock.monotonic()
        with self._changed:
            self._services = services(wanted.values())
            for key in self._jobs.keys() - wanted.keys():
                del self._jobs[key]
                self._missed.pop(key, None)
            for key, finding in wanted.items():
                if key not in self._jobs and len(self._jobs) < SUBJECTS:
                    self._jobs[key] = _Job(finding, (ports or {}).get(key), now, now)
            self._changed.notify()
        if wanted and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, name="attribution", daemon=True)
            self._thread.start()

    def learned(self, ruleset: Ruleset | None) -> list[Learned]:
        """What was found out since the last call."""
        found: list[Learned] = []
        while self._answers:
            key, answer = self._answers.popleft()
            culprit = answer.culprit
            if self._orphan(key, answer, ruleset):
                culprit = of_no_service(culprit)
            found.append((key, culprit))
        return found

    def before_telling(self, observation: Observation) -> list[Learned]:
        """Who takes what a port's `allow` may declare good by its pod: the only case in which an alert waits."""
        until = self._clock.monotonic() + PATIENCE
        found: list[Learned] = []
        for verdict in observation.verdicts:
            if not any(allow.pod for allow in verdict.port.allow):
                continue
            for finding in verdict.findings:
                key = subject(finding)
                if finding.state is State.DIVERTED and key not in self._jobs and key not in dict(found):
                    answer = self._wait(finding, until)
                    found += [(key, answer.culprit)] if answer is not None else []
        return found

    def committer(self, pid: int, comm: str) -> Process | None:
        """Who that is, at once; None when it cannot be told, or commits come too fast for that."""
        now = self._clock.monotonic()
        if len(self._commits) == RECORDS and now - self._commits[0] < 1.0:
            return None
        self._commits.append(now)
        if len(self._commits) > COMMITS and now - self._commits[-COMMITS - 1] < 1.0:
            return look(None, pid, comm, self._executed, now)
        with Root(self._root, self._clock, seconds=0.02) as root:
            return look(root, pid, comm, self._executed, now)

    def close(self) -> None:
        """End the thread; one that hangs in a file is left to the end of the process."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(1.0)

    def _wait(self, finding: Finding, until: float) -> Answer | None:
        pause = threading.Event()
        while True:
            with Root(self._root, self._clock) as root:
                answer = receiver(finding, root, thorough=False)
            if (answer is not None and answer.settled) or self._clock.monotonic() >= until:
                return answer
            pause.wait(0.02)

    def _orphan(self, key: Subject, answer: Answer, ruleset: Ruleset | None) -> bool:
        """Whether the Service is missed by kine and by kube-proxy, and has been for a while."""
        if not answer.orphaned_from or proxied(ruleset, answer.orphaned_from) is not False:
            self._missed.pop(key, None)
            return False
        now = self._clock.monotonic()
        return now - self._missed.setdefault(key, now) >= CERTAIN

    # the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                now = self._clock.monotonic()
                due = min((job.due for job in self._jobs.values()), default=now + AGAIN)
                if self._closed:
                    return
                if due > now:
                    self._changed.wait(due - now)
                    continue
                key, job = min(self._jobs.items(), key=lambda each: each[1].due)
                known = self._services
            self._look(key, job, known)

    def _look(self, key: Subject, job: _Job, known: frozenset[str]) -> None:
        job.looks += 1
        last = job.looks >= len(LOOKS)
        with Root(self._root, self._clock) as root:
            answer = receiver(job.finding, root, known, thorough=last, cri=self._cri, port=job.port)
        if last:
            job.due = self._clock.monotonic() + (CERTAIN if answer and answer.orphaned_from else AGAIN)
        else:
            if (
                answer is not None and answer.settled
            ):  # one more look: the pod's containers start after its sandbox
                job.looks = len(LOOKS) - 1
            job.due = job.since + LOOKS[job.looks]
        if answer is None or not (answer.settled or last):
            return
        if answer != job.answer or answer.orphaned_from:
            job.answer = answer
            self._answers.append((key, answer))
            self._wake()


def attributed(observation: Observation, directory: str | None, ruleset: Ruleset | None) -> Observation:
    """The observation with its receivers, for a command that looks once.

    Without a `directory` only the rules are asked: a snapshot is of another host.
    """
    found = [each for verdict in observation.verdicts for each in verdict.findings]
    known: dict[Subject, Culprit] = {}
    if directory is not None:
        others = services(found)
        cri = Cri(seconds=ONCE)
        with Root(directory, SystemClock(), seconds=2 * ONCE) as root:
            for verdict, finding in [(v, each) for v in observation.verdicts for each in v.findings]:
                key = subject(finding)
                if key in known:
                    continue
                answer = receiver(finding, root, others, cri=cri, port=verdict.port.port)
                if answer is not None:
                    orphan = bool(answer.orphaned_from) and proxied(ruleset, answer.orphaned_from) is False
                    known[key] = of_no_service(answer.culprit) if orphan else answer.culprit
    verdicts = (
        replace(verdict, findings=tuple(_told(each, known) for each in verdict.findings))
        for verdict in observation.verdicts
    )
    return replace(observation, verdicts=tuple(verdicts))


def of_no_service(culprit: Culprit) -> Culprit:
    """Of a ServiceLB pod whose Service is gone, as kine and kube-proxy agree."""
    return replace(culprit, left_behind=True, orphan=culprit.orphan or Orphan.SERVICE)


def with_named(observation: Observation) -> Observation:
    """The observation with the Services that rules name themselves: that much an alert can say at once."""
    verdicts = (
        replace(verdict, findings=tuple(map(named, verdict.findings))) for verdict in observation.verdicts
    )
    return replace(observation, verdicts=tuple(verdicts))


def _told(finding: Finding, known: dict[Subject, Culprit]) -> Finding:
    culprit = known.get(subject(finding))
    return named(finding) if culprit is None else replace(finding, culprit=culprit)
