"""NFT_MSG_NEWSETELEM -> Element: whole sets as inclusive intervals, or the answer to one lookup.

NFTA_SET_ELEM_LIST_TABLE, _SET      name
NFTA_SET_ELEM_LIST_ELEMENTS         list of
    NFTA_SET_ELEM_KEY               NFTA_DATA_VALUE
    NFTA_SET_ELEM_KEY_END           NFTA_DATA_VALUE: the last key, inclusive (concatenations of ranges)
    NFTA_SET_ELEM_DATA              NFTA_DATA: value or verdict, or
    NFTA_SET_ELEM_OBJREF            name of an object
    NFTA_SET_ELEM_FLAGS             be32: 1 INTERVAL_END, 2 CATCHALL
    NFTA_SET_ELEM_USERDATA          TLVs, type 0 is the comment
    NFTA_SET_ELEM_EXPR, _EXPRESSIONS
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from k3swatch.decode.attributes import Attributes, walk
from k3swatch.decode.message import nft_message
from k3swatch.decode.nft.data import data, value
from k3swatch.decode.nft.sets import refuse_deciding
from k3swatch.decode.rule import comment
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Verdict
from k3swatch.model.ruleset import SET_INTERVAL, Element, Found, SetInfo

NFT_MSG_NEWSETELEM = 12
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_KEY, _DATA, _FLAGS, _USERDATA, _EXPR, _OBJREF, _KEY_END, _EXPRESSIONS = 1, 2, 3, 6, 7, 9, 10, 11
_INTERVAL_END, _CATCHALL = 1, 2


class _Boundary(NamedTuple):
    """One element as the kernel has it."""

    key: bytes
    key_end: bytes | None
    flags: int
    data: bytes | None
    verdict: Verdict | None
    comment: str | None

    def element(self, high: bytes) -> Element:
        """The interval that begins here."""
        return Element(
            self.key, high, self.data, self.verdict, bool(self.flags & _CATCHALL), comment=self.comment
        )


def _boundary(raw: bytes, info: SetInfo) -> _Boundary:
    attributes = Attributes(raw, f"set {info.name}: element", known=11)
    if _EXPR in attributes:
        refuse_deciding(attributes.raw(_EXPR), attributes.where)
    if _EXPRESSIONS in attributes:
        for _, expression in walk(attributes.raw(_EXPRESSIONS), attributes.where):
            refuse_deciding(expression, attributes.where)
    flags = attributes.be32(_FLAGS, 0)
    key = b"" if flags & _CATCHALL else value(attributes, _KEY)
    key_end = value(attributes, _KEY_END) if _KEY_END in attributes else None
    if not flags & _CATCHALL and not len(key) == len(key_end or key) == info.key_length:
        raise DecodeError(f"{attributes.where}: key of {len(key)} bytes, want {info.key_length}")
    content: bytes | None = None
    verdict: Verdict | None = None
    if _DATA in attributes:
        content, verdict = data(attributes, _DATA)
        content = None if verdict else content
    elif _OBJREF in attributes:
        content = attributes.text(_OBJREF).encode()
    userdata = attributes.raw(_USERDATA) if _USERDATA in attributes else None
    return _Boundary(key, key_end, flags, content, verdict, comment(userdata))


def _boundaries(messages: Iterable[bytes], info: SetInfo) -> Iterator[_Boundary]:
    for raw in messages:
        attributes = nft_message(raw, NFT_MSG_NEWSETELEM, f"set {info.name}").attributes(f"set {info.name}")
        if _ELEMENTS in attributes:
            for _, element in walk(attributes.raw(_ELEMENTS), attributes.where):
                yield _boundary(element, info)


def _before(key: bytes) -> bytes:
    """The key just below, in memcmp order."""
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")


def _intervals(boundaries: list[_Boundary], info: SetInfo) -> Iterator[Element]:
    """Pair starts with INTERVAL_END marks (which are exclusive) as nft_rbtree reads them: the nearest
    boundary at or below a key tells, and where an end and a start share a key the start wins.
    """
    begun: _Boundary | None = None
    for boundary in sorted(boundaries, key=lambda each: (each.key, not each.flags & _INTERVAL_END)):
        if begun is not None and boundary.key != begun.key:
            yield begun.element(_before(boundary.key))
        begun = None if boundary.flags & _INTERVAL_END else boundary
    if begun is not None:
        yield begun.element(b"\xff" * info.key_length)


def elements_of(raw: bytes) -> tuple[str, str, str]:
    """Which set a message of elements belongs to: family, table, name."""
    message = nft_message(raw, NFT_MSG_NEWSETELEM, "elements")
    attributes = message.attributes("elements")
    return message.family, attributes.text(_TABLE), attributes.text(_SET)


def decode_elements(messages: Iterable[bytes], info: SetInfo) -> list[Element]:
    """All elements of one set's dump, sorted by key; the catch-all is last."""
    plain: list[Element] = []
    catchall: list[Element] = []
    marks: list[_Boundary] = []
    for boundary in _boundaries(messages, info):
        if boundary.flags & _CATCHALL:
            catchall.append(boundary.element(b""))
        elif info.flags & SET_INTERVAL and boundary.key_end is None and len(info.fields) == 1:
            marks.append(boundary)
        else:
            plain.append(boundary.element(boundary.key_end or boundary.key))
    return sorted([*plain, *_intervals(marks, info)], key=lambda each: each.low) + catchall


def decode_found(raw: bytes, info: SetInfo) -> Found:
    """The answer to GETSETELEM for one key: what the element that holds it carries."""
    found = list(_boundaries([raw], info))
    if len(found) != 1:
        raise DecodeError(f"set {info.name}: {len(found)} elements in answer to one key")
    return Found(found[0].data, found[0].verdict)
