"""Hostile text: what a terminal or a journal reader sees of it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3swatch.view.escape import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('dnat name: "cbr0" id: "3b1f"', 'dnat name: "cbr0" id: "3b1f"'),
        ("Dienst für größere Fälle → 日本", "Dienst für größere Fälle → 日本"),
        ("one\ntwo\r\n\tthree", r"one\ntwo\r\n\tthree"),
        ("clear \x1b[2J\x1b[1;1H screen", r"clear \x1b[2J\x1b[1;1H screen"),
        ("C1 \x9b31m, DEL \x7f, NUL \0", r"C1 \x9b31m, DEL \x7f, NUL \x00"),
        ("title \x1b]0;owned\x07", r"title \x1b]0;owned\x07"),
        ("bidi \u202egnp.exe\u202c \u2066x\u2069", r"bidi \u202egnp.exe\u202c \u2066x\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("line\u2028separators\u2029 and\xa0space", r"line\u2028separators\u2029 and\xa0space"),
        ("tags \U000e0041 private \ue000", r"tags \U000e0041 private \ue000"),
        (b"not utf-8 \xff\xfe".decode("utf-8", "surrogateescape"), r"not utf-8 \xff\xfe"),
        ("lone \ud800", r"lone \ud800"),
        ("", ""),
    ],
)
def test_what_does_not_print_is_shown(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_all_256_bytes() -> None:
    junk = bytes(range(256))
    shown = escape(junk.decode("utf-8", "surrogateescape"))
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith(r"\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r")
    assert shown.endswith(r"\xfd\xfe\xff")
    assert escape(junk.decode("latin-1")).isprintable()


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab\x1bcdef", 6, "ab…"),  # never half an escape
        ("ab\x1b", 6, r"ab\x1b"),
        ("\x1b" * 9, 6, r"\x1b…"),
        ("\x1b", 1, "…"),
    ],
)
def test_bounded(text: str, limit: int, shown: str) -> None:
    assert escape(text, limit) == shown


@given(st.text(st.characters(codec=None, categories=None)), st.integers(1, 60))
def test_always_printable_bounded_and_encodable(text: str, limit: int) -> None:
    shown = escape(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert not any(unicodedata.category(character)[0] == "C" for character in shown)
    shown.encode()
    if len(text) <= limit and text.isprintable():
        assert shown == text
