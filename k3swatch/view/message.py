"""Transitions in words: the line a tired person reads at 3 a.m., and the longer text of an alert. Pure.

All text that came from the kernel or from a container goes through `escape`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from k3swatch.model.finding import Culprit, Finding, PathStep, PortVerdict
from k3swatch.model.incident import Change, Incident, Transition
from k3swatch.model.words import Mechanism, State, Vantage
from k3swatch.view.cure import cure
from k3swatch.view.escape import escape
from k3swatch.view.place import toward, unruled
from k3swatch.view.ways import works
from k3swatch.view.who import COMMITTED, committed, receiver, sure, taken_by

TEXT = 200  # characters of a rule or a reason
DROPS = {  # of enum skb_drop_reason, what is usual behind a diversion
    "NEIGH_FAILED": "nobody has that address: no answer to ARP",
    "NETFILTER_DROP": "by a rule",
    "IP_OUTNOROUTES": "no route",
    "IP_RPFILTER": "reverse path filter",
    "NO_SOCKET": "nobody listens",
}
SHOWN = 3  # addresses, conditions: so many are named, the rest counted

WORKS = (
    "What usually still works: kubectl --kubeconfig /var/lib/rancher/k3s/server/cred/admin.kubeconfig "
    "(https://127.0.0.1:6444, kube-apiserver's own address)."
)


def severity(findings: Iterable[Finding], port_severity: str) -> str:
    """How loud: the port's own severity; `warning` for what is unknown or uncertain; `info` for what is no alarm:
    a cause that waits behind another, a block that meets only some."""
    active = [finding for finding in findings if not finding.shadowed and not finding.restriction]
    if not active:
        return "info"
    if any(finding.certain and finding.state is not State.UNKNOWN for finding in active):
        return port_severity
    return port_severity if port_severity == "info" else "warning"


def severity_of(incident: Incident) -> str:
    """How loud an incident is."""
    return severity(incident.findings, incident.severity)


def message(transition: Transition) -> str:
    """One line: which port, what became of it, for whom, by which rule, by whose hand."""
    incident = transition.incident
    subject = f"{incident.spec} ({escape(incident.port, 64)})"
    if transition.change is Change.RESOLVED:
        return (
            f"{subject} is no longer {_short(incident)}{_removed(transition)}: {_after(transition.verdict)}"
        )
    if transition.change is Change.FLAPPING:
        return (
            f"{subject} is {_short(incident)} again and again ({incident.flaps} times){_how(incident)}; "
            "no more is told until it has been stable for a minute"
        )
    if transition.change is Change.CONFIRMED:
        seen = _connections(incident.connections)
        lost = f", and {dropped(incident)}" if incident.drops else ""
        return f"{subject} is {_short(incident)}, and this is real: {seen} went there{lost}{_how(incident)}"
    if all(finding.shadowed for finding in incident.findings):
        lead = f"{subject}: a second cause waits behind the first and would take over{_target(incident)}"
        return f"{lead}{_whom(incident)}{_how(incident)}"
    if _only_drops(transition):
        return f"{subject} is still {_short(incident)}: connections were {dropped(incident)}"
    if _only_ways(transition):
        return f"{subject} is still {_short(incident)}; {works(incident.ways)}"
    learned = _learned(transition)
    if learned is not None:
        return f"{subject} is still {_short(incident)}: taken by {taken_by(learned)} {sure(learned)}"
    if transition.change is Change.CHANGED:
        before = transition.previous.state if transition.previous is not None else incident.state
        if before is not incident.state:
            return f"{subject} was {before.upper()} and is {_short(incident)} now{_whom(incident)}{_how(incident)}"
        return f"{subject} is still {_short(incident)}, now{_whom(incident) or ' otherwise'}{_how(incident)}"
    again = " again" if incident.flaps else ""
    lost = f"; connections were {dropped(incident)}" if incident.drops else ""
    return f"{subject} {_verb(incident)}{again}{_target(incident)}{_whom(incident)}{_how(incident)}{lost}"


def summary(incident: Incident) -> str:
    """`tcp/6443 (k3s-api) is DIVERTED to 10.42.0.244:6443`."""
    return f"{incident.spec} ({escape(incident.port, 64)}) {_verb(incident)}{_target(incident)}"


def description(incident: Incident) -> str:
    """Some lines for an alert: the sentence, the path of rules, who, and what still works."""
    first = incident.findings[0]
    lines = [f"{incident.spec} {_verb(incident)}{_target(incident)}{_whom(incident)}{_how(incident)}."]
    lines += [
        f"{number}. {step.family} {escape(step.table, 64)} {escape(step.chain, 64)} handle {step.handle}: "
        f"{escape(step.rule, TEXT)}"
        for number, step in enumerate(first.path[:12], 1)
    ]
    who, by = receiver(incident.findings), committed(incident.findings, 2 * COMMITTED)
    if who is not None:
        lines.append(f"Taken by: {taken_by(who)} {sure(who)}.")
        lines += [f"It sends them on to {escape(who.forwards, TEXT)}."] if who.forwards else []
        lines += [f"But: {escape(note, TEXT)}." for note in who.notes]
    remedy = next((text for finding in incident.findings if (text := cure(finding))), None)
    lines += [f"What ends it: {escape(remedy, 2 * TEXT)}"] if remedy else []
    if by:
        lines.append(f"{by[0].upper()}{by[1:]}.")
    if incident.drops:
        lines.append(f"Connections were {dropped(incident)}.")
    if incident.ways:
        said = works(incident.ways)
        lines.append(f"{said[0].upper()}{said[1:]}.")
    elif incident.state is not State.UNKNOWN and incident.spec == "tcp/6443":
        lines.append(WORKS)
    return "\n".join(lines)


def dropped(incident: Incident) -> str:
    """`dropped on the way there: NEIGH_FAILED (nobody answers ARP)`; empty when none was seen to be."""
    words = ", ".join(
        escape(why, 48) + (f" ({DROPS[why]})" if why in DROPS else "") for why in incident.drops
    )
    return f"dropped on the way there: {words}" if words else ""


def pod(incident: Incident) -> str | None:
    """Who receives the traffic, as far as attribution knows: the pod, else the container."""
    who = receiver(incident.findings)
    return who.pod or who.container if who is not None else None


def whom(findings: Sequence[Finding]) -> str:
    """`192.168.1.233 from outside and 127.0.0.1 from this host`; empty when no address is named."""
    parts = []
    for vantage, words in ((Vantage.EXTERNAL, "from outside"), (Vantage.LOCAL, "from this host")):
        addresses = list(dict.fromkeys(a for f in findings if f.vantage is vantage for a in f.addresses))
        if addresses:
            parts.append((_some(addresses), words))
    if len(parts) == 2 and parts[0][0] == parts[1][0]:
        return f"{parts[0][0]} {parts[0][1]} and {parts[1][1]}"
    return " and ".join(f"{addresses} {words}" for addresses, words in parts)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    for size, unit, small, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def _learned(transition: Transition) -> Culprit | None:
    """The receiver, when that it became known is all that changed."""
    before = transition.previous
    who = receiver(transition.incident.findings)
    if transition.change is not Change.CHANGED or before is None or who is None:
        return None
    now, then = (_but_culprit(each) for each in (transition.incident, before))
    return who if now == then and receiver(before.findings) != who else None


def _only_ways(transition: Transition) -> bool:
    """Whether all that changed is which paths to the API work."""
    before, now = transition.previous, transition.incident
    if transition.change is not Change.CHANGED or before is None or not now.ways:
        return False
    return before.ways != now.ways and _seen(before) == _seen(now)


def _only_drops(transition: Transition) -> bool:
    """Whether the news is that connections were dropped, and nothing else."""
    before, now = transition.previous, transition.incident
    if transition.change is not Change.CHANGED or before is None or before.drops == now.drops:
        return False
    return _seen(before) == _seen(now)


def _seen(incident: Incident) -> list[Finding]:
    """Findings with their receivers, as far as words tell them apart."""
    return [
        replace(
            each,
            culprit=each.culprit and replace(each.culprit, process=None, committed=None),
            path=(),
            evidence=frozenset(),
        )
        for each in incident.findings
    ]


def _but_culprit(incident: Incident) -> list[Finding]:
    """Findings as far as words tell them apart."""
    return [replace(each, culprit=None, path=(), evidence=frozenset()) for each in incident.findings]


def _some(items: Sequence[str]) -> str:
    shown = ", ".join(escape(item, 80) for item in items[:SHOWN])
    return shown if len(items) <= SHOWN else f"{shown} and {len(items) - SHOWN} more"


def _connections(count: int) -> str:
    return f"{count} connections" if count != 1 else "1 connection"


def _certain(incident: Incident) -> bool:
    return incident.state is State.UNKNOWN or any(finding.certain for finding in incident.findings)


def _verb(incident: Incident) -> str:
    return f"{'is' if _certain(incident) else 'may be'} {incident.state.upper()}"


def destinations(findings: Iterable[Finding]) -> list[str]:
    """Where connections go, each once, in the order of the findings."""
    return list(dict.fromkeys(finding.destination for finding in findings if finding.destination))


def _target(incident: Incident) -> str:
    found = destinations(incident.findings)
    return f" {toward(incident.findings[0])} {_some(found)}" if found else ""


def _short(incident: Incident) -> str:
    maybe = "" if _certain(incident) else "(maybe) "
    return f"{maybe}{incident.state.upper()}{_target(incident)}"


def _whom(incident: Incident) -> str:
    words = whom(incident.findings)
    conditions = list(dict.fromkeys(condition for f in incident.findings for condition in f.conditions))
    only = f" (only {_some(conditions)})" if conditions else ""
    return f" for {words}{only}" if words else only


def _how(incident: Incident) -> str:
    """`: rule "..." in ip nat CNI-DN-00ae handle 15, by iptables (pid 4242)`."""
    finding = incident.findings[0]
    why = next((each.why for each in incident.findings if each.why), None)
    step = finding.rule
    if finding.mechanism is Mechanism.UNEXPLAINED:
        words = ": no rule explains it" + (f" ({escape(why, TEXT)})" if why else "")
    elif step is None:
        words = f": {escape(why, TEXT)}" if why else ""
    elif (words := f": {unruled(step) or ''}") != ": ":
        words += f" ({escape(why, TEXT)})" if why else ""
    else:
        words = f": {_rule(step)}"
        if finding.refusing and finding.taking is not None:
            words = f": {_rule(finding.taking)}, then {_rule(step)}"
        words += f" ({escape(why, TEXT)})" if why else ""
    who = receiver(incident.findings)
    if who is not None:
        words += f", taken by {taken_by(who, brief=True)}"
    by = committed(incident.findings)
    if by:
        words += f", {by}"
    elif incident.committer:
        words += f", committed by {escape(incident.committer[1], 32)} (pid {incident.committer[0]})"
    return words


def _rule(step: PathStep) -> str:
    place = f"{step.family} {escape(step.table, 64)} {escape(step.chain, 64)} handle {step.handle}"
    return f'rule "{escape(step.rule, TEXT)}" in {place}'


def _removed(transition: Transition) -> str:
    incident = transition.incident
    lasted = duration((incident.resolved_at or transition.at) - incident.opened_at)
    facts = (
        f" (after {lasted}"
        + (f", {_connections(incident.connections)}" if incident.connections else "")
        + ")"
    )
    if transition.committer is None:
        return facts
    return f"{facts}, undone by {escape(transition.committer[1], 32)} (pid {transition.committer[0]})"


def _after(verdict: PortVerdict) -> str:
    state = verdict.state
    if state in (State.DIVERTED, State.BLOCKED, State.UNKNOWN):
        worst = next(
            finding for finding in verdict.findings if finding.state is state and not finding.shadowed
        )
        target = f" to {escape(worst.destination, 80)}" if worst.destination else ""
        why = f": {escape(worst.why, TEXT)}" if worst.why and state is State.UNKNOWN else ""
        return f"but the port is {state.upper()}{target} by another cause{why}"
    if not verdict.judged:
        return "the port is not watched any more"
    if state is State.UNSERVED:
        return "the rules let connections through again, but nobody listens"
    held = len({finding.cause for finding in verdict.findings if finding.neutralised})
    if held:
        return f"the port is delivered again, while the guard neutralises {held} cause{'s' * (held > 1)}"
    return "the port is delivered again"
