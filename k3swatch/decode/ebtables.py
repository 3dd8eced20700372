"""The entries of an ebtables-legacy table: whether they do anything at all.

Follows struct ebt_entries of `uapi/linux/netfilter_bridge/ebtables.h` and EBT_ENTRY_ITERATE. What the rules say is not
read.
"""

from __future__ import annotations

import struct

from k3swatch.errors import DecodeError

# struct ebt_entries: distinguisher, name, counter_offset, policy, nentries
_CHAIN = struct.Struct("=I32sIiI")
_ACCEPT = -1  # EBT_ACCEPT


def idle(entries: bytes) -> bool:
    """Whether a table only has empty chains that accept, as it is made: then it lets everything through.

    DecodeError when a chain is cut short.
    """
    where = 0
    while where < len(entries):
        if len(entries) - where < _CHAIN.size:
            raise DecodeError(f"ebtables-legacy: {len(entries) - where} stray bytes after the last chain")
        distinguisher, _, _, policy, rules = _CHAIN.unpack_from(entries, where)
        # the first is a rule's bitmask where it is not a chain
        if distinguisher or rules or policy != _ACCEPT:
            return False
        where += _CHAIN.size
    return True
