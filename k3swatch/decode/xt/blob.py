"""What all blob readers share: when a blob fits its C structure, C strings, addresses, and rates in words.

`string` is what a C string shows: up to the NUL, bytes that are not UTF-8 as `\\xNN`.
"""

from __future__ import annotations

from collections.abc import Callable

from k3swatch.decode.attributes import display as string
from k3swatch.model.xt import XtSpec

__all__ = ["IPV4", "Layouts", "Reader", "address", "fits", "rate", "span", "string"]

Reader = Callable[[bytes, int], XtSpec | None]
"""Blob and nfproto (2 or 10) -> what it says. The blob is at least as long as its structure; None: senseless."""

Layouts = dict[tuple[str, int], tuple[int, Reader]]
"""(name, revision) -> sizeof its structure on a 64-bit kernel, and the reader."""

IPV4 = 2  # NFPROTO_IPV4


def fits(info: bytes, size: int) -> bool:
    """Whether the blob is the structure, or the structure padded as XT_ALIGN does."""
    return len(info) in (size, (size + 7) & ~7)


def address(union: bytes, nfproto: int) -> bytes:
    """`union nf_inet_addr` (16 bytes) -> the 4 or 16 bytes in use."""
    return union[:4] if nfproto == IPV4 else union[:16]


def span(low: int, high: int) -> str:
    """`5` or `5-9`."""
    return str(low) if low == high else f"{low}-{high}"


def rate(cost: int, scale: int) -> str:
    """`10/second` from the time between packets in units of 1/scale second, as xt_limit and xt_hashlimit keep it."""
    if not cost:
        return "unlimited"
    for seconds, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if scale * seconds >= cost:
            return f"{round(scale * seconds / cost)}/{unit}"
    return f"{round(scale * 86400 / cost)}/day"
