"""NFT_MSG_NEWGEN: which generation of the ruleset this is, and which process made it."""

from __future__ import annotations

from typing import NamedTuple

from k3swatch.decode.attributes import display
from k3swatch.decode.message import nft_message

NFT_MSG_NEWGEN = 15
_ID, _PROC_PID, _PROC_NAME = 1, 2, 3  # NFTA_GEN_*


class Generation(NamedTuple):
    """`comm` is 15 characters of whoever committed, and hostile text; both are absent before kernel 4.15."""

    id: int
    pid: int | None
    comm: str | None


def decode_newgen(raw: bytes) -> Generation:
    """Read a NEWGEN event, or the answer to GETGEN (there pid and comm are our own)."""
    attributes = nft_message(raw, NFT_MSG_NEWGEN, "generation").attributes("generation")
    return Generation(
        attributes.be32(_ID),
        attributes.be32(_PROC_PID) if _PROC_PID in attributes else None,
        display(attributes.raw(_PROC_NAME)) if _PROC_NAME in attributes else None,
    )
