"""What `check` prints: one line per port, one per finding. Text that came from outside is escaped."""

from __future__ import annotations

from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.words import UNRULED, Evidence, Mechanism
from k3swatch.view.escape import escape
from k3swatch.view.lines import clip, coloured, some
from k3swatch.view.place import toward, unruled
from k3swatch.view.who import sure, taken_by


def text(observation: Observation, colour: bool = False) -> str:
    """All ports in the order of the configuration, each with its findings below it."""
    lines: list[str] = []
    for verdict in observation.verdicts:
        lines.append(_port(verdict, observation, colour))
        lines += [f"  {finding_line(finding)}" for finding in verdict.findings]
    lines += [f"warning: {escape(warning)}" for warning in observation.warnings]
    return "\n".join(lines)


def _port(verdict: PortVerdict, observation: Observation, colour: bool) -> str:
    port, state = verdict.port, verdict.state
    name = "" if port.name == f"{port.protocol}-{port.port}" else f" ({port.name})"
    about = f"generation {observation.generation}" if observation.generation is not None else "unread"
    if verdict.unserved:
        about += ", nobody listens"
    return f"{port.spec}{name}: {coloured(state, state, colour)} ({about})"


def finding_line(finding: Finding) -> str:
    """One finding in one line, without its path: who, where to, by what, when."""
    parts = [f"{finding.state}{'' if finding.certain else ' (not certain)'}: {finding.vantage}"]
    parts.append(some(finding.addresses, 3) if finding.addresses else finding.family)
    if finding.destination:
        parts.append(f"{toward(finding)} {finding.destination}")
    if finding.mechanism not in (Mechanism.NONE, *UNRULED):
        parts.append(f"by {finding.mechanism}")
    if finding.conditions:
        parts.append("only " + " and ".join(escape(condition) for condition in finding.conditions))
    if finding.rule:
        taker = unruled(finding.rule)
        before = f"{where(finding.taking)}, then " if finding.refusing and finding.taking else ""
        parts.append(f"by {taker}" if taker else f"rule {before}{where(finding.rule)}")
    if finding.neutralised:
        parts.append("(neutralised by guard)")
    elif finding.shadowed:
        parts.append("(waits behind another rule)")
    if Evidence.FLOW in finding.evidence:
        parts.append("(seen)")
    if finding.culprit is not None and finding.culprit.receiver:
        parts.append(f"taken by {taken_by(finding.culprit, brief=True)} {sure(finding.culprit, brief=True)}")
    line = " ".join(parts)
    return f"{line}: {escape(finding.why)}" if finding.why else line


def where(step: PathStep) -> str:
    """`ip nat CNI-DN-8e53e6ce9e633f6853fe9 #15`."""
    table, chain = escape(clip(step.table, 64)), escape(clip(step.chain, 64))
    return f"{step.family} {table} {chain} #{step.handle}"
