"""Known-good diversions: what the operator's `allow:` of a port says is no incident. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.port import Allow, Network, ProtectedPort
from k3swatch.model.words import State


def glob(pattern: str, text: str) -> bool:
    """Whether `pattern` (`*` any run, `?` any one character, everything else itself) matches all of `text`.

    Not fnmatch: that makes a regular expression, and `text` may be a rule's comment. At most len(pattern) *
    len(text) steps.
    """
    p = t = 0
    star, mark = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, mark = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            p, t = p + 1, t + 1
        elif star >= 0:
            mark += 1
            p, t = star + 1, mark
        else:
            return False
    return all(character == "*" for character in pattern[p:])


def _inside(destination: str | None, network: Network) -> bool:
    if not destination:
        return False
    host = destination.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == network.version and address in network


def _applies(allow: Allow, finding: Finding) -> bool:
    if allow.destination is None and allow.pod is None and allow.comment is None:
        return False  # an empty entry would allow everything
    pod = finding.culprit.pod if finding.culprit else None
    comments = [step.comment for step in finding.path if step.comment]
    return (
        (allow.destination is None or _inside(finding.destination, allow.destination))
        and (allow.pod is None or (pod is not None and glob(allow.pod, pod)))
        and (allow.comment is None or any(glob(allow.comment, comment) for comment in comments))
    )


def allowed(port: ProtectedPort, finding: Finding) -> bool:
    """Whether `finding` is a diversion that the operator declared good. Only a diversion can be."""
    return finding.state is State.DIVERTED and any(_applies(allow, finding) for allow in port.allow)


def without_allowed(verdict: PortVerdict) -> PortVerdict:
    """The verdict with known-good diversions left out."""
    kept = tuple(finding for finding in verdict.findings if not allowed(verdict.port, finding))
    return verdict if len(kept) == len(verdict.findings) else replace(verdict, findings=kept)
