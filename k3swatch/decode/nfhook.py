"""NFNL_MSG_HOOK_GET -> RegisteredHook: one function that netfilter calls at a hook.

Follows nfnl_hook_dump_one (net/netfilter/nfnetlink_hook.c). Names are the kernel's symbols, shortened to what is shown.
"""

from __future__ import annotations

from typing import NamedTuple

from k3swatch.decode.attributes import Attributes, display
from k3swatch.decode.message import message
from k3swatch.errors import DecodeError

_HOOK_GET = 12 << 8  # NFNL_SUBSYS_HOOK, NFNL_MSG_HOOK_GET
_HOOKNUM, _PRIORITY, _FUNCTION, _MODULE, _CHAIN_INFO = 1, 2, 4, 5, 6  # NFNLA_HOOK_*
_INFO_DESC, _INFO_TYPE, _BPF_ID = 1, 2, 1  # NFNLA_HOOK_INFO_*, NFNLA_HOOK_BPF_ID
_TYPE_BPF = 2  # NFNL_HOOK_TYPE_BPF
_SHOWN = 64


class RegisteredHook(NamedTuple):
    """`family` is NFPROTO_*, `number` the hook's; `module` is empty for what is built into the kernel, `program` the id
    of a BPF program (0: none, or a kernel that does not say so)."""

    family: int
    number: int
    priority: int
    function: str
    module: str = ""
    program: int = 0


def decode_hook(raw: bytes) -> RegisteredHook:
    """One message of a dump. DecodeError when it is none."""
    found = message(raw)
    if found.type != _HOOK_GET or len(found.body) < 4:
        raise DecodeError(f"netfilter hook: message of type {found.type} with {len(found.body)} bytes")
    inside = Attributes(found.body[4:], "netfilter hook")
    priority = inside.be32(_PRIORITY)
    program = 0
    if _CHAIN_INFO in inside:
        info = inside.nested(_CHAIN_INFO, "chain")
        if info.be32(_INFO_TYPE, 0) == _TYPE_BPF and _INFO_DESC in info:
            program = info.nested(_INFO_DESC, "program").be32(_BPF_ID, 0)
    return RegisteredHook(
        found.body[0],
        inside.be32(_HOOKNUM),
        priority - (1 << 32) if priority >> 31 else priority,
        display(inside.raw_or_empty(_FUNCTION))[:_SHOWN],
        display(inside.raw_or_empty(_MODULE))[:_SHOWN],
        program,
    )
