"""Steps on this host alone: containers, processes, programs, and the rules that go with nobody."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.plan import Kept, Removal, Step, StepKind
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import LEGACY
from k3swatch.model.words import Family, Mechanism, State
from k3swatch.restore.api import culprit
from k3swatch.restore.kinds import Cause
from k3swatch.restore.owners import by, owner, ruled, words
from k3swatch.restore.quote import command, joined
from k3swatch.view.escape import escape


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule is in its chain (from 1), and its `iptables` specification when it has one."""

    number: int
    words: tuple[str, ...] | None = None


Places = Mapping[tuple[str, str, str, int], Place]  # by family, table, chain, handle

_BUILTIN = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
_TABLES = {"nat", "filter", "mangle", "raw", "security"}
_LEFT = "no pod or Service owns them any more, and they are still there"


def steps(
    cause: Cause,
    findings: Sequence[Finding],
    port: ProtectedPort,
    places: Places,
    removals: Sequence[Removal],
    kept: Sequence[Kept] = (),
) -> list[Step]:
    """What to do on this host about one cause."""
    if cause is Cause.SOCKET:
        return [_socket(findings[0], port)]
    if cause is Cause.BPF:
        return [_bpf(findings[0])]
    if cause is Cause.UNKNOWN:
        return [_unknown(each, port) for each in findings]
    if cause is Cause.IPVS:
        return [Step(StepKind.RULES, "See what IPVS has of this host's address.", ("ipvsadm -L -n",))]
    if any(each.rule is not None and not ruled(each.rule) for each in findings):
        return [_unruled(findings)]
    found: list[Step] = []
    if cause is Cause.CONTAINER:
        found.append(_container(findings, port))
    left = {each.text for each in kept}
    spared = [each for each in findings if each.rule and words(each.rule) in left]
    lines = [line for each in findings if each not in spared for line in _lines(each, port, places, removals)]
    if spared and cause is not Cause.BLOCKED:
        found.append(_look(spared))
        spared = []
    lines += [line for each in spared for line in _lines(each, port, places, removals)]
    if not lines:
        return found
    if cause is Cause.BLOCKED:
        return [*found, _blocked(findings, port, lines)]
    alone = cause in (Cause.RULE, Cause.STALE)
    text = "Delete the rule that takes the port" if alone else "Delete what is left of the rules"
    if cause is Cause.STALE:
        text = "Delete portmap's rules for a pod that is gone; nobody else will"
    return [*found, Step(StepKind.RULES, f"{text}.", joined(lines), when=None if alone else _LEFT)]


def _socket(finding: Finding, port: ProtectedPort) -> Step:
    step = finding.rule
    pid = re.search(r"\(pid (\d+)\)", step.rule) if step else None
    unit = re.search(r" in ([A-Za-z0-9:_.@-]+\.(?:service|scope))$", step.rule) if step else None
    lines = [f"ss -Hltnp 'sport = :{port.port}'"]
    if unit:
        lines.append(command("systemctl", "stop", unit[1]))
    elif pid:
        lines.append(command("kill", pid[1]))
    text = f"Another process listens on {port.spec}"
    return Step(
        StepKind.CAUSE, f"{text}: {escape(step.rule, 160)}. End it." if step else f"{text}.", tuple(lines)
    )


def _bpf(finding: Finding) -> Step:
    step = finding.rule
    lines = [command("bpftool", "prog", "show", "id", str(step.handle))] if step else []
    lines.append("bpftool net show; bpftool cgroup tree")
    text = "A BPF program stands where it can send connections elsewhere, and what it does cannot be read. If it is "
    text += (
        "not yours, detach it with what attached it; if it is known and good, allow it in the configuration"
    )
    return Step(StepKind.CAUSE, f"{text} (allow: program).", tuple(lines))


def _unruled(findings: Sequence[Finding]) -> Step:
    """A route, a policy rule, a sysctl, a tc action: nothing that netfilter's tools could change."""
    last = [each.rule for each in findings if each.rule is not None and not ruled(each.rule)]
    lines: list[str] = []
    for step in last:
        if step.family == "tc":
            lines += [
                command("tc", "filter", "show", "dev", step.chain, way) for way in ("ingress", "egress")
            ]
        elif step.family == "route":
            lines += ["ip -d rule show; ip -6 -d rule show", "ip -d route show table all"]
        elif step.family == "sysctl":
            name = step.rule.partition(" =")[0]
            lines.append(command("sysctl", name, name.replace(step.chain.replace(".", "/"), "all")))
    what = escape(" ".join(filter(None, (last[0].table, last[0].chain, last[0].rule))), 160)
    text = f"It is no rule of netfilter ({last[0].family} {what}): look, and change it with what made it."
    return Step(StepKind.RULES, text, joined(lines))


def _unknown(finding: Finding, port: ProtectedPort) -> Step:
    text = (
        f"Cannot be told, so nothing can be planned for it: {escape(finding.why or 'no reason given', 200)}."
    )
    return Step(StepKind.CHECK, text, (command("k3swatch", "explain", port.spec),))


def _container(findings: Sequence[Finding], port: ProtectedPort) -> Step:
    path = [step for each in findings for step in each.path]
    tool = "docker" if by(path, "docker") else "podman"
    name = (culprit(findings).container or "").removeprefix("docker:")
    lines = [
        command(tool, "ps", "--filter", f"publish={port.port}" if tool == "docker" else "status=running")
    ]
    if name and not name.startswith("-"):
        lines.append(command(tool, "rm", "-f", name))
    text = f"Remove the {tool} container that publishes port {port.port}, or publish another port."
    return Step(StepKind.CAUSE, text, tuple(lines))


def _blocked(findings: Sequence[Finding], port: ProtectedPort, lines: Sequence[str]) -> Step:
    first = findings[0].rule
    manager = owner(first) if first else None
    text = f"Let {port.spec} pass: everybody is refused by this rule, or by a policy."
    if findings[0].mechanism is Mechanism.NEIGHBOUR:
        what = "ARP" if findings[0].family is Family.IP else "neighbour discovery"
        text = f"Let {what} pass: without it nobody finds this host's address."
    if manager:
        text += f" {manager[0]} wrote it and writes it again {manager[1]}: change its configuration."
    return Step(StepKind.RULES, text, joined(lines))


def _look(findings: Sequence[Finding]) -> Step:
    """What is not a rule of its own: to delete it would take more than the port along."""
    rules = [each.rule for each in findings if each.rule is not None]
    lines = [
        f"{_tool(step)}-save -t {command(step.table)}"
        if step.family.startswith(f"{LEGACY} ")
        else command("nft", "-a", "list", "table", step.family, step.table)
        for step in rules
    ]
    text = "What sends the port away is part of a rule about more, or not certain: look, and take out the port alone."
    return Step(StepKind.RULES, text, joined(lines))


def _lines(finding: Finding, port: ProtectedPort, places: Places, removals: Sequence[Removal]) -> list[str]:
    """Commands that take away exactly what takes the port, for one finding."""
    step = finding.rule
    if step is None:
        return []
    if not step.handle:
        return [_pass(finding, step, port)]
    rules = {(each.family, each.table, each.chain, each.handle): each for each in finding.path}
    removal = next((r for r in removals if (r.family, r.table, r.chain, r.handle) in rules), None)
    if removal is not None:
        step = rules[removal.family, removal.table, removal.chain, removal.handle]
    elements = [r for r in removals if r.key is not None and (r.family, r.table) == (step.family, step.table)]
    if removal is None and elements:
        return [_element(each) for each in elements]
    if removal is None and finding.state is State.BLOCKED:
        return [_pass(finding, step, port)]
    found = [*_delete(step, finding.path, places)]
    if any(each.chain.startswith("CNI-DN-") for each in finding.path):
        found = _portmap(finding, places)
    return found


def _element(removal: Removal) -> str:
    """`nft delete element`, which wants the key in nft's words."""
    if removal.spelled is None:
        return "k3swatch restore --apply    # deletes the element of a map, whose key nft cannot be told in words"
    place = (removal.family, removal.table, removal.chain)
    return command("nft", "delete", "element", *place, f"{{ {removal.spelled} }}")


def _portmap(finding: Finding, places: Places) -> list[str]:
    """The jump to the pod's chain, then the chain."""
    chain = next(each for each in finding.path if each.chain.startswith("CNI-DN-"))
    before = finding.path[: finding.path.index(chain)]
    jump = _delete(before[-1], finding.path, places) if before else []
    tool = [_tool(chain), "-t", chain.table]
    return [*jump, f"{command(*tool, '-F', chain.chain)} && {command(*tool, '-X', chain.chain)}"]


def _delete(step: PathStep, path: Sequence[PathStep], places: Places) -> list[str]:
    """`iptables -D` with the rule's own words where they are known; else by its handle, which is nobody else's; a rule
    of iptables-legacy, which has none, by its place, after a look at it.
    """
    legacy = step.family.startswith(f"{LEGACY} ")
    place = places.get((step.family, step.table, step.chain, step.handle))
    tool = (_tool(step), "-t", step.table)
    if place is not None and place.words and (legacy or _of_iptables(step, path)):
        return [command(*tool, "-D", step.chain, *place.words)]
    if legacy:
        number = str(place.number if place else step.handle)
        look = f"{command(*tool, '-S', step.chain, number)}   # must show: {escape(step.rule, 120)}"
        return [look, command(*tool, "-D", step.chain, number)]
    return [command("nft", "delete", "rule", step.family, step.table, step.chain, "handle", str(step.handle))]


def _pass(finding: Finding, step: PathStep, port: ProtectedPort) -> str:
    """A rule before the one that refuses, which lets this port pass."""
    where = finding.path[0] if finding.path else step
    asks = finding.mechanism is Mechanism.NEIGHBOUR
    if where.family.startswith(f"{LEGACY} ") or _of_iptables(where, finding.path):
        head = (_tool(where), "-t", where.table, "-I", where.chain, "1")
        if asks:
            lines = [(*head, "-p", "icmpv6", "--icmpv6-type", each, "-j", "ACCEPT") for each in _DISCOVERY]
            return "; ".join(command(*line) for line in lines)
        return command(*head, "-p", port.protocol, "--dport", str(port.port), "-j", "ACCEPT")
    head = ("nft", "insert", "rule", where.family, where.table, where.chain)
    what = f"{port.protocol} dport {port.port}"
    if asks:
        what = f"icmpv6 type {{ {', '.join(_DISCOVERY.values())} }}"
        if finding.family is Family.IP:
            what = "arp operation { request, reply }" if where.family == "arp" else "meta protocol arp"
    return f"{command(*head)} {shlex.quote(what) if '{' in what else what} accept"


_DISCOVERY = {
    "neighbour-solicitation": "nd-neighbor-solicit",
    "neighbour-advertisement": "nd-neighbor-advert",
}


def _of_iptables(step: PathStep, path: Sequence[PathStep]) -> bool:
    """Whether iptables-nft made the table: it would not recognise one that others have written to."""
    return step.family in ("ip", "ip6") and step.table in _TABLES and path[0].chain in _BUILTIN


def _tool(step: PathStep) -> str:
    family = step.family.removeprefix(f"{LEGACY} ")
    backend = "legacy" if step.family.startswith(f"{LEGACY} ") else "nft"
    return f"{'ip6tables' if family == 'ip6' else 'iptables'}-{backend}"
