"""An incident as the evaluator and the engine would make it, and the transitions around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k3swatch.incident.identity import incident_id
from k3swatch.model.finding import Finding, PathStep, PortVerdict
from k3swatch.model.incident import Change, Incident, Transition
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Family, Mechanism, State, Vantage

CHAIN = "CNI-DN-00ae1f04b10f949419f13"


class Make:
    """Builds model values with the seed's incident as the default."""

    port = ProtectedPort("k3s-api", 6443)
    external = (Vantage.EXTERNAL, "192.168.1.233")
    local = (Vantage.LOCAL, "127.0.0.1")

    def finding(
        self, vantage: Vantage = Vantage.EXTERNAL, address: str = "192.168.1.233", **fields: Any
    ) -> Finding:
        destination = fields.pop("destination", "10.42.0.244:6443")
        step = PathStep("ip", "nat", CHAIN, 15, f"tcp dport 6443 dnat to {destination}", None, 12)
        finding = Finding(
            State.DIVERTED, Mechanism.DNAT, vantage, Family.IP, (address,), destination, path=(step,)
        )
        return replace(finding, **fields)

    def incident(self, *findings: Finding, **fields: Any) -> Incident:
        findings = findings or (self.finding(), self.finding(*self.local))
        cause, opened = findings[0].cause, fields.get("opened_at", 1000.0)
        incident = Incident(
            incident_id("k3s-api", cause, opened),
            "k3s-api",
            "tcp/6443",
            "critical",
            findings[0].state,
            cause,
            findings,
            opened,
            opened,
        )
        defaults = {"committer": (4242, "iptables"), "generation": 42, "opened_at": opened}
        return replace(incident, **{**defaults, **fields})

    def verdict(self, *findings: Finding, **fields: Any) -> PortVerdict:
        return PortVerdict(self.port, findings, judged=(self.external, self.local), **fields)

    def transition(self, change: Change, incident: Incident | None = None, **fields: Any) -> Transition:
        incident = incident or self.incident()
        if change is Change.RESOLVED:
            incident = replace(incident, resolved_at=incident.resolved_at or incident.opened_at + 200)
        verdict = fields.pop("verdict", None)
        if verdict is None:
            verdict = self.verdict(*(() if change is Change.RESOLVED else incident.findings))
        return Transition(change, incident, verdict, fields.pop("at", 1000.0), **fields)


@pytest.fixture
def make() -> Make:
    return Make()
