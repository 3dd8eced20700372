"""Findings -> the undo plan, in the only order that works: a way to the API, the cause, what it left in the API, its
pod, its rules, the connections, the proof.

Rules alone come back: kube-proxy and portmap write them again. The cause alone may not be enough: the host's own
kubelet dials 127.0.0.1:6443 and is blind while that is taken. What is never proposed: another listen port,
`iptables-save | iptables-restore`, `nft flush ruleset`, k3s-killall.sh, stopping K3s (docs/restore.md says why).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.plan import Kept, Plan, Removal, Step, StepKind
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import LEGACY
from k3swatch.model.way import Way
from k3swatch.model.words import State
from k3swatch.restore import api, local
from k3swatch.restore.kinds import Cause, kind, taken
from k3swatch.restore.local import Places
from k3swatch.restore.quote import command

KUBERNETES = {
    Cause.SERVICE, Cause.EXTERNAL_IP, Cause.NODE_PORT, Cause.PROXIED, Cause.HOST_PORT, Cause.ORPHAN, Cause.IPVS,
}  # fmt: skip

_LEGACY = "iptables-legacy replaces its whole table at once, bound to no generation: use the command above"


@dataclass(frozen=True, slots=True)
class Host:
    """What of this host decides how commands are written. `kubeconfig`: the one that leads to kube-apiserver's own
    address, when there is one; `addresses`: where to dial to see who answers; `ways`: those to the API, as tried now.
    """

    kubeconfig: str | None = None
    kubectl: str = "kubectl"
    crictl: str = "crictl"
    addresses: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()


def plan(
    verdict: PortVerdict,
    host: Host,
    places: Places,
    removals: Sequence[Removal] = (),
    kept: Sequence[Kept] = (),
) -> Plan:
    """What to do about everything that takes this port, what would take it next included.

    `places` are those of rules in their chains, `removals` and `kept` what can and cannot be taken away alone.
    """
    bad = [taken(each) for each in verdict.findings if _matters(each)]
    causes: dict[tuple[str, ...], list[Finding]] = {}
    for finding in bad:
        causes.setdefault(finding.cause, []).append(finding)
    steps: list[Step] = []
    for findings in causes.values():
        cause = kind(findings)
        if cause in KUBERNETES:
            steps += api.talk(verdict.port, host.kubectl, host.kubeconfig, host.ways)
            steps += api.steps(cause, findings, verdict.port, host.kubectl)
            steps += api.pod(findings, host.crictl)
        steps += local.steps(cause, findings, verdict.port, places, removals, kept)
    if any(each.state is State.DIVERTED and each.path for each in bad):
        steps.append(_flows(verdict.port))
    if bad:
        steps.append(_prove(verdict.port, host.addresses))
    order = list(StepKind)
    once = sorted(_together(steps), key=lambda step: order.index(step.kind))
    alone = [each for each in removals if each.family.startswith(f"{LEGACY} ")]
    return Plan(
        verdict.port,
        verdict.state,
        tuple(once),
        tuple(each for each in removals if each not in alone),
        (*kept, *(Kept(f"{each.family} {each.table} {each.chain}: {each.text}", _LEGACY) for each in alone)),
    )


def _matters(finding: Finding) -> bool:
    wrong = finding.state in (State.DIVERTED, State.BLOCKED, State.UNKNOWN)
    return wrong and not finding.restriction


def _together(steps: Iterable[Step]) -> list[Step]:
    """Each step once, with all of its commands: two causes of one Service, two address families of one pod."""
    found: dict[Step, dict[str, None]] = {}
    for step in steps:
        found.setdefault(replace(step, commands=()), {}).update(dict.fromkeys(step.commands))
    return [replace(step, commands=tuple(commands)) for step, commands in found.items()]


def _flows(port: ProtectedPort) -> Step:
    return Step(
        StepKind.FLOWS,
        "Connections that were opened meanwhile keep going where they went: end them.",
        (command("conntrack", "-D", "-p", port.protocol, "--orig-port-dst", str(port.port)),),
    )


def _prove(port: ProtectedPort, addresses: Sequence[str]) -> Step:
    lines = [command("k3swatch", "check", "--port", port.spec)]
    if port.port == 6443:
        dialled = ["127.0.0.1", *addresses[:1]]
        lines += [command("curl", "-sk", f"https://{_bracketed(each)}:6443/ping") for each in dialled]
    return Step(
        StepKind.PROVE,
        "See who answers, on this host and from another machine"
        + ("; K3s says pong." if port.port == 6443 else "."),
        tuple(lines),
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
