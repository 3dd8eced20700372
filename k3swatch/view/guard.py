"""How the guard of a port is, as text and as JSON. Pure; text that came from outside is escaped."""

from __future__ import annotations

from typing import Any

from k3swatch.model.plan import Guard
from k3swatch.view import check
from k3swatch.view.document import finding
from k3swatch.view.escape import escape
from k3swatch.view.lines import coloured, some, wrap

SCHEMA = 1

LIMITS = (
    "connections that exist already (k3swatch restore --apply ends those that are elsewhere)",
    "drops and rejects",
    "rules that overwrite the destination without NAT, and notrack",
    "IPVS",
    "BPF programs (Cilium)",
    "another machine that answers for this address (ARP, BGP)",
    "a reboot: it is not made again by itself",
)


def text(found: Guard, changed: bool | None, colour: bool = False) -> str:
    """Whether it is on and first, what it neutralises, and what it cannot do. `changed`: what `on` or `off` did."""
    port, state = found.port, found.verdict.state
    did = "" if changed is None else " (changed now)" if changed else " (nothing to change)"
    head = f"{port.spec}: the guard is {'on' if found.on else 'off'}{did}"
    lines = [f"{head}, the port is {coloured(state, state, colour)}"]
    lines += [f"  {check.finding_line(each)}" for each in found.verdict.findings if not each.restriction]
    if found.on:
        before = some([escape(each, 120) for each in found.before], 3)
        place = f"priority {found.priority}, in prerouting and output, "
        if found.before:
            lines += wrap(
                f"{place}but not before: {before}. `k3swatch guard on` again goes lower.", "  ", "  ", 4
            )
        else:
            lines.append(f"  {place}before every other nat chain")
        lines += wrap(f"It cannot help against: {'; '.join(LIMITS)}.", "  ", "  ", 8)
        lines += wrap(
            "A Service on this port of this host's own addresses does not work while it is on.", "  ", "  ", 2
        )
    if found.foreign:
        lines += wrap(
            f"table inet k3swatch_guard: {escape(found.foreign, 200)}; it was left alone", "  ", "  ", 2
        )
    return "\n".join(lines)


def document(found: Guard, changed: bool | None) -> dict[str, Any]:
    """The same as JSON (docs/guard.md)."""
    return {
        "schema": SCHEMA,
        "port": found.port.spec,
        "on": found.on,
        "changed": changed,
        "priority": found.priority,
        "first": found.on and not found.before,
        "before": list(found.before),
        "foreign": found.foreign,
        "state": found.verdict.state,
        "findings": [finding(each) for each in found.verdict.findings],
        "limits": list(LIMITS),
    }
