"""Culprits in words: who takes the connections, how sure that is, who committed. Pure; hostile text is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.model.finding import Culprit, Finding
from k3swatch.model.words import Mechanism
from k3swatch.view.escape import escape

NAME = 160  # characters of one name
COMMITTED = 320  # characters of who committed


def taken_by(culprit: Culprit, brief: bool = False) -> str:
    """`pod kube-system/svclb-x-htf6q (DaemonSet svclb-x, Service default/x)`; empty when no receiver is known.

    `brief`: the owner's kind alone, where the pod's name begins with its name anyway.
    """
    service = f"Service {escape(culprit.service, NAME)}" if culprit.service else ""
    if culprit.pod:
        text = f"pod {escape(culprit.pod, NAME)}"
    elif culprit.container:
        program, named, called = culprit.container.partition(":")
        who = (
            f"{program} container {called}" if named else f"container {program[:12]}"
        )  # as everybody shows ids
        text = escape(who, NAME)
    else:
        return service
    around = [each for each in (_owner(culprit, brief), service) if each]
    text += f" ({', '.join(around)})" if around else ""
    return f"{text}, left over from what is gone" if culprit.left_behind else text


def sure(culprit: Culprit, brief: bool = False, most: int = 16) -> str:
    """`[high: rule-comment, lease, cni-cache]`, or `+2` for the sources beyond `most`; `brief`: `[high]`."""
    named, more = culprit.sources[:most], len(culprit.sources) - most
    if brief or not named:
        return f"[{culprit.confidence}]"
    return f"[{culprit.confidence}: {', '.join(named)}{f' +{more}' if more > 0 else ''}]"


def receiver(findings: Iterable[Finding]) -> Culprit | None:
    """The first receiver that is known, a pod before anything less."""
    known = [each.culprit for each in findings if each.culprit is not None and each.culprit.receiver]
    return next((each for each in known if each.pod), known[0] if known else None)


def committed(findings: Iterable[Finding], limit: int = COMMITTED) -> str:
    """`committed by iptables (pid 123: iptables -t nat -A X) <- portmap <- containerd (containerd.service)`, or `in
    one of 13 commits, among them by ...`; empty when it is not known."""
    found = next((each for each in findings if each.culprit and each.culprit.process), None)
    if found is None or found.culprit is None:
        return ""
    by = found.culprit.committed
    lead = "committed by " if by is None or by.only else "in "
    lead = "opened by " if found.mechanism is Mechanism.SOCKET else lead
    return lead + escape(found.culprit.process or "", limit)


def _owner(culprit: Culprit, brief: bool) -> str:
    kind, _, name = (culprit.owner or "").partition("/")
    pod = (culprit.pod or "").rpartition("/")[2]
    if brief and name and pod.startswith(f"{name}-"):
        return escape(kind, NAME)
    return escape(f"{kind} {name}".strip(), NAME)
