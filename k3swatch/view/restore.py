"""The undo plan, and what was done of it, as text and as JSON. Pure; text that came from outside is escaped.

Commands are not: they are quoted for a shell already, and hold nothing that does not print.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k3swatch.model.finding import PortVerdict
from k3swatch.model.plan import Kept, Plan, Removal, Step, StepKind
from k3swatch.view import check
from k3swatch.view.escape import escape
from k3swatch.view.lines import coloured, wrap

SCHEMA = 1

Document = dict[str, Any]

NEVER = (
    "change https-listen-port",
    "iptables-save | iptables-restore",
    "nft flush ruleset",
    "k3s-killall.sh",
    "systemctl stop k3s",
)
_HEADS = {
    StepKind.TALK: "talk",
    StepKind.CAUSE: "cause",
    StepKind.CHECK: "check",
    StepKind.POD: "pod",
    StepKind.RULES: "rules",
    StepKind.FLOWS: "flows",
    StepKind.PROVE: "prove",
}


def text(verdict: PortVerdict, plan: Plan, colour: bool = False) -> str:
    """The plan, step by step, each with its commands."""
    state = coloured(verdict.state, verdict.state, colour)
    lines = [f"{plan.port.spec}: {state}"]
    lines += [f"  {check.finding_line(each)}" for each in verdict.findings if not each.restriction]
    if not plan.steps:
        return "\n".join([*lines, "Nothing takes it: nothing to undo."])
    lines += ["", "Undo, in this order (nothing was changed):"]
    for number, step in enumerate(plan.steps, 1):
        lines += ["", *_step(number, step)]
    lines += ["", *_local(plan)]
    lines += ["", *wrap(f"Never: {'; '.join(NEVER)}.", "", "  ", 4)]
    return "\n".join(lines)


def _step(number: int, step: Step) -> list[str]:
    head = f"{number} {_HEADS[step.kind]}"
    said = f"{step.text} Only if {step.when}." if step.when else step.text
    return [*wrap(said, f"{head:9}", " " * 9, 6), *(f"    {line}" for line in step.commands)]


def _local(plan: Plan) -> list[str]:
    """What --apply would do."""
    lines: list[str] = []
    if plan.removals:
        lines.append("`k3swatch restore --apply` deletes, in one transaction, and can put back:")
        lines += [f"    {removal_line(each)}" for each in plan.removals]
    for each in plan.kept:
        lines += wrap(f"left alone by --apply: {kept_line(each)}", "", "    ", 4)
    return lines or ["--apply has nothing to delete: only connections that are stuck."]


def removal_line(removal: Removal) -> str:
    """`ip nat CNI-DN-… handle 15: tcp dport 6443 dnat to … (portmap makes it again …)`."""
    place = f"handle {removal.handle}" if removal.key is None else "element"
    where = f"{removal.family} {escape(removal.table, 64)} {escape(removal.chain, 64)} {place}"
    notes = []
    if removal.back:
        notes.append(f"{removal.back.partition(',')[0]} puts it back{removal.back.partition(',')[2]}")
    if removal.wide:
        notes.append("it takes more than this port")
    return f"{where}: {escape(removal.text, 160)}" + (f" ({'; '.join(notes)})" if notes else "")


def kept_line(kept: Kept) -> str:
    """What is left alone and why."""
    return f"{escape(kept.text, 200)}: {escape(kept.why, 200)}"


def coming_back(removals: Iterable[Removal]) -> list[str]:
    """Who puts removed rules back and when, each once."""
    return list(dict.fromkeys(each.back for each in removals if each.back))


def document(verdict: PortVerdict, plan: Plan, generation: int | None) -> Document:
    """The plan as JSON (docs/restore.md)."""
    return {
        "schema": SCHEMA,
        "port": plan.port.spec,
        "state": plan.state,
        "generation": generation,
        "steps": [
            {
                "kind": step.kind,
                "text": step.text,
                "commands": list(step.commands),
                "when": step.when,
                "api": step.api,
            }
            for step in plan.steps
        ],
        "removals": [removal_document(each) for each in plan.removals],
        "kept": [{"what": each.text, "why": each.why} for each in plan.kept],
        "never": list(NEVER),
    }


def removal_document(removal: Removal) -> Document:
    """One rule or element."""
    return {
        "family": removal.family,
        "table": removal.table,
        "set" if removal.key is not None else "chain": removal.chain,
        "handle": removal.handle or None,
        "key": removal.key.hex() if removal.key is not None else None,
        "rule": removal.text,
        "comes_back": removal.back,
        "wide": removal.wide,
    }
