"""state and conntrack: what conntrack says of the packet. `uapi/linux/netfilter/xt_state.h`, `xt_conntrack.h`."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts, address
from k3swatch.model.xt import Conntrack, State, XtSpec

# enum of xt_conntrack.h
STATE, STATE_ALIAS = 1 << 0, 1 << 13
KNOWN = (1 << 14) - 1
UNTRACKED_IN_STATE, UNTRACKED = 1 << 6, 1 << 8  # XT_STATE_UNTRACKED, XT_CONNTRACK_STATE_UNTRACKED


def state(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_state_info: `-m state --state NEW`, from an iptables older than the one that maps it to conntrack."""
    (mask,) = unpack_from("=I", info)
    if mask & ~0x4F:
        return None
    if mask & UNTRACKED_IN_STATE:
        mask = mask & ~UNTRACKED_IN_STATE | UNTRACKED
    return State(mask)


def conntrack_v1(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_conntrack_mtinfo1: single ports in network order, masks of one byte."""
    ports = unpack_from(">4H", info, 138)
    match, invert, states, status = unpack_from("=2H2B", info, 146)
    return _conntrack(info, nfproto, match, invert, states, status, ports, ports)


def conntrack_v2(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_conntrack_mtinfo2: as v1 with masks of two bytes."""
    ports = unpack_from(">4H", info, 138)
    match, invert, states, status = unpack_from("=4H", info, 146)
    return _conntrack(info, nfproto, match, invert, states, status, ports, ports)


def conntrack(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_conntrack_mtinfo3: port ranges in host order. `-m conntrack --ctstate NEW --ctorigdstport 6443`."""
    low = unpack_from("=4H", info, 138)
    match, invert, states, status = unpack_from("=4H", info, 146)
    high = unpack_from("=4H", info, 154)
    return _conntrack(info, nfproto, match, invert, states, status, low, high)


def _conntrack(
    info: bytes,
    nfproto: int,
    match: int,
    invert: int,
    states: int,
    status: int,
    low: tuple[int, ...],
    high: tuple[int, ...],
) -> XtSpec | None:
    if match & ~KNOWN:
        return None
    match &= ~STATE_ALIAS  # only says that the rule was typed as -m state
    if match == STATE:
        return State(states, bool(invert & STATE))
    pairs = [
        (address(info[at : at + 16], nfproto), address(info[at + 16 : at + 32], nfproto))
        for at in (0, 32, 64, 96)
    ]
    expires_low, expires_high, protocol = unpack_from("=2IH", info, 128)
    return Conntrack(
        match,
        invert,
        state_mask=states,
        status_mask=status,
        protocol=protocol,
        origsrc=pairs[0],
        origdst=pairs[1],
        replsrc=pairs[2],
        repldst=pairs[3],
        origsrc_port=(low[0], high[0]),
        origdst_port=(low[1], high[1]),
        replsrc_port=(low[2], high[2]),
        repldst_port=(low[3], high[3]),
        expires=(expires_low, expires_high),
    )


MATCHES: Layouts = {
    ("state", 0): (4, state),
    ("conntrack", 1): (152, conntrack_v1),
    ("conntrack", 2): (156, conntrack_v2),
    ("conntrack", 3): (164, conntrack),
}
