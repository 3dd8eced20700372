"""Explains a connection that was seen: which rule sent it where it went?"""

from __future__ import annotations

from dataclasses import replace

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.findings import findings
from k3swatch.evaluate.journey import outcomes
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import scene
from k3swatch.evaluate.programs import senders
from k3swatch.evaluate.steps import destination
from k3swatch.evaluate.walk import Walk
from k3swatch.model.finding import Finding
from k3swatch.model.flow import Flow
from k3swatch.model.flow import Outcome as FlowOutcome
from k3swatch.model.port import Host, ProtectedPort, family_of
from k3swatch.model.ruleset import Ruleset
from k3swatch.model.words import Evidence, Family, Mechanism, State, Vantage

SEEN = frozenset({Evidence.RULE, Evidence.FLOW})


def vantage_of(host: Host, flow: Flow) -> Vantage:
    """Where a connection started: from one of our own addresses it is a process of this host."""
    return Vantage.LOCAL if flow.source in host.local() or flow.source.is_loopback else Vantage.EXTERNAL


def explain_flow(ruleset: Ruleset, host: Host, port: ProtectedPort, flow: Flow) -> Finding:
    """The finding a diverted connection belongs to: by evaluating again with its own addresses.

    A connection no rule explains is a finding all the same, with mechanism `unexplained`. Raises only Interrupted.
    """
    family, vantage = family_of(flow.dialled), vantage_of(host, flow)
    view = scene(host, vantage, family, flow.protocol, source=flow.source, source_port=flow.source_port)
    try:
        ends = outcomes(Walk(ruleset), view, flow.dialled.packed, flow.dialled_port)
    except Interrupted:
        raise
    except (SourceError, DecodeError) as error:
        return unexplained(family, vantage, flow, f"the rules could not be read: {error}")
    lost = flow.outcome is FlowOutcome.DROPPED
    matching = [end for end in ends if _sends(end) and _leads_to(end, flow)]
    for end in sorted(matching, key=lambda end: (end.shadow is not None, (end.fate is Fate.MAPPED) == lost)):
        seen = replace(end, shadow=None)
        state = State.BLOCKED if lost and end.fate is not Fate.MAPPED else State.DIVERTED
        for finding in findings(ruleset, view, port, str(flow.dialled), [seen]):
            return replace(finding, state=state, certain=True, evidence=SEEN, conditions=())
    return _by_program(host, port, vantage, flow) or unexplained(
        family, vantage, flow, "no rule that can be read explains it"
    )


def _sends(end: Outcome) -> bool:
    """Whether it sends a connection elsewhere, if only to be refused there."""
    return end.fate is Fate.MAPPED or (end.packet is not None and end.packet.turned is not None)


def _leads_to(end: Outcome, flow: Flow) -> bool:
    target = end.target
    if target is None or not target.port_low <= flow.reached_port <= target.port_high:
        return False
    if end.mechanism in (Mechanism.REDIRECT, Mechanism.TPROXY):
        return True  # which of this host's addresses it ends at depends on the interface, or on the socket
    return len(target.low) == len(flow.reached.packed) and target.low <= flow.reached.packed <= target.high


def _by_program(host: Host, port: ProtectedPort, vantage: Vantage, flow: Flow) -> Finding | None:
    """A BPF program that can have sent it there, and no rule did: the same cause as before, and proven now."""
    candidates = senders(host, port, vantage, str(flow.dialled), given=bool(flow.listener))
    first = next((each for each in candidates if each.mechanism is Mechanism.BPF), None)
    if first is None or first.rule is None:
        return None
    several = (
        f"one of {len(candidates)} programs that can" if len(candidates) > 1 else "the only program that can"
    )
    given = "a socket on another port was given it" if flow.listener else "sent elsewhere without a rule"
    step = first.rule
    return replace(
        first,
        state=State.DIVERTED,
        destination=_reached(flow),
        conditions=(),
        certain=len(candidates) == 1,
        evidence=frozenset({Evidence.FLOW}),
        why=f"{given}, by {several}",
        anchor=(step.family, step.table, step.chain),  # so that it is the cause that is known already
    )


def _reached(flow: Flow) -> str:
    packed = flow.reached.packed
    return destination(Target(packed, packed, flow.reached_port, flow.reached_port), family_of(flow.dialled))


def unexplained(family: Family, vantage: Vantage, flow: Flow, why: str) -> Finding:
    """A diversion known only from the connection itself."""
    return Finding(
        State.DIVERTED,
        Mechanism.UNEXPLAINED,
        vantage,
        family,
        (str(flow.dialled),),
        destination=_reached(flow),
        certain=True,
        evidence=frozenset({Evidence.FLOW}),
        why=why,
    )
