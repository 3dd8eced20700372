"""Executions and deeds as values; their layout against the C compiler's."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.compiled import printed

from k3swatch.decode import doer
from k3swatch.errors import DecodeError
from k3swatch.model.process import Ancestor, Deed, Did, Executed
from k3swatch.model.words import Family

PRINT_LAYOUT = r"""
#include <stdio.h>
#include "doer.h"
#define PRINT(number) printf("%zu\n", (size_t)(number));
int main(void) { DOER_LAYOUT(PRINT) return 0; }
"""

PRINT_ENUMS = r"""
#include <stdio.h>
#include "doer.h"
int main(void)
{
	printf("%d %d %d\n", LISTENED, CLOSED, REPLACED);
	printf("%d %d\n", LOST_EXEC, LOST_DEED);
	printf("%d %d %d\n", DOER_LAYOUT_ENTRIES, ANCESTORS, GROUPS);
	return 0;
}
"""


def test_layout_is_the_compilers(repo: Path, tmp_path: Path) -> None:
    assert tuple(map(int, printed(repo, tmp_path, PRINT_LAYOUT).split())) == doer.LAYOUT
    doer.check_layout(doer.LAYOUT)
    with pytest.raises(DecodeError, match=r"^doer: struct layout \[40\], want \["):
        doer.check_layout((40,))


def test_numbers_are_the_headers(repo: Path, tmp_path: Path) -> None:
    kinds, stats, sizes = printed(repo, tmp_path, PRINT_ENUMS).splitlines()
    assert kinds == "0 1 2"
    assert tuple(map(int, stats.split())) == (doer.LOST_EXEC, doer.LOST_DEED)
    assert tuple(map(int, sizes.split())) == (len(doer.LAYOUT), doer.ANCESTORS, doer.GROUPS)


def text(value: bytes, size: int) -> bytes:
    """A string and what was there before it."""
    return (value + b"\0" + b"\xff" * size)[:size]


def record(
    arguments: bytes = b"iptables\0-t\0nat\0",
    kept: int | None = None,
    length: int | None = None,
    depth: int = 2,
) -> bytes:
    kept = len(arguments) if kept is None else kept
    head = (2_500_000_000, 1_000_000_000, 40, 1000, len(arguments) if length is None else length, kept, depth)
    parents = (
        struct.pack("=QI4x", 900, 30)
        + text(b"portmap", 16)
        + struct.pack("=QI4x", 800, 1)
        + text(b"init", 16)
    )
    groups = text(b"cri-\x1b.scope", 96) + text(b"pod", 96) + text(b"", 96) + text(b"", 96)
    names = text(b"iptables", 16) + text(b"/usr/sbin/iptables", 128)
    rest = parents.ljust(256, b"\xff") + groups + arguments.ljust(512, b"\xff")
    return struct.pack("=QQIIIII4x", *head) + names + rest


def test_exec() -> None:
    assert doer.decode_exec(record()) == Executed(
        40, "iptables", "/usr/sbin/iptables", ("iptables", "-t", "nat"), cut=False, uid=1000, at=2.5, started=10**9,
        ancestors=(Ancestor(30, "portmap", 900), Ancestor(1, "init", 800)), groups=("cri-\x1b.scope", "pod"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "kept", "length", "words", "cut"),
    [
        (b"", 0, 0, (), False),
        (b"", 0, 40, (), True),  # it could not be read
        (b"a\0\0b\0", None, None, ("a", "", "b"), False),
        (b"x" * 511, None, 4000, ("x" * 511,), True),
        (b"\xff\xfe\0", None, None, ("\\xff\\xfe",), False),
    ],
)
def test_arguments(
    arguments: bytes, kept: int | None, length: int | None, words: tuple[str, ...], cut: bool
) -> None:
    decoded = doer.decode_exec(record(arguments, kept, length))
    assert (decoded.arguments, decoded.cut) == (words, cut)


@pytest.mark.parametrize("raw", [b"", record()[:-1], record() + b"x", record(kept=512), record(depth=9)])
def test_executions_that_do_not_fit(raw: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^exec: "):
        doer.decode_exec(raw)


def deed(kind: int, port: int = 0, family: int = 0, inode: int = 0) -> bytes:
    return struct.pack("=QIIHBBI", 5_000_000_000, 40, 41, port, kind, family, inode) + text(b"k3s", 16)


def test_deeds() -> None:
    assert doer.decode_deed(deed(0, 6443, inode=77), 1000.5) == Deed(
        Did.LISTENED, 1005.5, 40, "k3s", 6443, 77
    )
    assert doer.decode_deed(deed(1, 6443), 0).did is Did.CLOSED
    assert doer.decode_deed(deed(2, family=10), 0) == Deed(Did.REPLACED, 5.0, 40, "k3s", family=Family.IP6)


@pytest.mark.parametrize("raw", [b"", deed(0)[:-1], deed(3), deed(2, family=7)])
def test_deeds_that_do_not_fit(raw: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^deed: "):
        doer.decode_deed(raw, 0.0)


def test_ports() -> None:
    assert doer.encode_port(6443) == (6443).to_bytes(2, "little")
