"""NFT_MSG_NEWSET -> SetInfo.

NFTA_SET_TABLE, _NAME name, _FLAGS, _KEY_TYPE, _KEY_LEN, _DATA_TYPE, _DATA_LEN be32, _TIMEOUT be64, and
NFTA_SET_DESC / NFTA_SET_DESC_CONCAT / list of NFTA_SET_FIELD_LEN be32: bytes, whatever the header's comment
says (nft_set_desc_concat_parse).
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes, walk
from k3swatch.decode.message import nft_message
from k3swatch.model.ruleset import SetInfo

NFT_MSG_NEWSET = 9
_TABLE, _NAME, _FLAGS, _KEY_TYPE, _KEY_LEN, _DATA_TYPE, _DATA_LEN = range(1, 8)
_DESC, _TIMEOUT = 9, 11
_DESC_CONCAT = 2
_FIELD_LEN = 1
# nft's own numbers for what a key is made of (libnftables datatypes, 6 bits a part) and their bytes: ipv4_addr,
# ipv6_addr, ether_addr, ether_type, inet_proto, inet_service, mark, iface_index, ifname
_TYPE_LENGTHS = {7: 4, 8: 16, 9: 6, 10: 2, 12: 1, 13: 2, 19: 4, 22: 4, 41: 16}


def _fields_of_type(key_type: int, key_length: int) -> tuple[int, ...]:
    """The parts of a concatenation that came without a description, when nft's type says so and it adds up."""
    fields: list[int] = []
    while key_type:
        fields.insert(0, _TYPE_LENGTHS.get(key_type & 0x3F, 0))
        key_type >>= 6
    fits = all(fields) and sum(length + 3 & ~3 for length in fields) == key_length
    return tuple(fields) if len(fields) > 1 and fits else (key_length,)


def decode_set(raw: bytes) -> SetInfo:
    """Read the shape of one set or map."""
    found = nft_message(raw, NFT_MSG_NEWSET, "set")
    attributes = found.attributes("set")
    key_length, key_type = attributes.be32(_KEY_LEN), attributes.be32(_KEY_TYPE, 0)
    fields: tuple[int, ...] = ()
    if _DESC in attributes:
        desc = attributes.nested(_DESC, "desc")
        if _DESC_CONCAT in desc:
            concat = walk(desc.raw(_DESC_CONCAT), "set: desc: concat")
            fields = tuple(Attributes(field, "set: field").be32(_FIELD_LEN) for _, field in concat)
    return SetInfo(
        found.family,
        attributes.text(_TABLE),
        attributes.text(_NAME),
        flags=attributes.be32(_FLAGS, 0),
        key_length=key_length,
        key_type=key_type,
        data_type=attributes.be32(_DATA_TYPE, 0),
        data_length=attributes.be32(_DATA_LEN, 0),
        fields=fields or _fields_of_type(key_type, key_length),
        timeout=attributes.be64(_TIMEOUT, 0),
    )
