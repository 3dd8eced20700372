"""mark and connmark, match and target, HMARK. `uapi/linux/netfilter/xt_mark.h`, `xt_connmark.h`, `xt_HMARK.h`."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts
from k3swatch.model.xt import AnyMark, Mark, SetMark, XtSpec

RESTORE = 2  # XT_CONNMARK_RESTORE, the last of the modes
SHIFT_RIGHT = 1  # D_SHIFT_RIGHT


def mark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_mark_mtinfo1: `-m mark --mark 0x4000/0x4000`."""
    value, mask, invert = unpack_from("=2IB", info)
    return Mark(value, mask, bool(invert))


def connmark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_connmark_mtinfo1: `-m connmark ! --mark 1/0xff`."""
    value, mask, invert = unpack_from("=2IB", info)
    return Mark(value, mask, bool(invert), conntrack=True)


def set_mark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_mark_tginfo2: `-j MARK --set-xmark value/mask`."""
    value, mask = unpack_from("=2I", info)
    return SetMark(clear=mask, flip=value)


def set_connmark_v1(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_connmark_tginfo1: as v2 without shift."""
    value, mask, nfmask, mode = unpack_from("=3IB", info)
    if mode > RESTORE:
        return None
    return SetMark(clear=mask, flip=value, conntrack=True, op=mode, nfmask=nfmask)


def set_connmark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_connmark_tginfo2: `-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff`."""
    value, mask, nfmask, direction, bits, mode = unpack_from("=3I3B", info)
    if mode > RESTORE or direction > SHIFT_RIGHT:
        return None
    shift = -bits if direction == SHIFT_RIGHT else bits
    return SetMark(clear=mask, flip=value, conntrack=True, op=mode, nfmask=nfmask, shift=shift)


def hmark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_hmark_info: the mark becomes `offset + hash % modulus`."""
    modulus, offset = unpack_from("=2I", info, 52)
    return AnyMark(f"HMARK hash mod {modulus} offset {offset}")


MATCHES: Layouts = {("mark", 1): (12, mark), ("connmark", 1): (12, connmark)}

TARGETS: Layouts = {
    ("MARK", 2): (8, set_mark),
    ("CONNMARK", 1): (16, set_connmark_v1),
    ("CONNMARK", 2): (16, set_connmark),
    ("HMARK", 0): (60, hmark),
}
