"""What a register holds, byte by byte, when part of it is not known.

A byte is a number, or one byte of an unknown (`Part`: masked and flipped as nft's bitwise does), or a function of an
unknown with few values (`Entry`: an interface's name by its index), or nothing we can say (`Blank`).
`equal`, `within` turn a comparison into a `Box`: what must hold for it to be true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from k3swatch.evaluate.cube import YES, Box, Cube, Kind, Var, flag
from k3swatch.evaluate.ranges import EMPTY, Ranges, normal, size

FEW = 4096  # unknowns with at most so many values are decided value by value


@dataclass(frozen=True, slots=True)
class Part:
    """Byte `index` of `var` (0 is the least significant), as (byte & mask) ^ flip."""

    var: Var
    index: int
    mask: int = 0xFF
    flip: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """Byte `index` of rows[value of var], as (byte & mask) ^ flip. A value without a row compares unequal."""

    var: Var
    rows: tuple[tuple[int, bytes], ...]
    index: int
    mask: int = 0xFF
    flip: int = 0


@dataclass(frozen=True, slots=True)
class Blank:
    """Byte `index` of something that is only a name to us."""

    words: str
    kind: Kind
    index: int = 0


Byte = int | Part | Entry | Blank
Cells = tuple[Byte, ...]


def known(cells: Sequence[Byte]) -> bytes | None:
    """The bytes when all are numbers."""
    numbers: list[int] = []
    for cell in cells:
        if not isinstance(cell, int):
            return None
        numbers.append(cell)
    return bytes(numbers)


def big(var: Var, length: int) -> Cells:
    """All bytes of a number in network order."""
    return _big(var, var.kind, var.words, length)


@lru_cache(maxsize=256)
def _big(var: Var, kind: Kind, words: str, length: int) -> Cells:
    """The same; a look asks for the source address thousands of times. Variables are equal whatever their words."""
    return tuple(Part(var, length - 1 - position) for position in range(length))


def little(var: Var, length: int) -> Cells:
    """All bytes of a number in host order (little-endian: every machine that runs K3s)."""
    return tuple(Part(var, position) for position in range(length))


def table(var: Var, rows: dict[int, bytes], length: int) -> Cells:
    """`length` bytes that depend on the value of `var`."""
    frozen = tuple(sorted((value, data.ljust(length, b"\0")[:length]) for value, data in rows.items()))
    return tuple(Entry(var, frozen, position) for position in range(length))


def blank(words: str, kind: Kind, length: int) -> Cells:
    """`length` bytes nothing is known of."""
    return tuple(Blank(words, kind, position) for position in range(length))


def masked(cell: Byte, mask: int, flip: int) -> Byte:
    """(cell & mask) ^ flip, as nft_bitwise does to every byte."""
    if isinstance(cell, int):
        return (cell & mask) ^ flip
    if mask == 0:
        return flip
    if isinstance(cell, Blank):
        if mask == 0xFF and flip == 0:
            return cell
        return Blank(f"{cell.words} & {mask:#x} ^ {flip:#x}", cell.kind, cell.index)
    if cell.mask & mask == 0:
        return (cell.flip & mask) ^ flip
    return replace(cell, mask=cell.mask & mask, flip=(cell.flip & mask) ^ flip)


def combined(one: Byte, other: Byte) -> Byte | None:
    """one ^ other; None when both are unknown and not parts of one thing that complete each other."""
    if isinstance(one, int):
        return masked(other, 0xFF, one)
    if isinstance(other, int):
        return masked(one, 0xFF, other)
    if not isinstance(one, Part) or not isinstance(other, Part):
        return None
    if (one.var, one.index) == (other.var, other.index) and not one.mask & other.mask:
        return replace(one, mask=one.mask | other.mask, flip=one.flip ^ other.flip)
    return None


def describe(cells: Sequence[Byte]) -> str:
    """What the cells are, for naming a test that cannot be decided: `ip saddr . mark`."""
    names: list[str] = []
    number = b""
    for cell in (*cells, None):
        if isinstance(cell, int):
            number += bytes([cell])
            continue
        if number:
            names.append("0x" + number.hex())
            number = b""
        if cell is None:
            break
        word = cell.words if isinstance(cell, Blank) else cell.var.words
        if not names or names[-1] != word:
            names.append(word)
    return " . ".join(names)


def doubt(cells: Sequence[Byte]) -> Kind:
    """The kind a test over these cells has: the worst of its parts."""
    kinds = [
        cell.kind if isinstance(cell, Blank) else cell.var.kind for cell in cells if not isinstance(cell, int)
    ]
    for kind in (Kind.OPAQUE, Kind.ENVIRONMENT, Kind.CHANCE):
        if kind in kinds:
            return kind
    return Kind.FIELD


def undecided(cells: Sequence[Byte], test: str, words: str = "") -> Box:
    """A box for a comparison that can only be named. `test` tells it from all others, `words` may be shorter."""
    identity = f"{' '.join(map(_identity, cells))} {test}"
    return [(flag(f"{describe(cells)} {words or test}", doubt(cells), identity), YES)]


def _identity(cell: Byte) -> str:
    if isinstance(cell, int):
        return f"{cell:02x}"
    if isinstance(cell, Blank):
        return f"{cell.words}[{cell.index}]"
    rows = cell.rows if isinstance(cell, Entry) else ""
    return f"{cell.var.name}{rows}[{cell.index}]&{cell.mask:#x}^{cell.flip:#x}"


def equal(cells: Sequence[Byte], data: bytes, cube: Cube) -> Box | None:
    """What must hold for cells == data; None when it cannot hold, an empty box when it always does."""
    box: Box = []
    parts: dict[Var, list[tuple[Part, int]]] = {}
    entries: dict[Var, list[tuple[Entry, int]]] = {}
    blanks: list[Byte] = []
    wanted: list[int] = []
    for cell, byte in zip(cells, data, strict=True):
        if isinstance(cell, int):
            if cell != byte:
                return None
        elif isinstance(cell, Part):
            parts.setdefault(cell.var, []).append((cell, byte))
        elif isinstance(cell, Entry):
            entries.setdefault(cell.var, []).append((cell, byte))
        else:
            blanks.append(cell)
            wanted.append(byte)
    for var, pairs in parts.items():
        ranges = _matching(var, pairs, cube)
        if ranges == EMPTY:
            return None
        if ranges is not None:
            box.append((var, ranges))
        else:
            box.extend(undecided([part for part, _ in pairs], f"{_mask(pairs)} == {_value(pairs)}"))
    for var, rows in entries.items():
        values = [
            value for value, row in rows[0][0].rows if all(_fits(entry, row, byte) for entry, byte in rows)
        ]
        ranges = normal([(value, value) for value in values])
        if not ranges:
            return None
        box.append((var, ranges))
    if blanks:
        box.extend(undecided(blanks, f"== 0x{bytes(wanted).hex()}"))
    return box


def within(cells: Sequence[Byte], low: bytes, high: bytes, cube: Cube) -> Box | None:
    """What must hold for low <= cells <= high in memory order; None when it cannot."""
    if low == high:
        return equal(cells, low, cube)
    value = known(cells)
    if value is not None:
        return [] if low <= value <= high else None
    first = cells[0]
    if isinstance(first, Part) and tuple(cells) == big(first.var, len(cells)):
        wide = any(top >> (8 * len(cells)) for _, top in first.var.base)
        if not wide:
            return [(first.var, ((int.from_bytes(low), int.from_bytes(high)),))]
    if isinstance(first, Entry) and all(isinstance(c, Entry) and c.var == first.var for c in cells):
        values = []
        for value_of, row in first.rows:
            data = bytes((row[c.index] & c.mask) ^ c.flip for c in cells if isinstance(c, Entry))
            if low <= data <= high:
                values.append((value_of, value_of))
        return [(first.var, normal(values))] if values else None
    part = _enumerated(cells, low, high, cube)
    if part is not None:
        return part or None
    return undecided(cells, f"in 0x{low.hex()}-0x{high.hex()}")


def _enumerated(cells: Sequence[Byte], low: bytes, high: bytes, cube: Cube) -> Box | None:
    """`within` value by value for one unknown with few values; an empty list means it cannot hold."""
    variables = {cell.var for cell in cells if isinstance(cell, Part)}
    if len(variables) != 1 or not all(isinstance(cell, int | Part) for cell in cells):
        return None
    var = variables.pop()
    ranges = cube.get(var)
    if size(ranges) > FEW:
        return None
    values = []
    for start, end in ranges:
        for value in range(start, end + 1):
            data = bytes(
                cell
                if isinstance(cell, int)
                else ((value >> (8 * cell.index)) & cell.mask & 0xFF) ^ cell.flip
                for cell in cells
                if isinstance(cell, int | Part)
            )
            if low <= data <= high:
                values.append((value, value))
    return [(var, normal(values))] if values else []


def _fits(entry: Entry, row: bytes, byte: int) -> bool:
    return (row[entry.index] & entry.mask) ^ entry.flip == byte


def _mask(pairs: list[tuple[Part, int]]) -> str:
    mask = sum(part.mask << (8 * part.index) for part, _ in pairs)
    return f"& {mask:#x}"


def _value(pairs: list[tuple[Part, int]]) -> str:
    return f"{sum((byte ^ part.flip) << (8 * part.index) for part, byte in pairs):#x}"


def _matching(var: Var, pairs: list[tuple[Part, int]], cube: Cube) -> Ranges | None:
    """The values of `var` with (value & mask) == wanted, EMPTY for none, None when they are too scattered."""
    mask = wanted = 0
    for part, byte in pairs:
        bits = byte ^ part.flip
        if bits & ~part.mask:
            return EMPTY
        mask |= part.mask << (8 * part.index)
        wanted |= bits << (8 * part.index)
    top = max(high for _, high in var.base)
    free = ~mask & ((1 << top.bit_length()) - 1)
    if wanted > top:
        return EMPTY
    if free & (free + 1) == 0:  # the mask is a prefix
        return ((wanted, wanted | free),)
    ranges = cube.get(var)
    if size(ranges) <= FEW:
        return normal([(v, v) for low, high in ranges for v in range(low, high + 1) if v & mask == wanted])
    return None
