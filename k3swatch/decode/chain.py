"""NFT_MSG_NEWCHAIN -> ChainRef, and BaseChain for those that hang in a hook.

NFTA_CHAIN_TABLE    name
NFTA_CHAIN_HANDLE   be64
NFTA_CHAIN_NAME     name
NFTA_CHAIN_HOOK                       only base chains
    NFTA_HOOK_HOOKNUM, _PRIORITY      be32, the priority signed
    NFTA_HOOK_DEV                     name, or
    NFTA_HOOK_DEVS                    list of NFTA_DEVICE_NAME, NFTA_DEVICE_PREFIX
NFTA_CHAIN_POLICY   be32
NFTA_CHAIN_TYPE     name
"""

from __future__ import annotations

from k3swatch.decode.attributes import HEADER, TYPE_MASK, Attributes, text, walk
from k3swatch.decode.message import NFT_HEADER_LENGTH, nft_message
from k3swatch.model.expr import Code
from k3swatch.model.ruleset import BaseChain, ChainRef

NFT_MSG_NEWCHAIN = 3
_TABLE, _HANDLE, _NAME, _HOOK, _POLICY, _TYPE = 1, 2, 3, 4, 5, 7
_HOOKNUM, _PRIORITY, _DEV, _DEVS = 1, 2, 3, 4


def _device(hook: Attributes) -> str | None:
    if _DEV in hook:
        return hook.text(_DEV)
    if _DEVS in hook:
        return ",".join(text(name, "chain: hook: device") for _, name in walk(hook.raw(_DEVS), "chain: hook"))
    return None


def is_base(raw: bytes) -> bool:
    """Whether it hangs in a hook; much cheaper than reading it: a kube-proxy has thousands of chains."""
    start, end = NFT_HEADER_LENGTH, len(raw)
    while start + 4 <= end:
        length, kind = HEADER.unpack_from(raw, start)
        if length < 4 or start + length > end:
            break
        if kind & TYPE_MASK == _HOOK:
            return True
        start += length + 3 & ~3
    return start < end and any(kind == _HOOK for kind, _ in walk(raw, "chain", start))  # says what is wrong


def decode_chain(raw: bytes, order: int = 0) -> tuple[ChainRef, BaseChain | None]:
    """Where a chain is, and what it hangs in when it is a base chain; `order` is passed on to BaseChain."""
    found = nft_message(raw, NFT_MSG_NEWCHAIN, "chain")
    attributes = found.attributes("chain")
    ref = ChainRef(found.family, attributes.text(_TABLE), attributes.text(_NAME))
    if _HOOK not in attributes:
        return ref, None
    hook = attributes.nested(_HOOK, "hook")
    priority = hook.be32(_PRIORITY)
    base = BaseChain(
        ref,
        type=attributes.text(_TYPE),
        hook=hook.be32(_HOOKNUM),
        priority=priority - ((priority & 0x80000000) << 1),
        policy=attributes.be32(_POLICY, Code.ACCEPT),
        order=order,
        handle=attributes.be64(_HANDLE),
        device=_device(hook),
    )
    return ref, base
