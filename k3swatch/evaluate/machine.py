"""Executes one rule on a packet that is partly unknown, as nft_do_chain does (net/netfilter/nf_tables_core.c).

In: the rule's expressions, a packet and a cube. Out: every way it can end, each with its own cube; together they
are the cube again. What is not understood is a test that may or may not hold; it never stops the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from k3swatch.evaluate.cells import Byte, Cells
from k3swatch.evaluate.cube import YES, Box, Cube, Kind, flag
from k3swatch.evaluate.outcome import Fate, Target
from k3swatch.evaluate.packet import Packet, Scene
from k3swatch.model.expr import Code, Counter, Expr, Last, Log, Verdict
from k3swatch.model.ruleset import Rule, Ruleset
from k3swatch.model.words import Mechanism

UNSET: Byte = 0  # the kernel refuses rules that read a register nobody wrote


class Emit(Protocol):
    """Notes an outcome of the rule being executed."""

    def __call__(
        self,
        fate: Fate,
        packet: Packet,
        cube: Cube,
        mechanism: Mechanism = Mechanism.NONE,
        target: Target | None = None,
        why: str = "",
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What expressions need besides the path: the scene, the ruleset, the rule's table, where outcomes go."""

    scene: Scene
    ruleset: Ruleset
    family: str
    table: str
    rule_id: str
    emit: Emit
    path: tuple[Rule, ...]


@dataclass(slots=True)
class Path:
    """One way through a rule. `verdict` is None while it runs; CONTINUE when the rule is over without one."""

    packet: Packet
    cube: Cube
    registers: dict[int, Byte] = field(default_factory=dict)
    verdict: Verdict | None = None

    def read(self, register: int, length: int) -> Cells:
        """`length` bytes from a register, named as in enum nft_registers."""
        start = offset(register)
        return tuple(self.registers.get(start + i, UNSET) for i in range(length))

    def write(self, register: int, cells: Sequence[Byte]) -> None:
        """Cells into a register; as in the kernel, padded with zeros to four bytes."""
        start = offset(register)
        for position, cell in enumerate(cells):
            self.registers[start + position] = cell
        for position in range(len(cells), -(-len(cells) // 4) * 4):
            self.registers[start + position] = 0

    def fork(self, cube: Cube) -> Path:
        """A copy with another cube."""
        return Path(self.packet, cube, dict(self.registers), self.verdict)


def offset(register: int) -> int:
    """Byte offset in the register file: NFT_REG_1..4 hold 16 bytes, NFT_REG32_00..15 (8..23) four."""
    if 1 <= register <= 4:
        return (register - 1) * 16
    return (register - 8) * 4


NEXT = Verdict(Code.CONTINUE)
_IDLE = (Counter, Log, Last)  # what comes before these may still be the statement the rule is there for
# Our own verdicts, beyond the kernel's: a mapping was set up (the walk goes on in its shadow); refused with an answer;
# dropped, which has been noted.
MAPPED, REJECTED, GONE = 1000, 1001, 1002
Handler = Callable[[Context, Any, Path], list[Path]]  # Any: each takes its own expression type


def split(path: Path, box: Box | None, wanted: bool = True) -> list[Path]:
    """Go on where `box` holds (or, not `wanted`, where it does not); the rest is done with this rule."""
    inside, outside = (None, [path.cube]) if box is None else path.cube.split(box)
    yes, no = ([inside] if inside else []), outside
    if not wanted:
        yes, no = no, yes
    if len(yes) == 1 and not no:
        return [path]
    done = [ended(path.fork(cube)) for cube in no]
    return [*(path.fork(cube) for cube in yes), *done]


def ended(path: Path, verdict: Verdict = NEXT) -> Path:
    """The path, finished."""
    path.verdict = verdict
    return path


def decided(path: Path, verdict: Verdict) -> Path:
    """The path with a verdict that was loaded: `continue` goes on with the same rule (nft_rule_dp_for_each_expr)."""
    return path if verdict.code == Code.CONTINUE else ended(path, verdict)


def maybe(
    path: Path, words: str, kind: Kind = Kind.ENVIRONMENT, inverted: bool = False, identity: str | None = None
) -> list[Path]:
    """A test known only by its words."""
    return split(path, [(flag(words, kind, identity), YES)], not inverted)


def meter(context: Context, path: Path, words: str, inverted: bool = False) -> list[Path]:
    """A test that counts: every rule has a count of its own, and asking changes it."""
    return maybe(path, words, inverted=inverted, identity=f"{context.rule_id} {words}")


def perform(handlers: dict[type, Handler], context: Context, exprs: Sequence[Expr], path: Path) -> list[Path]:
    """Every way the rule can end for this packet and cube; each has a verdict."""
    running, finished = [path], list[Path]()
    for index, expr in enumerate(exprs):
        following: list[Path] = []
        for one in running:
            handler = handlers.get(type(expr))
            if handler is None:
                last = all(isinstance(later, _IDLE) for later in exprs[index + 1 :])
                ways = unreadable(context, describe_kind(expr), one, last)
            else:
                ways = handler(context, expr, one)
            for way in ways:
                (following if way.verdict is None else finished).append(way)
        running = following
        if not running:
            break
    finished.extend(ended(one) for one in running)
    return finished


def describe_kind(expr: Expr) -> str:
    """What an expression without a handler is called."""
    kind = getattr(expr, "kind", "") or getattr(expr, "name", "")
    return str(kind or type(expr).__name__.lower())


def unreadable(context: Context, name: str, path: Path, last: bool) -> list[Path]:
    """An expression beyond our reading. As the last of a rule it may be a statement that diverts: say so."""
    if last:
        context.emit(
            Fate.UNKNOWN, path.packet, path.cube, why=f"{name} is not understood and may do anything"
        )
        return [path]
    words = f"{name} (not understood)"
    return maybe(path, words, Kind.OPAQUE, identity=f"{words} {context.rule_id}")


def rewrite(
    context: Context, path: Path, mechanism: Mechanism, target: Target | None, why: str = ""
) -> list[Path]:
    """A NAT mapping: note the outcome, then go on as if the rule were not there, to find what it shadows."""
    fate = Fate.MAPPED if target is not None else Fate.UNKNOWN
    context.emit(fate, path.packet, path.cube, mechanism, target, why)
    return [ended(path, Verdict(MAPPED))]


def with_mark(path: Path, cells: Cells, conntrack: bool = False) -> list[Path]:
    """The packet (or its connection) carries another mark from here on."""
    path.packet = replace(path.packet, ctmark=cells) if conntrack else replace(path.packet, mark=cells)
    return [path]
