"""BPF programs, tc's own actions and kernel modules in netfilter, attached where they can send a connection elsewhere
or keep it: they cannot be read, so the answer is unknown.

Which ways in each hook can touch follows the places the kernel calls it from: sk_lookup before any listener is
looked up, connect and sendmsg when a process of the control group dials, cgroup_skb when a packet comes to or from a
socket of the group, XDP and tc when a packet comes in on the interface, netfilter's hooks for all packets of a family.
See docs/adr/0008 and 0017 for what is left out and why.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.port import CGROUP_SKB, NETFILTER, UNTOLD, Host, Program, ProtectedPort, family_of
from k3swatch.model.words import Evidence, Family, Mechanism, Protocol, State, Vantage

MOST = 32  # programs that are told of; a host has a handful
WHY = "a BPF program is attached that can send connections elsewhere; what it does cannot be read"

_DROPS = "a BPF program is attached that can drop packets of these connections; what it does cannot be read"
_SYSTEMD = f"{_DROPS} (systemd attaches it for IPAddressDeny=, IPAddressAllow= and IPAccounting= of the unit)"
_ACTION = "a tc action is attached that takes, changes or drops packets; which ones cannot be read"
_MODULE = (
    "a kernel module that is not known here sees these packets in netfilter; what it does cannot be read"
)
_EBTABLES = "ebtables-legacy has rules for what comes in through a bridge; they are not read"

_DIALLING = {"connect4": Family.IP, "connect6": Family.IP6, "sendmsg4": Family.IP, "sendmsg6": Family.IP6}
Way = tuple[Vantage, str]


def attached(host: Host, port: ProtectedPort, ways: Sequence[Way]) -> Iterator[Finding]:
    """One finding for each program and each of the (vantage, address) pairs in `ways` that it can touch."""
    told = 0
    for program in host.programs:
        touched = [way for way in ways if _touches(host, port, program, *way)]
        told += bool(touched)
        if told <= MOST:
            for vantage, text in touched:
                yield Finding(
                    State.UNKNOWN,
                    Mechanism.BPF if program.id or program.name == UNTOLD else Mechanism.NONE,
                    vantage,
                    family_of(ipaddress.ip_address(text)),
                    (text,),
                    conditions=_conditions(program, vantage),
                    certain=False,
                    evidence=frozenset({Evidence.RULE}),
                    path=(_step(program),),
                    why=_why(program),
                )


def senders(host: Host, port: ProtectedPort, vantage: Vantage, address: str, *, given: bool) -> list[Finding]:
    """Those of them that can have sent a connection elsewhere after it was dialled, the likeliest first.

    `given`: to a socket of this host that listens on another port, as sk_lookup does and bpf_sk_assign in tc.
    """
    found = [
        each
        for each in attached(host, port, [(vantage, address)])
        if each.rule is not None and each.rule.table not in _DIALLING and not _only_drops(each.rule.table)
    ]
    lookup = [each for each in found if each.rule is not None and each.rule.table == "sk_lookup"]
    if given:
        return lookup + [each for each in found if each not in lookup]
    return [each for each in found if each not in lookup]


def _touches(host: Host, port: ProtectedPort, program: Program, vantage: Vantage, text: str) -> bool:
    address = ipaddress.ip_address(text)
    if program.hook == "sk_lookup":
        return True
    if program.hook.startswith(NETFILTER):
        if program.hook == f"{NETFILTER} bridge":
            return vantage is Vantage.EXTERNAL
        return program.hook == f"{NETFILTER} {family_of(address)}"
    if program.hook.startswith(CGROUP_SKB):
        mine = (port.protocol, port.port, program.cgroup)
        return any((s.protocol, s.port, s.cgroup) == mine for s in host.sockets or ())
    if program.hook in _DIALLING:
        return (
            vantage is Vantage.LOCAL
            and _DIALLING[program.hook] is family_of(address)
            and (port.protocol is Protocol.UDP or program.hook.startswith("connect"))
        )
    if program.interface in host.loopbacks:
        return vantage is Vantage.LOCAL  # whatever this host sends to itself passes there
    return vantage is Vantage.EXTERNAL and address in host.carriers.get(program.interface, ())


def _only_drops(hook: str) -> bool:
    """Whether what is attached there lets packets through or keeps them, and sends them nowhere."""
    return hook.startswith((NETFILTER, CGROUP_SKB))


def _why(program: Program) -> str:
    if not program.id and not program.hook.startswith(NETFILTER):
        return _ACTION
    if not _only_drops(program.hook):
        return WHY
    if program.place.startswith("ebtables"):
        return _EBTABLES
    if program.name.startswith("sd_fw_"):
        return _SYSTEMD
    return _DROPS if program.id or program.name == UNTOLD else _MODULE


def _conditions(program: Program, vantage: Vantage) -> tuple[str, ...]:
    if program.hook in _DIALLING:
        return () if program.place == "/" else (f"by processes in control group {program.place}",)
    if program.hook == f"{NETFILTER} bridge":
        return ("through a bridge",)
    return (f"on interface {program.place}",) if program.interface and vantage is Vantage.EXTERNAL else ()


def _step(program: Program) -> PathStep:
    """The program in the place of a rule: `handle` is its id, `rule` begins with its name."""
    facts = [f"tag {program.tag}"] if program.tag else []
    facts += [f"loaded by user {program.uid}"] if program.uid is not None else []
    rule = program.name or "unnamed"
    if facts:
        rule += f" ({', '.join(facts)})"
    if not program.id and program.name != UNTOLD:
        family = "module" if program.hook.startswith(NETFILTER) else "tc"
        return PathStep(family, program.hook, program.place, 0, rule)
    return PathStep("bpf", program.hook, program.place, program.id, rule)
