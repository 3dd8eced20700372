"""One consistent answer about all protected ports: read, evaluate, see that nothing moved meanwhile.

In: a ruleset that can be re-read, a way to read the host, the ports. Out: an Observation, always. What cannot
be read becomes `unknown` with its reason, never `delivered`. Only NotPermitted is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from k3swatch.clock import Clock
from k3swatch.errors import DecodeError, Interrupted, NotPermitted, SourceError
from k3swatch.evaluate import explain_flow, judge
from k3swatch.evaluate.flows import unexplained, vantage_of
from k3swatch.model.finding import Finding, Observation, PortVerdict
from k3swatch.model.flow import Flow
from k3swatch.model.port import Address, Host, ProtectedPort, family_of
from k3swatch.model.ruleset import Ruleset
from k3swatch.model.words import Family, Mechanism, State, Vantage

# For a ruleset that is rewritten while it is read: a small one takes 2 ms, so more than two tries are rare. One
# that keeps changing for longer than PATIENCE seconds is unknown: somebody may be hiding a rule behind the noise.
TRIES, PATIENCE = 5, 3.0


class Refreshable(Ruleset, Protocol):
    """A ruleset that can be read again: the live one, or a snapshot, which never moves."""

    def refresh(self) -> None:
        """Start a new generation."""
        ...

    def check(self) -> None:
        """Raise Interrupted when the generation moved since `refresh`."""
        ...

    def forget(self) -> None:
        """Let go of what is large and can be read again."""
        ...

    def legacy_tables(self) -> tuple[str, ...]:
        """Tables of iptables-legacy that exist but could not be read, as `ip nat`."""
        ...


ReadHost = Callable[[], Host]


def observe(
    ruleset: Refreshable,
    read_host: ReadHost,
    ports: Sequence[ProtectedPort],
    clock: Clock,
    source: Address | None = None,
) -> Observation:
    """Everything known about `ports` at one generation, for everybody or for one `source` address alone.

    Raises NotPermitted only.
    """
    host: Host | None = None
    tries, until = 0, clock.monotonic() + PATIENCE
    while True:
        tries += 1
        try:
            ruleset.refresh()
            host = read_host()
            verdicts = judge(ruleset, host, ports, source)
            legacy = ruleset.legacy_tables()
            ruleset.check()
        except NotPermitted:
            raise
        except Interrupted as error:
            if tries >= TRIES and clock.monotonic() >= until:
                return unknown(ports, f"the ruleset kept changing while it was read: {error}", host)
        except (SourceError, DecodeError) as error:
            return unknown(ports, f"the ruleset could not be read: {error}", host)
        else:
            verdicts = tuple(_with_legacy(verdict, legacy) for verdict in verdicts)
            return Observation(verdicts, ruleset.generation, host.name, warnings=host.unreadable)


def unknown(ports: Sequence[ProtectedPort], why: str, host: Host | None = None) -> Observation:
    """What is said when nothing can be said: every port unknown, with the reason."""
    known = {family_of(address) for address in host.local()} if host else set()
    families = known or set(Family)
    findings = tuple(
        Finding(State.UNKNOWN, Mechanism.NONE, vantage, family, (), certain=False, why=why)
        for family in sorted(families)
        for vantage in Vantage
    )
    verdicts = tuple(PortVerdict(port, findings) for port in ports)
    return Observation(verdicts, None, host.name if host else "", warnings=(why,))


def seen_from(observation: Observation, vantage: Vantage) -> Observation:
    """The part of an observation that is about connections from `vantage`."""
    verdicts = tuple(
        replace(
            verdict,
            findings=tuple(finding for finding in verdict.findings if finding.vantage is vantage),
            judged=tuple(one for one in verdict.judged if one[0] is vantage),
        )
        for verdict in observation.verdicts
    )
    return replace(observation, verdicts=verdicts)


def _with_legacy(verdict: PortVerdict, tables: Sequence[str]) -> PortVerdict:
    """Rules that nf_tables does not show may divert what is dialled: the answer is unknown, and says so."""
    found: list[Finding] = []
    for family in Family:
        ours = [table for table in tables if table.partition(" ")[0] == family]
        why = f"iptables-legacy tables exist whose rules cannot be read: {', '.join(ours)}"
        for vantage in Vantage if ours else ():
            addresses = tuple(
                address
                for who, address in verdict.judged
                if who is vantage and (":" in address) == (family is Family.IP6)
            )
            if addresses:
                found.append(
                    Finding(State.UNKNOWN, Mechanism.NONE, vantage, family, addresses, certain=False, why=why)
                )
    return replace(verdict, findings=(*verdict.findings, *found)) if found else verdict


def explain(ruleset: Refreshable | None, host: Host, port: ProtectedPort, flow: Flow) -> Finding:
    """The finding that accounts for a diverted connection: with the rule, when one explains it.

    Never raises: a ruleset that cannot be read leaves the connection unexplained, and diverted all the same.
    """
    why = "the ruleset cannot be read now"
    for _ in range(TRIES):
        if ruleset is None:
            break
        try:
            try:
                ruleset.check()  # the same generation: what was read of it still holds
            except Interrupted:
                ruleset.refresh()
            finding = explain_flow(ruleset, host, port, flow)
            ruleset.check()
        except Interrupted as error:
            why = f"the ruleset kept changing while it was read: {error}"
        except (SourceError, DecodeError) as error:
            why = f"the ruleset could not be read: {error}"
            break
        else:
            return finding
    return unexplained(family_of(flow.dialled), vantage_of(host, flow), flow, why)
