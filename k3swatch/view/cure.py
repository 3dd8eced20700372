"""What ends a diversion that nobody wants any more, as one line with the command. Pure.

Only for orphans, of which two independent sources agree that nobody owns them: everything else has an owner to ask.
Names come from rules and files, and the line is pasted into a root shell: they are quoted as the shell wants it.
"""

from __future__ import annotations

import shlex

from k3swatch.model.finding import Finding, Orphan, PathStep
from k3swatch.model.ruleset import LEGACY

_TOOLS = {
    "ip": "iptables",
    "ip6": "ip6tables",
    f"{LEGACY} ip": "iptables-legacy",
    f"{LEGACY} ip6": "ip6tables-legacy",
}


def cure(finding: Finding) -> str | None:
    """`nobody owns this rule any more: iptables -t nat -F CNI-DN-...`; None when it is no orphan."""
    who, step = finding.culprit, finding.rule
    if who is None or who.orphan is None or step is None:
        return None
    if who.orphan is Orphan.SANDBOX:
        return f"its pod does not exist any more, nobody will remove the rule: {_without(step)}"
    namespace = (who.pod or "").partition("/")[0]
    kind, _, name = (who.owner or "").partition("/")
    if not (namespace and name):
        return None
    command = ("kubectl", "-n", namespace, "delete", kind.lower(), name)
    return f"its Service does not exist any more, what serves it comes back until it is deleted: {_shell(*command)}"


def _without(step: PathStep) -> str:
    tool = _TOOLS.get(step.family)
    if tool is not None and step.table == "nat":
        return _shell(tool, "-t", "nat", "-F", step.chain)  # the chain is this container's alone
    place = (step.family, step.table, step.chain)
    return _shell("nft", "delete", "rule", *place, "handle", str(step.handle))


def _shell(*words: str) -> str:
    return " ".join(map(shlex.quote, words))
