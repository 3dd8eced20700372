"""NFT_MSG_NEWTABLE -> Table: NFTA_TABLE_NAME name, NFTA_TABLE_FLAGS be32 (enum nft_table_flags)."""

from __future__ import annotations

from typing import NamedTuple

from k3swatch.decode.message import nft_message
from k3swatch.model.ruleset import TABLE_DORMANT

NFT_MSG_NEWTABLE = 0
_NAME, _FLAGS = 1, 2


class Table(NamedTuple):
    """A table; the hooks of a dormant one are not registered."""

    family: str
    name: str
    flags: int

    @property
    def dormant(self) -> bool:
        """Whether its rules have no effect now."""
        return bool(self.flags & TABLE_DORMANT)


def decode_table(raw: bytes) -> Table:
    """Read one table."""
    found = nft_message(raw, NFT_MSG_NEWTABLE, "table")
    attributes = found.attributes("table")
    return Table(found.family, attributes.text(_NAME), attributes.be32(_FLAGS, 0))
