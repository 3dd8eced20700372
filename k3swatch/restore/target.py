"""Which one rule, or element of a set, takes the port: what is taken away so that nothing else is.

A rule that decides may serve others, too: the DNAT at the end of KUBE-SEP-… is also that of the ClusterIP. So it is
the last rule on the path that asks for this port and no other; where a verdict map is asked (kube-proxy's
`service-ips`), the element for it; and the deciding rule itself where nothing on the path is about the port alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.prefilter import required_ports
from k3swatch.model.expr import Expr, Lookup
from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.plan import Kept, Removal
from k3swatch.model.port import ProtectedPort
from k3swatch.model.ruleset import SET_ANONYMOUS, SET_INTERVAL, ChainRef, Found, Rule, Ruleset, SetInfo
from k3swatch.model.words import UNRULED, Mechanism, State
from k3swatch.restore.kinds import taken
from k3swatch.restore.owners import back, ruled, words

Hits = Collection[
    tuple[str, str, str, bytes, Found]
]  # family, table, set, key, what it held: answers to lookups

_IPV4, _IPV6, _PROTOCOL, _SERVICE = 7, 8, 12, 13  # nft's numbers for what a key is made of


def targets(
    ruleset: Ruleset, port: ProtectedPort, findings: Sequence[Finding], hits: Hits
) -> tuple[list[Removal], list[Kept]]:
    """What to take away for these findings, each once, and what is left alone. Interrupted when the ruleset moved.

    Rules of iptables-legacy are among them: which of them it is does not depend on how it is deleted.
    """
    removals: dict[Removal, None] = {}
    kept: dict[Kept, None] = {}
    for finding in findings:
        for found in _of(ruleset, port, taken(finding), hits):
            if isinstance(found, Removal):
                removals[found] = None
            else:
                kept[found] = None
    return list(removals), list(kept)


def _of(ruleset: Ruleset, port: ProtectedPort, finding: Finding, hits: Hits) -> Sequence[Removal | Kept]:
    step = finding.rule
    if finding.restriction or finding.state not in (State.DIVERTED, State.BLOCKED):
        return ()
    if step is None or finding.mechanism in UNRULED or not ruled(step):
        return ()
    if not finding.certain:
        return [Kept(words(step), f"not certain: {finding.why}")]
    try:
        path = [(each, _rule(ruleset, each)) for each in finding.path]
        exprs = [ruleset.expressions(rule) if rule else () for _, rule in path]
        exact = [i for i, each in enumerate(exprs) if required_ports(each) == ((port.port, port.port),)]
        if exact:
            return [_removal(path[exact[-1]])]
        elements = _elements(port, ruleset, path, exprs, hits)
        if elements:
            return elements
    except Interrupted:
        raise
    except (SourceError, DecodeError) as error:
        return [Kept(words(step), f"cannot be read: {error}")]
    if finding.mechanism is Mechanism.NEIGHBOUR:
        return [Kept(words(step), "it refuses what asks for the address: let that pass before it")]
    if finding.state is State.BLOCKED:
        return [Kept(words(step), "it is about more than this port: let the port pass before it")]
    if any(map(_shared, exprs)):
        return [Kept(words(step), "what sends the port there is part of a rule about other ports, too")]
    return [_removal(path[-1], wide=True)]


def _rule(ruleset: Ruleset, step: PathStep) -> Rule | None:
    """The rule a step stands for; None for a chain's policy."""
    ref = ChainRef(step.family, step.table, step.chain)
    if not step.handle:
        return None
    for rule in ruleset.rules(ref):
        if rule.handle == step.handle:
            return rule
    raise DecodeError(f"rule {step.handle} is not in {step.family} {step.table} {step.chain}")


def _removal(found: tuple[PathStep, Rule | None], wide: bool = False) -> Removal:
    step, rule = found
    raw = rule.raw if rule else b""
    return Removal(
        step.family, step.table, step.chain, step.handle, step.rule, raw, back=back(step), wide=wide
    )


def _elements(
    port: ProtectedPort,
    ruleset: Ruleset,
    path: Sequence[tuple[PathStep, Rule | None]],
    exprs: Sequence[Sequence[Expr]],
    hits: Hits,
) -> list[Removal]:
    """The elements of a named map for this port: those that lead from one step to the next, or on to the target."""
    for place in range(len(path) - 1, -1, -1):
        step = path[place][0]
        following = path[place + 1][0] if place + 1 < len(path) else None
        names = [each.set for each in exprs[place] if isinstance(each, Lookup) and each.dreg is not None]
        infos = [ruleset.set_info(step.family, step.table, each) for each in names]
        found = [
            Removal(
                step.family,
                step.table,
                info.name,
                0,
                f"element {spelled(info, key) or key.hex()} of map {info.name}"
                + (f": to chain {following.chain}" if following else ""),
                key=key,
                back=(following and back(following)) or back(step),
                spelled=spelled(info, key),
            )
            for info in infos
            if not info.flags & (SET_ANONYMOUS | SET_INTERVAL)
            for family, table, asked, key, answer in hits
            if (family, table, asked) == (step.family, step.table, info.name)
            and port.port.to_bytes(2) in key
            and (answer.verdict.chain if answer.verdict else None) == (following.chain if following else None)
        ]
        if found:
            return sorted(found, key=lambda each: each.key or b"")
    return []


def spelled(info: SetInfo, key: bytes) -> str | None:
    """A key as nft writes it; None when a part of it is of a type that is not about ports (see decode.sets)."""
    types: list[int] = []
    number = info.key_type
    while number:
        types.insert(0, number & 0x3F)
        number >>= 6
    lengths = info.fields or (info.key_length,)
    if len(types) != len(lengths):
        return None
    parts, start = [], 0
    for kind, length in zip(types, lengths, strict=True):
        value = key[start : start + length]
        start += -(-length // 4) * 4
        if kind in (_IPV4, _IPV6) and len(value) in (4, 16):
            parts.append(str(ipaddress.ip_address(value)))
        elif kind in (_PROTOCOL, _SERVICE):
            parts.append(str(int.from_bytes(value)))
        else:
            return None
    return " . ".join(parts)


def _shared(exprs: Sequence[Expr]) -> bool:
    """Whether a rule asks a map, of which only a part is about the port."""
    return any(isinstance(each, Lookup) and each.dreg is not None for each in exprs)
