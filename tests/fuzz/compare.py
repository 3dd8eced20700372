"""What the evaluator says of one connection, beside what the kernel did with it: where did it go, which rule decided?

The evaluator is asked twice. As `check` asks, for everybody: no connection may contradict that. And for this very
connection, with all that is known of it (source, interface, mark, user): then the answer has to be exact, and has to
name the rule that the kernel's trace names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from support.dialer import Dial
from support.nftrace import NAME, Step, path_to

from fuzz.places import V4, V6
from fuzz.rig import Rig, Seen
from k3swatch.demo.said import NOBODY
from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate import judge
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.hooks import GIVEN, RESET
from k3swatch.evaluate.packet import Scene, scene
from k3swatch.evaluate.ties import told
from k3swatch.evaluate.walk import Walk
from k3swatch.model import xt
from k3swatch.model.expr import Code, Nat, Redir, Tproxy, XtTarget
from k3swatch.model.finding import Finding
from k3swatch.model.port import ProtectedPort, family_of
from k3swatch.model.ruleset import ChainRef, Rule
from k3swatch.model.words import Mechanism, Protocol, State, Vantage

Place = tuple[ChainRef, int]
DELIVERED, DIVERTED, BLOCKED, MAYBE = "delivered", "diverted", "blocked", "maybe"
OURS = (V4.host, V6.host, V4.cni0, V6.cni0)


@dataclass(frozen=True)
class Judgement:
    """What is said of one connection. `path`: the rules, the deciding one last; `destination` of a diversion."""

    word: str
    destination: str = ""
    path: tuple[Place, ...] = ()
    findings: tuple[Finding, ...] = ()
    ways: frozenset[tuple[Place, ...]] = (
        frozenset()
    )  # all paths there were: where several lead there, one is shown


@dataclass(frozen=True)
class Verdict:
    """One connection compared. `complaint` is empty when all agree."""

    dial: Dial
    seen: Seen
    said: Judgement
    complaint: str

    def __str__(self) -> str:
        d = self.dial
        who = (
            f"{d.start} {d.source}"
            + (f" uid {d.uid}" if d.uid else "")
            + (f" mark {d.mark:#x}" if d.mark else "")
        )
        said = f"{self.said.word} {self.said.destination} {place_words(self.said.path[-1:])}".strip()
        return f"{who} -> {d.address} {d.port}: {self.seen.answer.where}; said: {said}  {self.complaint}"


def place_words(path: Sequence[Place]) -> str:
    """`ip nat PREROUTING 9`."""
    return ", ".join(f"{ref.family} {ref.table} {ref.chain} {handle}" for ref, handle in path)


def compare(rig: Rig, dials: Sequence[Dial], seen: Sequence[Seen]) -> list[Verdict]:
    """Ask the evaluator about every connection, and hold it against what was seen."""
    ports = tuple(ProtectedPort(f"port-{number}", number) for number in sorted({dial.port for dial in dials}))
    walk = Walk(rig.ruleset)
    everybody = {verdict.port.port: verdict.findings for verdict in judge(rig.ruleset, rig.host, ports)}
    found = []
    for dial, what in zip(dials, seen, strict=True):
        port = next(each for each in ports if each.port == dial.port)
        said = asked(walk, rig, port, dial)
        vantage = Vantage.LOCAL if dial.start == "host" else Vantage.EXTERNAL
        general = [
            finding
            for finding in everybody[dial.port]
            if finding.vantage is vantage and dial.address in finding.addresses and not finding.shadowed
        ]
        complaint = exactly(rig, dial, what, said) or roughly(
            dial, what.answer.where, general, "for everybody: "
        )
        found.append(Verdict(dial, what, said, complaint))
    return found


def view(rig: Rig, dial: Dial) -> Scene:
    """The scene of one connection, with nothing left open that is known of it."""
    address = ipaddress.ip_address(dial.source)
    vantage = Vantage.LOCAL if dial.start == "host" else Vantage.EXTERNAL
    general = scene(rig.host, vantage, family_of(address), Protocol.TCP, source=address)
    device = "cni0" if dial.start == "web" else "eth0"
    index = next(interface.index for interface in rig.host.interfaces if interface.name == device)
    iif = Var("iif", ((index, index),), Kind.FIELD, "iif") if vantage is Vantage.EXTERNAL else None
    return replace(
        general,
        mark=Var("mark", ((dial.mark, dial.mark),), Kind.FIELD, "mark"),
        uid=Var("uid", ((dial.uid, dial.uid),), Kind.FIELD, "uid"),
        sport=Var("sport", ((32768, 60999),), Kind.FIELD, "tcp sport"),
        iif=iif,
    )


def asked(walk: Walk, rig: Rig, port: ProtectedPort, dial: Dial) -> Judgement:
    """What is said of this very connection."""
    address = ipaddress.ip_address(dial.address)
    try:
        findings = told(walk, view(rig, dial), port, address)
    except Interrupted:
        raise
    except (SourceError, DecodeError) as error:
        return Judgement(MAYBE, str(error))
    open_ones = tuple(finding for finding in findings if not finding.shadowed)
    if not open_ones:
        return Judgement(DELIVERED, findings=open_ones)
    first = open_ones[0]
    steps = first.path[-first.refusing :]  # what refuses it, without what had sent it elsewhere before
    path = tuple((ChainRef(step.family, step.table, step.chain), step.handle) for step in steps)
    sure = len(open_ones) == 1 and first.certain and not first.conditions
    if not sure or first.state not in (State.DIVERTED, State.BLOCKED):
        return Judgement(MAYBE, findings=open_ones)
    word = DIVERTED if first.state is State.DIVERTED else BLOCKED
    ways = frozenset(
        tuple((rule.ref, rule.handle) for rule in end.path[len(end.taken) :] if isinstance(rule, Rule))
        for end in walk.outcomes
    )
    return Judgement(word, first.destination or "", path, open_ones, ways)


def exactly(rig: Rig, dial: Dial, seen: Seen, said: Judgement) -> str:
    """Why a certain judgement cannot be true of what was seen; empty when it can. Other judgements: `roughly`."""
    where, place = seen.answer.where, seen.answer.where.partition(" ")[2]
    if said.word == MAYBE:
        return roughly(dial, where, said.findings)
    mapped, refused = mapping(rig, seen.steps), refusal(seen.steps)
    if said.word == DELIVERED:
        if not is_delivered(where, dial.port):
            return "FALSE ALL-CLEAR"
        return ""
    if said.word == BLOCKED:
        if where not in NOBODY:
            return "FALSE ALARM"
        lonely = (
            dial.source == V6.loopback
        )  # nobody answers ::1 over a network, and it may leave (not 127.0.0.1)
        if not refused and (lonely or _nobody_there(said) or _untraced(said)):
            return ""
        if _given(said):  # whatever refuses it afterwards, nobody would have got it
            return ""
        return _same_path("refuses", said, refused)
    if where not in NOBODY:
        if is_delivered(where, dial.port):
            return "FALSE ALARM"
        # which of the host's addresses it is depends on the interface, or is the one that was dialled
        own = said.findings[0].mechanism in (Mechanism.REDIRECT, Mechanism.TPROXY)
        alike = place.rpartition(":")[2] == said.destination.rpartition(":")[2]
        if place != said.destination and not (own and alike):
            return "WRONG DESTINATION"
    return _same_path("diverts", said, mapped)


def _nobody_there(said: Judgement) -> bool:
    """Whether nobody is where it was sent, so that there is no answer that could be refused."""
    to, _, port = said.destination.rpartition(":")
    to = to.strip("[]")
    if to in OURS:
        return port == "9"  # the one that rules send to and nobody listens on
    away = to.startswith(("10.42.", "fd42:", "192.168.1.", "fd00:1:"))
    return away and (to not in (V4.other, V6.other, V4.web, V6.web) or port != "6443")


def _untraced(said: Judgement) -> bool:
    """Whether it is no rule that refuses: routing does, by a sysctl or because a socket has the packet already."""
    routed = bool(said.path) and said.path[-1][0].family in ("sysctl", "route")
    return routed or _given(said)


def _given(said: Judgement) -> bool:
    """Whether it ends because TPROXY has given it to a socket, and NAT then sent it elsewhere."""
    why = said.findings[0].why or ""
    return GIVEN in why or RESET in why


def roughly(dial: Dial, where: str, findings: Sequence[Finding], who: str = "") -> str:
    """Why findings, with conditions and doubts, cannot be true of this answer; empty when they can."""
    sure = {finding.state for finding in findings if finding.certain and not finding.conditions}
    delivered = is_delivered(where, dial.port)
    if not findings and not delivered:
        return f"{who}FALSE ALL-CLEAR"
    if delivered and sure & {State.DIVERTED, State.BLOCKED}:
        return f"{who}FALSE ALARM"
    if State.BLOCKED in sure and State.DIVERTED not in sure and where not in NOBODY:
        return f"{who}FALSE ALARM"
    if where in NOBODY or delivered or any(finding.state is State.UNKNOWN for finding in findings):
        return ""
    port = where.rpartition(":")[2]
    if not any(_reaches(finding, port) for finding in findings):
        return f"{who}WRONG DESTINATION"
    return ""


def _reaches(finding: Finding, port: str) -> bool:
    first, _, last = (finding.destination or "").rpartition(":")[2].partition("-")
    return first.isdigit() and int(first) <= int(port) <= int(last or first)


def is_delivered(where: str, port: int) -> bool:
    """Whether it ended at this port of the host itself."""
    return where.startswith("host ") and where.endswith(f":{port}")


def _same_path(verb: str, said: Judgement, traced: tuple[Place, ...]) -> str:
    if said.path == traced or (said.path[-1:] == traced[-1:] and traced in said.ways):
        return ""
    word = "WRONG RULE" if said.path[-1:] != traced[-1:] else "WRONG PATH"
    return f"{word}: the kernel's trace says {place_words(traced) or 'none'}: {verb}, not {place_words(said.path)}"


def mapping(rig: Rig, steps: Sequence[Step]) -> tuple[Place, ...]:
    """The path to the rule that set the destination: the first NAT statement that was accepted, or that gave the packet
    to a socket (which is no verdict).
    """
    for step in steps:
        if step.handle and step.ref.table != NAME and _maps(rig, step):
            return path_to(steps, step)
    return ()


def _maps(rig: Rig, step: Step) -> bool:
    rules: Sequence[Rule] = rig.ruleset.rules(step.ref)
    rule = next(rule for rule in rules if rule.handle == step.handle)
    for expr in rig.ruleset.expressions(rule):
        if isinstance(expr, Tproxy):
            return True
        if step.code != Code.ACCEPT:
            continue
        if isinstance(expr, Redir) or (isinstance(expr, Nat) and expr.type == 1):
            return True
        if isinstance(expr, XtTarget) and isinstance(expr.spec, xt.NatRange):
            return expr.spec.target not in ("SNAT", "MASQUERADE")
    return False


def refusal(steps: Sequence[Step]) -> tuple[Place, ...]:
    """The path to the rule, or policy, that dropped the first packet that was dropped.

    What a reject answers is traced before the reject itself, and may be dropped as well: that is a later packet.
    """
    packets = list(dict.fromkeys(step.packet for step in steps))
    drops = [step for step in steps if step.code == Code.DROP]
    first = min(drops, key=lambda step: packets.index(step.packet), default=None)
    return path_to(steps, first) if first else ()
