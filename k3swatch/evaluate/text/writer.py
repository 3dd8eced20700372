"""The state of writing one rule: what each register holds, in words; what has been said; what went without saying.

nft leaves out what a later word implies: `meta l4proto tcp` before `tcp dport 6443`. Such a statement is remembered
as a dependency and taken back when the header it announces is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from k3swatch.evaluate.text.fields import Field
from k3swatch.evaluate.text.render import Render, hexadecimal
from k3swatch.model.ruleset import Element

LAYER2, LAYER3, LAYER4 = 2, 3, 4
SLOT: Final = 4  # bytes of a 32-bit register


@dataclass(frozen=True, slots=True)
class Value:
    """What a register holds: `text` in nft's words, and how constants compared with it are printed.

    `mask` and `xor` are what bitwise did to it; `rests_on` are the layers whose protocol its header implies.
    """

    text: str
    render: Render = hexadecimal
    length: int = 4
    fields: tuple[Field, ...] = ()  # of a load that nft merged from several
    bit_field: tuple[str, int, int] | None = None  # header, offset, length: to find it in BIT_FIELDS
    mask: bytes | None = None
    xor: bytes = b""
    constant: bytes | None = None
    rests_on: tuple[int, ...] = ()
    establishes: int = 0  # comparing this for equality says what the layer's protocol is
    bitset: bool = False  # `!= 0` after a mask asks for any of the bits


def slot(register: int) -> int:
    """NFT_REG_1..4 (16 bytes each) and NFT_REG32_00.. (4 bytes each) -> index in units of 4 bytes."""
    return (register - 1) * 4 if register < 8 else register - 8


def slots(length: int) -> int:
    """How many 32-bit registers `length` bytes take, of the sixteen there are."""
    return min((length + SLOT - 1) // SLOT, 16)


Members = Callable[[str], Sequence[Element] | None]
"""The elements of a set by its name; None: show the name."""


@dataclass(slots=True)
class Writer:
    """One rule in the making. `family` is the table's: ip, ip6, inet, ..."""

    family: str
    members: Members | None = None
    layer3: int | None = None  # nfproto known so far
    layer4: int | None = None  # IPPROTO_* known so far
    said: list[str] = field(default_factory=list)
    low: str = ""  # of a range whose high end may follow: nft writes two comparisons
    _registers: dict[int, tuple[Value, int]] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)  # layer -> index in `said`
    _named: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.layer3 = {"ip": 2, "ip6": 10}.get(self.family)

    def say(self, text: str) -> None:
        """Add a statement; the headers it names make what announced them superfluous."""
        for layer in self._named:
            held = self._held.pop(layer, None)
            if held is not None:
                self.said[held] = ""
        self._named.clear()
        self.said.append(text)

    def name(self, *layers: int) -> None:
        """The next statement names a header that implies the protocol of these layers."""
        self._named.update(layers)

    def depend(self, layer: int, number: int, text: str) -> None:
        """Say what establishes a layer, ready to be taken back."""
        self.say(text)
        self._held[layer] = len(self.said) - 1
        self.know(layer, number)

    def know(self, layer: int, number: int) -> None:
        """From here on the network (LAYER3) or transport (LAYER4) protocol is this."""
        if layer == LAYER3:
            self.layer3 = number
        elif layer == LAYER4:
            self.layer4 = number

    def load(self, register: int, value: Value) -> None:
        """Put a value into a register, over all it covers."""
        at = slot(register)
        for covered in range(at + 1, at + slots(value.length)):
            self._registers.pop(covered, None)
        self._registers[at] = (value, len(self.said))

    def value(self, register: int) -> Value:
        """What the register holds; a Value of `?` when nothing we know put it there."""
        value = self._registers.get(slot(register), (Value("?"), 0))[0]
        self.name(*value.rests_on)
        return value

    def holds(self, register: int) -> bool:
        """Whether something was put into exactly this register."""
        return slot(register) in self._registers

    def key(self, register: int, length: int | None = None) -> tuple[Value, ...]:
        """The values from this register on that were loaded for the same purpose: the parts of a concatenation."""
        at = slot(register)
        end = at + slots(length) if length is not None else None
        parts: list[Value] = []
        age: int | None = None
        while at in self._registers and (end is None or at < end):
            value, loaded = self._registers[at]
            if age is not None and loaded != age:
                break
            age = loaded
            self.name(*value.rests_on)
            parts.append(value)
            at += max(1, slots(value.length))
        return tuple(parts) or (Value("?"),)

    def text(self) -> str:
        """Everything said, in order."""
        return " ".join(filter(None, self.said))
