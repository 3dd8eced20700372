"""Blobs of xtables matches and targets (nft_compat or legacy rules) -> `model.xt` values. Pure, never raises.

None means: a name, revision or size we do not read. The evaluator then takes the match for a maybe, never for a no.
"""

from __future__ import annotations

from k3swatch.model.xt import XtSpec


def decode_match(name: str, revision: int, info: bytes, nfproto: int) -> XtSpec | None:
    """What the match asks. `nfproto` is 2 (ip) or 10 (ip6); `info` may carry the kernel's padding to 8 bytes."""
    return None


def decode_target(name: str, revision: int, info: bytes, nfproto: int) -> XtSpec | None:
    """What the target does; same arguments as `decode_match`."""
    return None
