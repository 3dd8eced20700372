"""Known-good diversions: what the operator's `allow:` of a port says is no incident. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.glob import glob
from k3swatch.model.port import Allow, Network, ProtectedPort
from k3swatch.model.words import State


def _inside(destination: str | None, network: Network) -> bool:
    if not destination:
        return False
    host = destination.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == network.version and address in network


def _program(pattern: str, finding: Finding) -> bool:
    """Whether it is a BPF program, attached where the pattern says (`tc ingress eth0`) or called so."""
    step = finding.rule
    if step is None or not _attached(finding):
        return False
    return glob(pattern, f"{step.table} {step.chain}".rstrip()) or glob(pattern, step.rule.partition(" ")[0])


def _attached(finding: Finding) -> bool:
    return finding.rule is not None and finding.rule.family in ("bpf", "tc", "module")


def _applies(allow: Allow, finding: Finding) -> bool:
    if allow == Allow():
        return False  # an empty entry would allow everything
    who = finding.culprit
    # contradicted names silence nothing
    pod = who.pod if who is not None and who.confidence != "low" else None
    comments = [step.comment for step in finding.path if step.comment]
    return (
        (allow.destination is None or _inside(finding.destination, allow.destination))
        and (allow.pod is None or (pod is not None and glob(allow.pod, pod)))
        and (allow.comment is None or any(glob(allow.comment, comment) for comment in comments))
        and (allow.program is None or _program(allow.program, finding))
    )


def allowed(port: ProtectedPort, finding: Finding) -> bool:
    """Whether `finding` is a diversion that the operator declared good. Only a diversion can be, and a BPF program."""
    known = finding.state is State.DIVERTED or _attached(finding)
    return known and any(_applies(allow, finding) for allow in port.allow)


def without_allowed(verdict: PortVerdict) -> PortVerdict:
    """The verdict with known-good diversions left out."""
    kept = tuple(finding for finding in verdict.findings if not allowed(verdict.port, finding))
    return verdict if len(kept) == len(verdict.findings) else replace(verdict, findings=kept)
