"""Blobs of xtables matches and targets (nft_compat or legacy rules) -> `model.xt` values. Pure, never raises.

None means: a name, revision or size we do not read, or a value the kernel would not take. The evaluator then takes
the match for a maybe, never for a no. Structures are those of `uapi/linux/netfilter/xt_*.h` and its ip and ip6
siblings, on a 64-bit kernel.
"""

from __future__ import annotations

from k3swatch.decode.xt import actions, addresses, bridge, connection, host, marks, meters, nat, packet, ports
from k3swatch.decode.xt.blob import Layouts, fits
from k3swatch.model.xt import XtSpec

IPV4, IPV6 = 2, 10  # NFPROTO_*: ebtables and arptables reuse names with other structures

MATCHES: dict[int, Layouts] = {
    nfproto: ports.MATCHES
    | addresses.MATCHES
    | connection.MATCHES
    | marks.MATCHES
    | meters.MATCHES
    | host.MATCHES
    | packet.layouts(nfproto)
    for nfproto in (IPV4, IPV6)
} | {bridge.NFPROTO_BRIDGE: bridge.MATCHES}
TARGETS: dict[int, Layouts] = {
    nfproto: marks.TARGETS | actions.TARGETS | nat.layouts(nfproto) for nfproto in (IPV4, IPV6)
} | {bridge.NFPROTO_BRIDGE: bridge.TARGETS}


def decode_match(name: str, revision: int, info: bytes, nfproto: int) -> XtSpec | None:
    """What the match asks. `nfproto` is 2 (ip), 10 (ip6) or 7 (bridge); `info` may carry padding to 8 bytes."""
    return _decode(MATCHES, name, revision, info, nfproto)


def decode_target(name: str, revision: int, info: bytes, nfproto: int) -> XtSpec | None:
    """What the target does; same arguments as `decode_match`."""
    return _decode(TARGETS, name, revision, info, nfproto)


def _decode(tables: dict[int, Layouts], name: str, revision: int, info: bytes, nfproto: int) -> XtSpec | None:
    size, read = tables.get(nfproto, {}).get((name, revision), (0, None))
    return read(info, nfproto) if read and fits(info, size) else None
