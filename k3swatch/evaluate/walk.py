"""Walks chains with a set of packets at once: every way a packet may be by now, each with the cubes that lead there.

Jump, goto, return and the stack limit are nft_do_chain's. Packets that became equal again are one again, so a rule
that only marks or counts costs nothing later. A mapping does not end the walk: it goes on in its *shadow*, which is
how a second cause behind the first is found.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.blind import LONG, blind
from k3swatch.evaluate.cube import Cube
from k3swatch.evaluate.handlers import HANDLERS
from k3swatch.evaluate.index import Index
from k3swatch.evaluate.machine import GONE, MAPPED, REJECTED, Context, Path, perform
from k3swatch.evaluate.mapping import needs_conntrack
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import Packet, Scene, Turn
from k3swatch.evaluate.prefilter import phased, required_ports
from k3swatch.evaluate.ranges import Ranges, contains, intersect
from k3swatch.evaluate.routing import Parts
from k3swatch.evaluate.states import Result, States, add, addressed, merged
from k3swatch.model import expr as nft
from k3swatch.model.expr import Code, Verdict
from k3swatch.model.finding import PathStep
from k3swatch.model.port import Host
from k3swatch.model.ruleset import LEGACY, POSTROUTING, BaseChain, ChainRef, Rule, Ruleset
from k3swatch.model.words import Family, Mechanism

JUMP_STACK = 16  # NFT_JUMP_STACK_SIZE
MOST_CUBES = 400  # more ways than this through one chain: say that it cannot be told


@dataclass(frozen=True, slots=True)
class Refusal:
    """What refuses those who ask for the addresses of an interface; `whom` in words, empty when it is all of them."""

    end: Outcome
    whom: str


# the interfaces that are asked for addresses, and what refuses the question (see `neighbours`)
Deaf = tuple[dict[int, str], dict[int, Refusal]]


class Walk:
    """One walk of one scene through a ruleset. Outcomes gather in `outcomes`; nothing is raised but Interrupted."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self.outcomes: list[Outcome] = []
        self.group = (0, 0)
        self.tied: tuple[str, ...] = ()  # chains of equal priority whose order made a difference
        self.backwards = False
        self.hooks: dict[tuple[int, Family, bool], list[BaseChain]] = {}  # base chains in the kernel's order
        self.turn = Turn.FIRST
        self.parts: Parts = {}  # of the routing tables
        self.leads: Parts = {}  # the same by interface
        self.deaf: dict[Family, Deaf] = {}
        self.refuses: dict[Family, bool] = {}  # whether routing refuses anybody his answers
        self.phased = False  # a rule was run that may treat the next packet of the same end otherwise
        self._ports: dict[Rule, Ranges | None] = {}
        self._blind: dict[tuple[Family, bool], dict[Rule, bool]] = {}
        self._phased: dict[bool, dict[Rule, bool]] = {True: {}, False: {}}  # by whether the client sends
        self._known: dict[Hashable, tuple[States, Result, list[Outcome], bool]] = {}
        self._index: dict[ChainRef, Index] = {}
        self._base: dict[tuple[int, int], tuple[BaseChain, ...]] = {}

    def chain(self, scene: Scene, ref: ChainRef, states: States, stack: tuple[Rule, ...] = ()) -> Result:
        """Run one chain."""
        result = Result()
        if len(stack) > JUMP_STACK:
            self._unknown(states, stack, f"jumps nest deeper than {JUMP_STACK}")
            return result
        try:
            rules = self._rules(scene, ref, states)
        except Interrupted:
            raise
        except (SourceError, DecodeError) as error:
            self._unknown(
                states, stack, f"chain {ref.family} {ref.table} {ref.chain} cannot be read: {error}"
            )
            result.through = states
            return result
        current = states
        for is_blind, run in self._runs(scene, rules):
            walk = self._remembered if is_blind else self._in_turn
            current = walk(scene, run, current, stack, result)
        for packet, cubes in current.items():
            add(result.through, packet, cubes)
        result.through, result.accepted = merged(result.through), merged(result.accepted)
        return result

    def _in_turn(
        self, scene: Scene, rules: Iterable[Rule], states: States, stack: tuple[Rule, ...], result: Result
    ) -> States:
        """Run rules one after the other; returns the packets that go on behind them."""
        for rule in rules:
            if not states:
                break
            states = self._rule(scene, rule, states, stack, result)
        return states

    def _remembered(
        self, scene: Scene, rules: Sequence[Rule], states: States, stack: tuple[Rule, ...], result: Result
    ) -> States:
        """The same for rules that do not look at the server's address: walked once, for whatever comes first.

        An outcome holds nothing of the packet's address, so it is the same for all of them.
        """
        addresses = {packet.daddr for packet in states}
        if len(addresses) != 1 or any(packet.turned or packet.reached for packet in states):
            return self._in_turn(scene, rules, states, stack, result)
        run = (rules[0].ref, rules[0].handle, rules[-1].handle, len(rules))
        ways = tuple(addressed(states, b"").items())
        view = replace(scene, host=Host())  # a walk is all of one host, and hosts are long to compare
        key = (view, self.group, stack, run, ways)
        if key not in self._known:
            begin, own, phased = len(self.outcomes), Result(), self.phased
            self.phased = False
            after = self._in_turn(scene, rules, states, stack, own)
            self._known[key] = (after, own, self.outcomes[begin:], self.phased)
            self.phased = phased or self.phased
        else:
            self.outcomes += self._known[key][2]
            self.phased = self.phased or self._known[key][3]
        (daddr,) = addresses
        after, own, *_ = self._known[key]
        for packet, cubes in addressed(own.through, daddr).items():
            add(result.through, packet, cubes)
        for packet, cubes in addressed(own.accepted, daddr).items():
            add(result.accepted, packet, cubes)
        return addressed(after, daddr)

    def _runs(self, scene: Scene, rules: Sequence[Rule]) -> Iterator[tuple[bool, Sequence[Rule]]]:
        """The rules in their order, those that do not look at the destination apart from the others."""
        if len(rules) < LONG:
            yield False, rules
            return
        family, from_client = scene.family, scene.from_client
        known = self._blind.setdefault((family, from_client), {})
        for is_blind, run in groupby(
            rules, key=lambda rule: self._is_blind(rule, family, from_client, known)
        ):
            yield is_blind, list(run)

    def _is_blind(self, rule: Rule, family: Family, from_client: bool, known: dict[Rule, bool]) -> bool:
        if rule not in known:
            try:
                exprs = self.ruleset.expressions(rule)
            except DecodeError:  # said when the rule is reached, if it is
                return False
            known[rule] = blind(exprs, family, from_client)
            self._ports.setdefault(rule, required_ports(exprs))
        return known[rule]

    def _is_phased(self, rule: Rule, exprs: Sequence[nft.Expr], from_client: bool) -> bool:
        known = self._phased[from_client]
        if rule not in known:
            known[rule] = phased(exprs, from_client)
        return known[rule]

    def _rules(self, scene: Scene, ref: ChainRef, states: States) -> Sequence[Rule]:
        """The rules that any of the packets could match: those about other addresses are passed over."""
        if ref not in self._index:
            self._index[ref] = Index(self.ruleset, self.ruleset.rules(ref))
        index, addresses = self._index[ref], [packet.daddr for packet in states]
        return index.to(addresses) if scene.from_client else index.answering(addresses, scene.family)

    def _rule(
        self, scene: Scene, rule: Rule, states: States, stack: tuple[Rule, ...], result: Result
    ) -> States:
        """Run one rule; returns the packets that go on with the next one."""
        if rule not in self._ports:
            self._ports[rule] = required_ports(self.ruleset.expressions(rule))
        ports = self._ports[rule]
        if ports is not None:
            asked = [packet.dport for packet in states] if scene.from_client else []
            if not any(contains(ports, port) for port in asked) and (
                scene.from_client or not intersect(ports, scene.sport.base)
            ):
                return states
        exprs = self.ruleset.expressions(rule)
        self.phased = self.phased or self._is_phased(rule, exprs, scene.from_client)
        following: States = {}
        jumping: dict[Verdict, States] = {}
        count = 0
        for packet, cubes in states.items():
            verdicts: dict[tuple[Verdict, Packet], list[Cube]] = {}
            for cube in cubes:
                for way in perform(HANDLERS, self._context(scene, rule, stack), exprs, Path(packet, cube)):
                    assert way.verdict is not None
                    verdicts.setdefault((way.verdict, way.packet), []).append(way.cube)
            if len(verdicts) == 1:  # all ways end alike: the packet's cubes are what they were
                (key,) = verdicts
                if sum(map(len, verdicts.values())) != len(cubes):
                    verdicts[key] = list(cubes)
            for (verdict, after), after_cubes in verdicts.items():
                count += len(after_cubes)
                self._decide(rule, verdict, after, after_cubes, stack, (following, jumping, result))
        if count > MOST_CUBES:
            self._unknown(following, (*stack, rule), "too many combinations of conditions")
            following = {packet: cubes[:1] for packet, cubes in following.items()}
        for verdict, leaving in jumping.items():
            self._jump(scene, rule, verdict, leaving, stack, (following, result))
        return merged(following)

    def _decide(
        self,
        rule: Rule,
        verdict: Verdict,
        packet: Packet,
        cubes: list[Cube],
        stack: tuple[Rule, ...],
        onward: tuple[States, dict[Verdict, States], Result],
    ) -> None:
        following, jumping, result = onward
        if verdict.code in (Code.CONTINUE, Code.BREAK):
            add(following, packet, cubes)
        elif verdict.code == MAPPED:
            add(following, replace(packet, shadow=packet.shadow or self.group), cubes)
        elif verdict.code == Code.ACCEPT:
            add(result.accepted, packet, cubes)
        elif verdict.code == Code.RETURN:
            add(result.through, packet, cubes)
        elif verdict.code in (Code.JUMP, Code.GOTO) and verdict.chain is not None:
            add(jumping.setdefault(verdict, {}), packet, cubes)
        elif verdict.code in (Code.DROP, Code.STOLEN):
            for cube in cubes:
                self.note(Fate.DROPPED, packet, cube, (*stack, rule))
        elif verdict.code == REJECTED:
            for cube in cubes:
                self.note(Fate.REJECTED, packet, cube, (*stack, rule))
        elif verdict.code != GONE:
            for cube in cubes:
                self.note(Fate.UNKNOWN, packet, cube, (*stack, rule), why=f"verdict {verdict.code}")

    def _jump(
        self,
        scene: Scene,
        rule: Rule,
        verdict: Verdict,
        states: States,
        stack: tuple[Rule, ...],
        onward: tuple[States, Result],
    ) -> None:
        following, result = onward
        assert verdict.chain is not None
        ref = ChainRef(rule.ref.family, rule.ref.table, verdict.chain)
        inner = self.chain(scene, ref, merged(states), (*stack, rule))
        back = following if verdict.code == Code.JUMP else result.through
        for packet, cubes in inner.through.items():
            add(back, packet, cubes)
        for packet, cubes in inner.accepted.items():
            add(result.accepted, packet, cubes)

    def _context(self, scene: Scene, rule: Rule, stack: tuple[Rule, ...]) -> Context:
        def emit(
            fate: Fate,
            packet: Packet,
            cube: Cube,
            mechanism: Mechanism = Mechanism.NONE,
            target: Target | None = None,
            why: str = "",
        ) -> None:
            self.note(fate, packet, cube, (*stack, rule), mechanism, target, why)

        ref = rule.ref
        name = f"{ref.family} {ref.table} {ref.chain} {rule.handle}"
        if stack:  # a chain that is entered twice counts, and rolls its dice, twice
            name += " by " + ",".join(str(each.handle) for each in stack)
        name += scene.turn.value  # and again for every packet
        return Context(scene, self.ruleset, ref.family, ref.table, name, emit, (*stack, rule))

    def note(
        self,
        fate: Fate,
        packet: Packet,
        cube: Cube,
        path: tuple[Rule | PathStep, ...],
        mechanism: Mechanism = Mechanism.NONE,
        target: Target | None = None,
        why: str = "",
    ) -> None:
        """Add an outcome."""
        if packet.turned is not None:  # where it was going, and by which rules
            target = target or packet.turned.target
            path, mechanism = (*packet.turned.path, *path), packet.turned.mechanism
        self.outcomes.append(
            Outcome(fate, cube, path, mechanism, target, packet.shadow, self.group, why, packet, self.turn)
        )

    def base_chains(self, hook: int, nfproto: int) -> Sequence[BaseChain]:
        """Those of the ruleset, asked for once: every address of every vantage passes them."""
        key = (hook, nfproto)
        if key not in self._base:
            self._base[key] = tuple(self.ruleset.base_chains(hook, nfproto))
        return self._base[key]

    def tracking(self, family: Family) -> bool:
        """Whether connections are tracked for sure: a rule of a base chain, or one that was read, needs it
        (nf_ct_netns_get).
        """
        chains = [
            base.ref for hook in range(POSTROUTING + 1) for base in self.base_chains(hook, family.nfproto)
        ]
        chains += [
            ref for ref in self._index if ref.family.removeprefix(f"{LEGACY} ") in (family.value, "inet")
        ]
        return any(
            needs_conntrack(expr)
            for ref in chains
            for rule in self.ruleset.rules(ref)
            for expr in self.ruleset.expressions(rule)
        )

    def _unknown(self, states: States, path: tuple[Rule, ...], why: str) -> None:
        for packet, cubes in states.items():
            for cube in cubes:
                self.note(Fate.UNKNOWN, packet, cube, path, why=why)
