"""What stands in the place of a rule: a socket, a BPF program, a virtual server. Pure; all of it is escaped."""

from __future__ import annotations

from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.ipvs import IPVS
from k3swatch.view.escape import escape

TEXT = 200


def toward(finding: Finding) -> str:
    """`to`, before a destination; `on the way to`, where connections never get there."""
    return "on the way to" if finding.refusing else "to"


def unruled(step: PathStep) -> str | None:
    """`socket 0.0.0.0:6443 of /usr/bin/python3 (pid 7) in x.service`, `BPF program drop (...) at xdp eth0, id 12`;
    None for a rule."""
    rule, chain = escape(step.rule, TEXT), escape(step.chain, 64)
    if step.family == "socket":
        return f"socket {chain} of {rule}"
    if step.family == "bpf":
        return f"BPF program {rule} at {escape(step.table, 64)} {chain}, id {step.handle}"
    if step.family == "tc":
        return f"tc action {rule} at {escape(step.table, 64)} {chain}"
    if step.family == "module":
        return f"kernel module {rule} at {escape(step.table, 64)} {chain}"
    if step.family == "route":
        table = escape(step.table, 64)
        return f"policy rule {step.handle}: {rule}" if table == "rule" else f"route {rule} in table {table}"
    if step.family == "sysctl":
        return f"sysctl {rule}"
    if step.family == IPVS:
        return f"IPVS virtual server {escape(step.table, 16)} {chain} ({rule})"
    return None
