"""What `explain` prints: for a tired person, on 80 columns and, for the usual incident, 24 lines.

First who lands where, then for each cause the rules in the order the kernel meets them, the last of which decides;
then what still arrives. When all of it does not fit, comments go first, but for the one that says most of its cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k3swatch.model.finding import Culprit, Finding, Observation, PathStep, PortVerdict
from k3swatch.model.words import UNRULED, Evidence, Mechanism, State, Vantage
from k3swatch.view.cure import cure
from k3swatch.view.escape import escape
from k3swatch.view.lines import WIDTH, clip, coloured, some, wrap
from k3swatch.view.place import toward
from k3swatch.view.who import receiver, sure, taken_by

HEIGHT = 23  # the prompt takes the last line
_BLIND_TOOLS = "ss, lsof and netstat cannot show this: rules act before any socket is asked."
_KINDS = {
    "socket": "listening sockets,",
    "bpf": "BPF program,",
    "tc": "tc action,",
    "module": "kernel module,",
    "ipvs": "IPVS virtual server,",
    "route": "routing,",
    "sysctl": "",
}
_FROM = {Vantage.EXTERNAL: "from outside", Vantage.LOCAL: "from this host"}


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much is told."""

    comments: bool
    blanks: bool
    hints: bool = True


def text(observation: Observation, colour: bool = False, height: int = HEIGHT) -> str:
    """All verdicts of the observation explained; with less detail when that makes it fit `height` lines."""
    for detail in (
        _Detail(True, True),
        _Detail(False, True),
        _Detail(False, False),
        _Detail(False, False, hints=False),
    ):
        lines = [
            line
            for verdict in observation.verdicts
            for line in _verdict(verdict, observation, detail, colour)
        ]
        if len(lines) <= height:
            break
    return "\n".join(lines)


def causes(verdict: PortVerdict) -> list[list[Finding]]:
    """The findings grouped by cause, those that act now before those that wait behind them."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in sorted(verdict.findings, key=lambda finding: (finding.shadowed, -finding.state.rank)):
        groups.setdefault(finding.cause, []).append(finding)
    return list(groups.values())


def _verdict(verdict: PortVerdict, observation: Observation, detail: _Detail, colour: bool) -> list[str]:
    port, state = verdict.port, verdict.state
    name = "" if port.name == f"{port.protocol}-{port.port}" else f" ({port.name})"
    host = f" on {escape(observation.host, 30)}" if observation.host else ""
    notes = ["no process listens"] if verdict.unserved else []
    notes += [] if observation.generation is None else [f"generation {observation.generation}"]
    lines = [f"{port.spec}{name}{host} is {coloured(state.upper(), state, colour)}"]
    lines[0] += f" ({', '.join(notes)})" if notes else ""
    blank = [""] if detail.blanks else []
    groups = causes(verdict)
    for number, group in enumerate(groups, 1):
        lines += blank + _cause(group, f"[{number}] " if len(groups) > 1 else "", detail)
    unaffected = _unaffected(verdict, lines=2 if detail.hints else 1)
    lines += blank + unaffected if unaffected else []
    if detail.hints and any(map(_hidden, verdict.findings)):
        lines.append(_BLIND_TOOLS)
    lines += [
        line for warning in observation.warnings for line in wrap(escape(warning), "Warning: ", "  ", 2)
    ]
    return lines


def _hidden(finding: Finding) -> bool:
    """Whether what people usually ask does not show it."""
    acts = finding.state is State.DIVERTED and finding.rule is not None
    return acts and (finding.mechanism not in UNRULED or finding.mechanism is Mechanism.IPVS)


def _cause(group: Sequence[Finding], number: str, detail: _Detail) -> list[str]:
    acting = [finding for finding in group if not finding.shadowed]
    waiting = [finding for finding in group if finding.shadowed]
    lines = _headline(group, number)
    taken = receiver(group)
    if taken is not None:
        lines += _taken(taken, brief=not detail.blanks)
        remedy = next((text for finding in group if (text := cure(finding))), None)
        lines += wrap(escape(remedy), "    ", "    ", 4) if remedy else []
    elif not detail.comments:
        lines += [clip(f'  "{escape(comment)}"', WIDTH) for comment in _telling_comment(group[0])]
    neutral = [finding for finding in waiting if finding.neutralised]
    waiting = [finding for finding in waiting if not finding.neutralised]
    heads = (("for", acting), ("next in line for", waiting), ("neutralised by guard for", neutral))
    for who, findings in heads:
        if findings:
            lines += wrap(f"{who} {'; '.join(_whom(findings))}", "  ", "    ", 3)
    why = next((finding.why for finding in group if finding.why), None)
    if why:
        lines += wrap(escape(why), "  ", "    ", 3)
    told: list[Finding] = []
    for finding in group:
        if finding.path and not any(_places(finding.path[1:]) == _places(one.path[1:]) for one in told):
            twins = [one for one in group if _places(one.path[1:]) == _places(finding.path[1:])]
            lines += _path(finding.path, {_place(one.path[0]): one for one in twins}.values(), detail)
            told.append(finding)
    return lines


def _taken(culprit: Culprit, brief: bool) -> list[str]:
    lines: list[str] = []
    for most in range(len(culprit.sources) + 1 if brief else 1):  # in brief: as many sources as cost no line
        said = f"taken by: {taken_by(culprit, brief)} {sure(culprit, most=most if brief else 16)}"
        wrapped = wrap(said, "  ", "    ", 4)
        if not lines or len(wrapped) == len(lines):
            lines = wrapped
    if culprit.forwards and not brief:
        lines += wrap(f"which sends it on to {escape(culprit.forwards, 80)}", "    ", "    ", 1)
    return lines + [line for note in culprit.notes for line in wrap(escape(note), "    ", "    ", 2)]


def _headline(group: Sequence[Finding], number: str) -> list[str]:
    first = group[0]
    target = f" {toward(first)} {first.destination}" if first.destination else ""
    how = "" if first.mechanism is Mechanism.NONE else f" by {first.mechanism}"
    notes = []
    if not all(finding.certain for finding in group) and first.state is not State.UNKNOWN:
        notes.append("not certain")
    if first.rule is not None and first.rule.packets is not None:
        notes.append(f"{first.rule.packets} packets so far")
    if any(Evidence.FLOW in finding.evidence for finding in group):
        notes.append("seen for real")
    note = f" ({'; '.join(notes)})" if notes else ""
    return wrap(f"{number}{first.state}{target}{how}{note}", "", "    ", 2)


def _telling_comment(finding: Finding) -> list[str]:
    """The comment on the way into the chain that belongs to whoever did it, else the last one: at most one."""
    owner = finding.anchor
    for before, step in zip(finding.path, finding.path[1:], strict=False):
        if (step.family, step.table, step.chain) == owner and before.comment:
            return [before.comment]
    return [step.comment for step in finding.path if step.comment][-1:]


def _whom(findings: Iterable[Finding]) -> list[str]:
    """`10.42.0.1 from outside, only from 10.42.0.0/24`: one entry for each set of addresses and conditions."""
    dialled: dict[tuple[Vantage, tuple[str, ...]], list[str]] = {}
    for finding in findings:
        dialled.setdefault((finding.vantage, finding.conditions), []).extend(
            finding.addresses or (f"every {finding.family} address",)
        )
    where: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (vantage, conditions), addresses in dialled.items():
        where.setdefault((tuple(_telling(addresses)), conditions), []).append(_FROM[vantage])
    return [
        f"{some(addresses, 4)} {' and '.join(vantages)}"
        + (f", only {' and '.join(escape(one, 200) for one in conditions)}" if conditions else "")
        for (addresses, conditions), vantages in where.items()
    ]


def _telling(addresses: Iterable[str]) -> list[str]:
    """Each once; loopback last but one, link-local last: few dial those."""
    return sorted(dict.fromkeys(addresses), key=lambda a: (a.startswith("fe80:"), a in ("::1", "127.0.0.1")))


def _place(step: PathStep) -> tuple[str, str, str, int]:
    return (step.family, step.table, step.chain, step.handle)


def _places(path: Iterable[PathStep]) -> list[tuple[str, str, str, int]]:
    return [_place(step) for step in path]


def _path(path: Sequence[PathStep], entries: Iterable[Finding], detail: _Detail) -> list[str]:
    """The rules in their order. `entries` are the ways in, where several hooks lead to the same chain."""
    lines: list[str] = []
    table: tuple[str, str] | None = None
    for index, step in enumerate(path):
        if table != (step.family, step.table):
            table = (step.family, step.table)
            lines.append(f"  {_KINDS.get(step.family, f'table {step.family}')} {escape(step.table, 64)}")
        mark = "  > " if index == len(path) - 1 else "    "
        head, rule = f"{mark}{escape(step.chain, 40)} #{step.handle}", escape(step.rule)
        if len(head) + 2 + len(rule) <= WIDTH:
            lines.append(f"{head}  {rule}")
        else:
            lines += [clip(head, WIDTH), *wrap(rule, "        ", "        ", 2)]
        if index == 0:
            for other in entries:
                if _place(other.path[0]) != _place(step):
                    entry = f"{escape(other.path[0].chain, 40)} #{other.path[0].handle}"
                    lines.append(f"    {entry}  the same, for connections {_FROM[other.vantage]}")
        if step.comment and detail.comments:
            lines.append(clip(f'        "{escape(step.comment)}"', WIDTH))
    return lines


def _unaffected(verdict: PortVerdict, lines: int) -> list[str]:
    """What of the judged addresses no acting finding names."""
    left: dict[Vantage, list[str]] = {}
    for vantage, address in verdict.judged:
        family = "ip6" if ":" in address else "ip"
        taken = any(
            finding.vantage is vantage
            and not finding.shadowed
            and (address in finding.addresses or (not finding.addresses and finding.family == family))
            for finding in verdict.findings
        )
        if not taken:
            left.setdefault(vantage, []).append(address)
    if not left:
        return []
    if not verdict.findings:
        return [f"Rules let every connection through: {len(verdict.judged)} ways in were tried."]
    parts = [f"{some(_telling(addresses), 1)} {_FROM[vantage]}" for vantage, addresses in left.items()]
    return wrap(f"Unaffected: {'; '.join(parts)}", "", "  ", lines)
