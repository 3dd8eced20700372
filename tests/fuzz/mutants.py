"""Evaluators that are broken on purpose, one mistake each: a comparison that does not notice is worth nothing.

The mistakes are those that somebody could make: a negation overlooked, an order the wrong way round, a mask ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from fuzz.compare import compare
from fuzz.generate import case
from fuzz.rig import Rig
from k3swatch.errors import K3swatchError
from k3swatch.evaluate import (
    conntrack,
    fib,
    handlers,
    hooks,
    journey,
    lookups,
    mapping,
    metadata,
    packet,
    passage,
    sourcenat,
    walk,
    xt_connection,
    xtables,
    xtargets,
)
from k3swatch.evaluate.machine import split
from k3swatch.model import expr as nft
from k3swatch.model import xt
from k3swatch.model.expr import Code

Patch = Any  # what unittest.mock.patch makes


def _handler(kind: type, change: Callable[..., Any]) -> Patch:
    """`change(handler, context, expr, path)` in place of the handler of an expression."""
    original = handlers.HANDLERS[kind]
    return patch.dict(handlers.HANDLERS, {kind: lambda *what: change(original, *what)})


def _around(module: object, name: str, change: Callable[..., Any]) -> Patch:
    """`change(original, ...)` in place of a function."""
    original = getattr(module, name)
    return patch.object(module, name, lambda *what, **named: change(original, *what, **named))


@contextmanager
def _both(one: Patch, other: Patch) -> Iterator[None]:
    with one, other:
        yield


def _verdicts(change: Callable[[nft.Verdict], nft.Verdict]) -> Patch:
    """Rules decide something else."""

    def decide(original: Any, self: Any, rule: Any, verdict: nft.Verdict, *rest: Any) -> None:
        original(self, rule, change(verdict), *rest)

    return _around(walk.Walk, "_decide", decide)


def _code(wrong: Code, right: Code) -> Patch:
    return _verdicts(lambda each: replace(each, code=wrong) if each.code == right else each)


def _without_policy(original: Any, chain: Any, *rest: Any) -> Any:
    return original(replace(chain, policy=Code.ACCEPT), *rest)


def _marks(original: Any, context: Any, spec: xt.Mark, path: Any) -> Any:
    return original(context, replace(spec, mask=0xFFFFFFFF), path)


def _port_kept(original: Any, context: Any, path: Any, low: Any, high: Any, ports: Any, *rest: Any) -> Any:
    return original(context, path, low, high, None, *rest)


def _first(ranges: Any) -> Any:
    return ranges and tuple((low, low) for low, _ in ranges)


def _no_way_in(original: Any, one: Any, scene: Any, hook: int, states: Any, *rest: Any, **named: Any) -> Any:
    return states if named.get("nat") is False else original(one, scene, hook, states, *rest, **named)


def _source_kept(original: Any, context: Any, path: Any, address: Any, ports: Any) -> Any:
    before = path.packet
    ways = original(context, path, address, ports)
    for way in ways:
        way.packet = replace(before, snatted=True)
    return ways


def _no_interfaces(original: Any, scene: Any, of: Any, what: str, length: int) -> Any:
    return tuple(b"eth0".ljust(length, b"\0")) if what == "name" else original(scene, of, what, length)


MUTANTS: dict[str, Callable[[], Patch]] = {
    "!= taken for ==": lambda: _handler(
        nft.Cmp, lambda do, c, e, p: do(c, replace(e, op=0) if e.op == 1 else e, p)
    ),
    "< and >= mixed up": lambda: _handler(
        nft.Cmp, lambda do, c, e, p: do(c, replace(e, op={2: 5, 5: 2}.get(e.op, e.op)), p)
    ),
    "range negation overlooked": lambda: _handler(
        nft.Range, lambda do, c, e, p: do(c, replace(e, op=0), p)
    ),
    "xtables negation overlooked": lambda: patch.object(
        xtables, "split", lambda path, box, wanted=True: split(path, box)
    ),
    "set negation overlooked": lambda: _handler(
        nft.Lookup, lambda do, c, e, p: do(c, replace(e, flags=e.flags & ~1), p)
    ),
    "sets never hold": lambda: _around(lookups, "known", lambda do, cells: bytes(len(cells))),
    "higher priority first": lambda: _around(
        hooks, "ordered", lambda do, *what: list(reversed(do(*what)))
    ),
    "goto taken for jump": lambda: _code(Code.JUMP, Code.GOTO),
    "jump taken for goto": lambda: _code(Code.GOTO, Code.JUMP),
    "return taken for accept": lambda: _code(Code.ACCEPT, Code.RETURN),
    "accept taken for continue": lambda: _code(Code.CONTINUE, Code.ACCEPT),
    "policy overlooked": lambda: _around(
        hooks, "run", lambda do, w, s, chain, states: do(w, s, replace(chain, policy=Code.ACCEPT), states)
    ),
    "mask of a connection's mark ignored": lambda: patch.dict(
        xtables._MATCHES, {xt.Mark: lambda *what: _marks(xt_connection.mark, *what)}
    ),
    "bitwise ignored": lambda: _handler(
        nft.Bitwise, lambda do, c, e, p: do(c, replace(e, mask=b"\xff" * e.length) if e.op == 0 else e, p)
    ),
    "marks never set": lambda: _handler(nft.MetaSet, lambda do, c, e, p: [p]),
    "xtables: marks never set": lambda: _around(xtargets, "_set_mark", lambda do, c, spec, p: [p]),
    "marks of connections never set": lambda: _around(
        xtargets, "_set_mark", lambda do, c, spec, p: [p] if spec.conntrack else do(c, spec, p)
    ),
    "notrack overlooked": lambda: _around(
        hooks, "_no_nat", lambda do, each, number: do(replace(each, tracked=True), number)
    ),
    "connections seen before conntrack": lambda: _around(
        conntrack, "has_connection", lambda do, scene, each: each.tracked
    ),
    "whoever sends is taken for one of ours": lambda: _around(fib, "source_type", lambda do, *what: 2),
    "no address is local": lambda: _around(fib, "is_local", lambda do, host, address: False),
    "port of a mapping ignored": lambda: _around(mapping, "map_to", _port_kept),
    "everything comes by eth0": lambda: _around(metadata, "interface_cells", _no_interfaces),
    "user overlooked": lambda: _handler(
        nft.Meta, lambda do, c, e, p: do(c, replace(e, key=12) if e.key == 10 else e, p)
    ),
    "reject overlooked": lambda: _handler(nft.Reject, lambda do, c, e, p: [p]),
    "of a range of ports only the first": lambda: _around(
        walk, "required_ports", lambda do, exprs: _first(do(exprs))
    ),
    "rules about an address passed over": lambda: _around(
        walk.Walk, "_rules", lambda do, *what: [rule for rule in do(*what) if rule.daddr is None]
    ),
    "what is overwritten by NAT unseen": lambda: _around(
        packet.Packet, "mapped", lambda do, self, daddr, dport: self
    ),
    "source NAT unseen": lambda: _both(
        _around(sourcenat, "source_nat", _source_kept),
        _both(_around(mapping, "source_nat", _source_kept), _around(xtargets, "source_nat", _source_kept)),
    ),
    "of the answers only the first": lambda: _around(
        journey, "_onward", lambda do, w, s, there, back, tell, port, silent: do(
            w, s, there, back, (tell[0], False), port, silent
        )
    ),
    "the way in by loopback forgotten": lambda: _around(passage, "hook", _no_way_in),
}  # fmt: skip


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Until the block ends, the evaluator of this process makes the mistake of that name."""
    with MUTANTS[name]():
        yield


PLAIN = (  # which a few rulesets are enough to notice
    "!= taken for ==", "sets never hold", "set negation overlooked", "higher priority first", "policy overlooked",
    "goto taken for jump", "jump taken for goto", "bitwise ignored", "port of a mapping ignored",
    "rules about an address passed over", "the way in by loopback forgotten", "xtables negation overlooked",
)  # fmt: skip


def noticed(rig: Rig, names: Iterable[str], seeds: Iterable[str]) -> Iterator[tuple[str, int, int, str]]:
    """Each mistake that is noticed: after how many rulesets and connections, and what the comparison said.

    Every ruleset is loaded and dialled once, and then judged with all the mistakes that nobody has noticed yet.
    """
    alive = list(names)
    rulesets = connections = 0
    for seed in seeds:
        made = case(seed)
        try:
            rig.load(made.ruleset)
        except K3swatchError:
            continue
        seen = rig.watch(made.dials)
        if any(verdict.complaint for verdict in compare(rig, made.dials, seen)):
            continue  # a busy machine: nobody's mistake
        rulesets, connections = rulesets + 1, connections + len(seen)
        for name in list(alive):
            with broken(name):
                verdicts = compare(rig, made.dials, seen)
            complaint = next((verdict.complaint for verdict in verdicts if verdict.complaint), "")
            if complaint:
                alive.remove(name)
                yield name, rulesets, connections, complaint
        if not alive:
            return
