"""`k3swatch demo`: a K3s host loses its API port the way it happened to a real one, and k3swatch tells about it.

In seven acts. After each, real connections show who answers, and what k3swatch said is laid beside: in its own
words, in the journal, in Prometheus, in Alertmanager. The exit status is 0 only if all of it agreed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from k3swatch.demo import node
from k3swatch.demo.acts import ACTS, CONNECTIONS, OTHER_API, PORTMAP_POD, Act
from k3swatch.demo.apiserver import TIMEOUT, UNREACHABLE, who_answers
from k3swatch.demo.lab import API, API_6444
from k3swatch.demo.said import said_about
from k3swatch.demo.screen import WIDTH, Screen, clip, printable
from k3swatch.demo.services import wait_until
from k3swatch.demo.stage import Stage, entry_time, stage
from k3swatch.errors import NotPermitted, SourceError
from k3swatch.view.catalog import ENTRIES, Kind

DIVERTED = "K3swatchPortDiverted"
PATIENCE = 10.0  # seconds anything may take that k3swatch or its neighbours have to do


class Story:
    """Plays the acts on a stage and keeps count of what did not agree."""

    def __init__(self, screen: Screen, on: Stage) -> None:
        self.screen = screen
        self.stage = on
        self.checks = 0
        self.disagreements = 0
        self.alarms: list[float] = []  # seconds from the commit of a diverting rule to Alertmanager
        self.all_clears: list[float] = []  # and of its removal
        self.diverted = 0  # connections of ours that somebody else answered
        self.incidents: dict[str, str] = {}  # destination -> id, as the journal told it

    def play(self, number: int, act: Act) -> None:
        """One act: do it, dial, compare."""
        screen = self.screen
        screen.heading(f"{number}  {act.title}")
        screen.say(act.text)
        for command in act.commands:
            screen.command(command)
        screen.line()
        begin = time.time()
        if act.anew:
            self.diverted = 0
            self.incidents.pop(act.opened)
        act.do(self.stage)
        alerted = self._await_alert(act, begin)
        self.dial(act)
        screen.line()
        if act.opened == PORTMAP_POD:
            if not act.anew:
                self._blind_tools()
            self._way_back()
        if act.opened:
            self._journal(Kind.DIVERTED, act.opened, begin)
            if act.opened == PORTMAP_POD:
                self._receiver(begin)
            self._journal(Kind.CONFIRMED, act.opened, begin)
        if act.resolved:
            self._journal(Kind.RESTORED, act.resolved, begin)
        self._metrics(act)
        self._alerts(act)
        if act.restored:
            self._restore()
            self._history()
        if alerted:
            (self.alarms if act.opened else self.all_clears).append(alerted[1])
            journal, alertmanager = (f"{seconds * 1000:.0f} ms" for seconds in alerted)
            cause = "commit of the rule" if act.opened else "removal of the rule"
            screen.note(f"from the {cause}: {journal} to the journal, {alertmanager} to Alertmanager")

    def verify(self, right: bool) -> bool:
        """Count a comparison."""
        self.checks += 1
        self.disagreements += not right
        return right

    def _await_alert(self, act: Act, begin: float) -> tuple[float, float] | None:
        """Wait for Alertmanager to hold what the act must raise or end; the seconds from the commit behind it to
        the journal and to Alertmanager.
        """
        if not act.opened and not act.resolved:
            return None
        wanted = bool(act.opened)
        destination = act.opened or act.resolved

        def there() -> float:
            return time.time() if (destination in self._firing()) is wanted else 0.0

        at = wait_until(there, f"Alertmanager: {destination}", PATIENCE, every=0.005)
        entry = self._entry(Kind.DIVERTED if wanted else Kind.RESTORED, destination, begin)
        commits = self.stage.commits.at
        # an end is due to the first commit that takes something away, a beginning to the one the entry names
        first = min(at for at in commits.values() if at >= begin)
        committed = commits[int(entry["K3SWATCH_GENERATION"])] if wanted else first
        return entry_time(entry) - committed, at - committed

    def _firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that the port is diverted, by destination, as Alertmanager holds them."""
        alerts = [alert for alert in self.stage.alerts() if alert["labels"]["alertname"] == DIVERTED]
        return {alert["labels"]["destination"]: alert for alert in alerts}

    def dial(self, act: Act) -> None:
        """Real connections, beside what the daemon says."""
        rows = []
        port = self.stage.daemon.status()["ports"][0]
        for (who, name, address), expected in zip(CONNECTIONS, act.answers, strict=True):
            answer = who_answers(getattr(self.stage.lab, name), address, 6443)
            self.diverted += answer != API
            said = said_about(port, name == "host", address)
            words = said.word if said.word == "delivered" else f"{said.word} to {said.destinations}"
            right = _same(answer, expected) and said.word == ("delivered" if answer == API else "diverted")
            rows.append(((who, address, answer, words), self.verify(right)))
        self.screen.table(("who dials", "port 6443 of", "who answers", "k3swatch says"), rows)

    def _blind_tools(self) -> None:
        """What everybody looks at first shows the rightful owner, and nothing else."""
        lines = self.stage.lab.host.run("ss", "-Hltn", "sport = :6443").splitlines()
        listeners = ", ".join(line.split()[3] for line in lines)
        text = f"listens on 6443: {listeners}, as before; NAT acts before any socket is asked"
        self.screen.fact("ss -ltn", text, self.verify(len(lines) == 1))

    def _way_back(self) -> None:
        """The host itself can still reach its API; a real connection proves it."""
        answer = who_answers(self.stage.lab.host, "127.0.0.1", 6444)
        text = (
            f"https://127.0.0.1:6444 on this host: {answer} answers (kubectl: server/cred/admin.kubeconfig)"
        )
        self.screen.fact("way back in", text, self.verify(answer == API_6444))

    def _entry(self, kind: Kind, destination: str, since: float) -> dict[str, Any]:
        """The journal entry of a kind about a destination; waits for it."""

        def found() -> dict[str, Any] | None:
            for entry in self.stage.entries(since):
                if (
                    entry.get("MESSAGE_ID") == ENTRIES[kind].id
                    and entry.get("K3SWATCH_DESTINATION") == destination
                ):
                    return entry
            return None

        return wait_until(found, f"journal: {kind} {destination}", PATIENCE)

    def _journal(self, kind: Kind, destination: str, since: float) -> None:
        """Show the entry; an incident keeps its id."""
        entry = self._entry(kind, destination, since)
        incident = entry["K3SWATCH_INCIDENT"]
        same = self.incidents.setdefault(destination, incident) == incident
        self.screen.fact("journal", entry["MESSAGE"], self.verify(same))

    def _receiver(self, since: float) -> None:
        """Show the entry that names the pod and the Service: their files are there only after the alarm."""
        entry = self._entry(Kind.CHANGED, PORTMAP_POD, since)
        who = (entry.get("K3SWATCH_POD"), entry.get("K3SWATCH_SERVICE"))
        right = who == (f"kube-system/{node.POD_NAME}", f"default/{node.SERVICE}")
        self.screen.fact("journal", entry["MESSAGE"], self.verify(right))

    def _restore(self) -> None:
        """Show the plan, command by command, and what --apply said it did."""
        planned, done = (self.stage.said.get(word) or {} for word in ("planned", "done"))
        steps = planned.get("steps", [])
        kinds = [step["kind"] for step in steps]
        lines = {f"{step['kind']}: {line}" for step in steps for line in step["commands"]}
        orphan = f"cause: k3s kubectl -n kube-system delete daemonset {node.DAEMON_SET}"
        right = kinds == ["talk", "cause", "pod", "rules", "flows", "prove"] and orphan in lines
        self.screen.fact("restore", "the plan, in its order:", self.verify(right))
        for step in steps:
            for line in step["commands"][:1]:
                self.screen.note(f"  {step['kind']:<6} {line}")
        removed = "; ".join(f"{each['chain']} handle {each['handle']}" for each in done.get("removed", []))
        here = {each["answer"] for each in done.get("answers", [])} == {"here"}
        text = f"--apply removed {removed}, ended {len(done.get('ended', []))} stuck connections; then: "
        text += f"{done.get('state')}, answered by a socket of this host on each address"
        right = here and done.get("state") == "delivered" and len(done.get("removed", [])) == 1
        self.screen.fact("restore", text, self.verify(right))

    def _history(self) -> None:
        """Show the whole story as the daemon's store has it, over the reboot."""
        with self.stage.lab.host.inside():
            text = self.stage.daemon.ask("history")
            found = json.loads(self.stage.daemon.ask("history", "--format", "json") or "{}")
        incidents = found.get("incidents", [])
        places = [each["findings"][0]["destination"] for each in incidents]
        ended = all(each["resolved_at"] for each in incidents)
        right = places == [PORTMAP_POD, OTHER_API, PORTMAP_POD] and ended and "undone by k3swatch" in text
        self.screen.fact("history", "the whole of it, from the daemon's store:", self.verify(right))
        for line in text.splitlines():
            self.screen.line("    " + clip(printable(line), WIDTH - 4))

    def _metrics(self, act: Act) -> None:
        """Show what Prometheus has scraped: the port's state, and our own connections, every one of them."""
        state = "delivered" if set(act.answers) == {API} else "diverted"

        def scraped(expression: str, value: float) -> bool:
            return any(float(row["value"][1]) == value for row in self.stage.query(expression))

        for expression, value in (
            (f'k3swatch_port_state{{port="k3s-api",state="{state}"}}', 1),
            ('sum(k3swatch_connections_total{port="k3s-api",outcome="diverted"})', self.diverted),
        ):
            if not value:
                continue
            right = holds(partial(scraped, expression, value))
            self.screen.fact("Prometheus", f"{expression} {value}", self.verify(right))

    def _alerts(self, act: Act) -> None:
        """Show what Alertmanager holds: one alert for each incident that is open, under the id the journal has.

        Prometheus' rules raise the same alert from the metrics, and end it a scrape later.
        """
        right = holds(lambda: self._firing().keys() == set(act.open))
        firing = self._firing()
        if not act.open:
            self.screen.fact("Alertmanager", f"no {DIVERTED}", self.verify(right))
        for destination in act.open:
            annotations = firing[destination]["annotations"] if destination in firing else {}
            # an alert that came from Prometheus' rules last has no incident id
            same = annotations.get("incident") in (None, self.incidents.get(destination))
            text = f"{DIVERTED}: {annotations.get('summary')}"
            self.screen.fact("Alertmanager", text, self.verify(right and same))


def _same(answer: str, expected: str) -> bool:
    """Of nobody at home the kernel says `unreachable` to who still waits after three seconds (arp(7))."""
    return answer == expected or {answer, expected} == {TIMEOUT, UNREACHABLE}


def holds(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    with suppress(SourceError):
        return bool(wait_until(condition, "", PATIENCE))
    return False


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the block once, as KeyboardInterrupt; while it cleans up they are ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """`k3swatch demo`: 0 when everything agreed, 1 when something did not or failed, 130 when interrupted.

    Raises NotPermitted when not root.
    """
    if os.geteuid() != 0:
        raise NotPermitted(
            "demo: makes network namespaces", hint="run as root; nothing outside them is touched"
        )
    screen = Screen(sys.stdout)
    begin = time.monotonic()
    try:
        with interruptible(), stage() as on:
            story = Story(screen, on)
            opening(screen, on)
            for number, act in enumerate(ACTS):
                story.play(number, act)
    except SourceError as error:
        screen.line()
        screen.fact("failed", str(error), False)
        for (
            text
        ) in error.hint.splitlines():  # all of a service's last words: a traceback is worth nothing in part
            screen.line(printable(text))
        return 1
    except KeyboardInterrupt:
        screen.line()
        screen.say("Interrupted. Everything it made is gone again.")
        return 130
    return curtain(screen, story, time.monotonic() - begin)


def opening(screen: Screen, on: Stage) -> None:
    """What runs."""
    screen.say(
        "A K3s-like host (192.168.1.233), a client on its LAN, another cluster (192.168.1.200) and a pod, in private "
        "network namespaces. Real: nf_tables, the CNI plugin portmap, journald, Prometheus, Alertmanager, every "
        "connection, and k3swatch. Stand-ins: the API servers, which say their name, and kube-proxy's rules."
    )
    screen.note("up: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in on.took.items()))
    screen.note(f"probe attached by: {on.daemon.probe() or 'nothing, this kernel refuses it'}")


def curtain(screen: Screen, story: Story, seconds: float) -> int:
    """The result in a few lines; the exit status."""
    screen.heading("What this was")
    if story.disagreements:
        screen.fact("result", f"{story.disagreements} of {story.checks} comparisons did not agree", False)
        return 1
    screen.say(
        "The port was taken by two programs, and once more after a reboot, and `ss`, `lsof` and `netstat` showed "
        "nothing of it: NAT acts before any socket is asked. k3swatch named each rule when it was committed, kept the "
        "second in view when the first was removed, and said what to remove so that none comes back."
    )
    alarm, all_clear = (max(delays, default=0) * 1000 for delays in (story.alarms, story.all_clears))
    screen.fact("result", f"{story.checks} of {story.checks} comparisons agreed, in {seconds:.0f} s")
    screen.fact("alarm", f"{alarm:.0f} ms at most from the commit of the rule to Alertmanager")
    screen.fact("all-clear", f"{all_clear:.0f} ms at most from its removal to Alertmanager")
    return 0
