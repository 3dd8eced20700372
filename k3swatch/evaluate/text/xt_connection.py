"""What xt_state and xt_conntrack ask, in the words of nft's `ct`."""

from __future__ import annotations

from typing import Final

from k3swatch.evaluate.text import symbols
from k3swatch.evaluate.text.compare import prefix
from k3swatch.evaluate.text.xt_words import unless
from k3swatch.model.xt import Conntrack, State

# bits of xt_conntrack.h
STATES: Final = {
    1: "invalid",
    2: "established",
    4: "related",
    8: "new",
    64: "snat",
    128: "dnat",
    256: "untracked",
}
NATTED: Final = 64 | 128
STATE, PROTO, STATUS, EXPIRES, DIRECTION = 1 << 0, 1 << 1, 1 << 6, 1 << 7, 1 << 12
ADDRESSES: Final = (
    (1 << 2, "original", "saddr", "origsrc"),
    (1 << 3, "original", "daddr", "origdst"),
    (1 << 4, "reply", "saddr", "replsrc"),
    (1 << 5, "reply", "daddr", "repldst"),
)
PORTS: Final = (
    (1 << 8, "original proto-src", "origsrc_port"),
    (1 << 9, "original proto-dst", "origdst_port"),
    (1 << 10, "reply proto-src", "replsrc_port"),
    (1 << 11, "reply proto-dst", "repldst_port"),
)


def _states(mask: int, invert: int) -> str:
    # SNAT and DNAT are states to iptables and status bits to nft
    key = "status" if mask & NATTED and not mask & ~NATTED else "state"
    return f"ct {key} {unless(invert)}{symbols.bits(mask, STATES)}"


def state(spec: State) -> str:
    """`ct state new,established`."""
    return _states(spec.mask, spec.invert)


def connection(spec: Conntrack) -> str:
    """`ct state new ct original ip daddr 10.0.0.0/8 ct original proto-dst 6443`."""
    parts = []
    if spec.match & STATE:
        parts.append(_states(spec.state_mask, spec.invert & STATE))
    if spec.match & DIRECTION:
        parts.append(f"ct direction {'reply' if spec.invert & DIRECTION else 'original'}")
    if spec.match & PROTO:
        name = symbols.PROTOCOLS.get(spec.protocol, str(spec.protocol))
        parts.append(f"ct protocol {unless(spec.invert & PROTO)}{name}")
    for bit, way, key, field in ADDRESSES:
        if spec.match & bit:
            address, mask = getattr(spec, field)
            family = "ip6" if len(address) == 16 else "ip"
            parts.append(f"ct {way} {family} {key} {unless(spec.invert & bit)}{prefix(address, mask)}")
    for bit, name, field in PORTS:
        if spec.match & bit:
            low, high = getattr(spec, field)
            ports = str(low) if low == high else f"{low}-{high}"
            parts.append(f"ct {name} {unless(spec.invert & bit)}{ports}")
    if spec.match & STATUS:
        parts.append(
            f"ct status {unless(spec.invert & STATUS)}{symbols.bits(spec.status_mask, symbols.CT_STATUSES)}"
        )
    if spec.match & EXPIRES:
        parts.append(f"ct expiration {unless(spec.invert & EXPIRES)}{spec.expires[0]}-{spec.expires[1]}s")
    return " ".join(parts)
