"""What `restore --apply` did, as text and as JSON. Pure; text that came from outside is escaped."""

from __future__ import annotations

import shlex
from typing import Any

from k3swatch.model.flow import Flow
from k3swatch.model.plan import Done, StepKind
from k3swatch.view import check
from k3swatch.view.escape import escape
from k3swatch.view.lines import coloured, wrap
from k3swatch.view.restore import SCHEMA, coming_back, kept_line, removal_document, removal_line

MOST = 8  # connections named one by one


def text(done: Done, colour: bool = False) -> str:
    """What was removed, what is left, who answers, and the way back."""
    lines: list[str] = []
    if done.file is None:
        lines.append("No rule was removed.")
    else:
        lines.append(f"Removed in one transaction, after all of it was saved to {escape(done.file, 300)}:")
        lines += [f"    {removal_line(each)}" for each in done.removed]
    lines += _connections(done)
    for each in done.left.kept:
        lines += wrap(f"left alone: {kept_line(each)}", "", "    ", 4)
    port = done.left.port
    lines += ["", f"{port.spec} now: {coloured(done.after.state, done.after.state, colour)}"]
    lines += [f"  {check.finding_line(each)}" for each in done.after.findings if not each.restriction]
    lines += [f"  {address:39} {answer}" for address, answer in done.answers]
    for back in coming_back(done.removed):
        who, _, when = back.partition(", ")
        lines += wrap(
            f"! {who} puts it back {when}: do the rest of the plan, k3swatch restore {port.spec}", "", "  ", 4
        )
    if any(step.kind in (StepKind.CAUSE, StepKind.RULES) for step in done.left.steps):
        lines += ["", f"Not all of it is gone: k3swatch restore {port.spec} says what to do."]
    if done.file is not None:
        lines += [
            "",
            f"To put it all back: k3swatch restore --rollback {shlex.quote(escape(done.file, 300))}",
        ]
    return "\n".join(lines)


def document(done: Done) -> dict[str, Any]:
    """The same as JSON (docs/restore.md)."""
    return {
        "schema": SCHEMA,
        "port": done.left.port.spec,
        "file": done.file,
        "removed": [removal_document(each) for each in done.removed],
        "ended": [_flow(each) for each in done.ended],
        "ended_error": done.unended,
        "state": done.after.state,
        "kept": [{"what": each.text, "why": each.why} for each in done.left.kept],
        "answers": [{"address": address, "answer": answer.name.lower()} for address, answer in done.answers],
        "comes_back": coming_back(done.removed),
    }


def rolled_back(port: str, count: int, there: int) -> str:
    """What --rollback did."""
    also = f", {there} were there already" if there else ""
    return f"{escape(port, 32)}: {count} put back where they were{also}. k3swatch check says what that means."


def _connections(done: Done) -> list[str]:
    if done.unended is not None:
        return [f"Connections that are stuck could not be looked for: {escape(done.unended, 200)}"]
    lines = [f"Connections ended that were stuck elsewhere: {len(done.ended)}"] if done.ended else []
    return lines + [f"    {_words(each)}" for each in done.ended[:MOST]]


def _words(flow: Flow) -> str:
    reached = f"[{flow.reached}]" if flow.reached.version == 6 else str(flow.reached)
    return f"{flow.source} to {flow.dialled}, answered by {reached}:{flow.reached_port}"


def _flow(flow: Flow) -> dict[str, Any]:
    return {
        "source": str(flow.source),
        "source_port": flow.source_port,
        "dialled": str(flow.dialled),
        "reached": str(flow.reached),
        "reached_port": flow.reached_port,
    }
