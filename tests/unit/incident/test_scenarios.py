"""Plays the stories in tests/scenarios (their README explains the words) and compares every transition."""

from __future__ import annotations

import ipaddress
import shlex
from pathlib import Path

import pytest

from k3swatch.incident.engine import Engine
from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.incident import Transition
from k3swatch.model.port import Allow, ProtectedPort
from k3swatch.model.words import Evidence, Family, Mechanism, Protocol, State, Vantage

STORIES = sorted((Path(__file__).parents[2] / "scenarios").glob("*.txt"))
ORDINALS = ("first", "second", "third")


def options(words: list[str]) -> tuple[dict[str, str], set[str]]:
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    return pairs, {word for word in words if "=" not in word}


class Story:
    def __init__(self) -> None:
        self.engine = Engine()
        self.port = ProtectedPort("none", 1)
        self.now = 0.0
        self.generation = 0
        self.findings: list[Finding] | None = None
        self.told: list[Transition] = []
        self.expected: list[list[str]] = []
        self.ids: list[str] = []

    def play(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            words = shlex.split(line, comments=True)
            if not words:
                continue
            try:
                if words[0] not in ("see", "expect") and self.findings is not None:
                    self.observe(tuple(self.findings))
                if words[0] in ("at", "restart"):
                    self.settle()
                if words[0] == "expect" and self.findings is not None:
                    self.observe(tuple(self.findings))
                getattr(self, f"do_{words[0]}")(*words[1:])
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line}\n{error}") from error
        if self.findings is not None:
            self.observe(tuple(self.findings))
        self.settle()

    def observe(self, findings: tuple[Finding, ...], **fields: object) -> None:
        self.findings = None
        self.generation += 1
        verdict = PortVerdict(self.port, findings, unserved=bool(fields.get("unserved")))
        verdicts = () if fields.get("unwatched") else (verdict,)
        generation = None if fields.get("unreadable") else self.generation
        self.told += self.engine.observe(Observation(verdicts, generation), self.now)

    def settle(self) -> None:
        """Every transition since the last block was expected, and nothing else was told."""
        told = [
            f"{transition.change} {transition.incident.findings[0].destination or '-'}"
            for transition in self.told
        ]
        assert told == [f"{words[0]} {words[1]}" for words in self.expected], f"told: {told}"
        for transition, (_, _, *rest) in zip(self.told, self.expected, strict=True):
            pairs, flags = options(rest)
            incident = transition.incident
            if incident.id not in self.ids:
                self.ids.append(incident.id)
            for flag in flags:
                assert self.ids.index(incident.id) == ORDINALS.index(flag), f"incident is not the {flag}"
            if "port" in pairs:
                assert transition.verdict.state == pairs["port"]
            for name in ("flaps", "connections"):
                if name in pairs:
                    assert getattr(incident, name) == int(pairs[name]), name
            assert transition.at == self.now
        self.told, self.expected = [], []

    def do_port(self, name: str, spec: str, *words: str) -> None:
        pairs, _ = options(list(words))
        protocol, number = spec.split("/")
        allow = (Allow(destination=ipaddress.ip_network(pairs["allow"])),) if "allow" in pairs else ()
        self.port = ProtectedPort(name, int(number), Protocol(protocol), allow=allow)

    def do_at(self, when: str) -> None:
        self.now = float(when)

    def do_see(self, state: str, mechanism: str, *words: str) -> None:
        rest = list(words)
        destination = rest[1] if rest[:1] == ["to"] else None
        pairs, flags = options(rest[2:] if destination else rest)
        found = []
        for vantage in Vantage:
            if vantage in pairs:
                found.append(
                    Finding(
                        State(state),
                        Mechanism(mechanism),
                        vantage,
                        Family.IP,
                        tuple(pairs[vantage].split(",")),
                        destination,
                        conditions=(pairs["if"],) if "if" in pairs else (),
                        certain="uncertain" not in flags,
                        shadowed="shadowed" in flags,
                        path=path(pairs, destination),
                        why=pairs.get("why"),
                    )
                )
        assert found, "a finding needs external= or local="
        self.findings = [*(self.findings or []), *found]

    def do_delivered(self) -> None:
        self.observe(())

    def do_unserved(self) -> None:
        self.observe((), unserved=True)

    def do_unreadable(self) -> None:
        self.observe((), unreadable=True)

    def do_unwatched(self) -> None:
        self.observe((), unwatched=True)

    def do_flow(self, destination: str, *words: str) -> None:
        pairs, _ = options(list(words))
        host, port = destination.rsplit(":", 1)
        mechanism = Mechanism.DNAT if "chain" in pairs else Mechanism.UNEXPLAINED
        mechanism = Mechanism(pairs.get("by", mechanism))
        place = (*pairs["chain"].split("/"),) if mechanism is Mechanism.BPF else ()
        finding = Finding(
            State.DIVERTED,
            mechanism,
            Vantage.EXTERNAL,
            Family.IP,
            ("192.168.1.233",),
            destination,
            evidence=frozenset({Evidence.FLOW}),
            path=path(pairs, destination),
            anchor=(place[0], place[1], place[2]) if place else None,
        )
        flow = Flow(
            Protocol.TCP,
            ipaddress.ip_address("192.168.1.7"),
            40000,
            ipaddress.ip_address("192.168.1.233"),
            self.port.port,
            ipaddress.ip_address(host),
            int(port),
            Outcome.DIVERTED,
            float(pairs.get("when", self.now)),
            count=int(pairs.get("count", "1")),
        )
        self.told += self.engine.flow(self.port.name, finding, flow, self.now)

    def do_tick(self) -> None:
        self.told += self.engine.tick(self.now)

    def do_restart(self) -> None:
        self.engine = Engine(self.engine.incidents)

    def do_expect(self, *words: str) -> None:
        self.expected.append(list(words))

    def do_state(self, state: str) -> None:
        assert self.engine.observation.state == state

    def do_open(self, count: str) -> None:
        assert len(self.engine.incidents) == int(count)

    def do_deadline(self, when: str) -> None:
        assert self.engine.deadline() == (None if when == "none" else pytest.approx(float(when)))


def path(pairs: dict[str, str], destination: str | None) -> tuple[PathStep, ...]:
    if "chain" not in pairs:
        return ()
    family, table, chain = pairs["chain"].split("/")
    rule = pairs.get("rule", f"tcp dport 6443 dnat to {destination}" if destination else "drop")
    packets = int(pairs["packets"]) if "packets" in pairs else None
    return (PathStep(family, table, chain, int(pairs.get("handle", "15")), rule, None, packets),)


@pytest.mark.parametrize("file", STORIES, ids=lambda file: file.stem)
def test_scenario(file: Path) -> None:
    Story().play(file.read_text())


def test_there_are_stories() -> None:
    assert len(STORIES) > 12


def test_a_story_can_fail() -> None:
    with pytest.raises(AssertionError, match="told: "):
        Story().play("port p tcp/6443\nat 0\nsee diverted dnat to 1.2.3.4:5 external=1.1.1.1\n")
