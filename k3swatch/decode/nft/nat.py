"""nat, redir, masq: `dnat to 10.42.0.244:6443`, `redirect to :7443`, `masquerade`.

NFTA_NAT_TYPE, _FAMILY, _REG_ADDR_MIN, _REG_ADDR_MAX, _REG_PROTO_MIN, _REG_PROTO_MAX, _FLAGS be32;
NFTA_REDIR_REG_PROTO_MIN, _REG_PROTO_MAX, _FLAGS be32; NFTA_MASQ_FLAGS, _REG_PROTO_MIN, _REG_PROTO_MAX be32.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register_or_none
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Masq, Nat, Redir

_TYPE, _FAMILY, _ADDR_MIN, _ADDR_MAX, _PROTO_MIN, _PROTO_MAX, _FLAGS = range(1, 8)
_REDIR_MIN, _REDIR_MAX, _REDIR_FLAGS = 1, 2, 3
_MASQ_FLAGS, _MASQ_MIN, _MASQ_MAX = 1, 2, 3


def nat(attributes: Attributes) -> Nat:
    """Source or destination NAT; the addresses and ports are in registers. The kernel fills in a left-out
    end.
    """
    kind = attributes.be32(_TYPE)
    if kind > 1:
        raise DecodeError(f"{attributes.where}: no NAT type {kind}")
    low, proto_low = register_or_none(attributes, _ADDR_MIN), register_or_none(attributes, _PROTO_MIN)
    high, proto_high = register_or_none(attributes, _ADDR_MAX), register_or_none(attributes, _PROTO_MAX)
    return Nat(
        kind,
        attributes.be32(_FAMILY),
        low,
        low if high is None else high,
        proto_low,
        proto_low if proto_high is None else proto_high,
        attributes.be32(_FLAGS, 0),
    )


def redir(attributes: Attributes) -> Redir:
    """To this host, on the port of a register when there is one."""
    low, high = register_or_none(attributes, _REDIR_MIN), register_or_none(attributes, _REDIR_MAX)
    return Redir(low, low if high is None else high, attributes.be32(_REDIR_FLAGS, 0))


def masq(attributes: Attributes) -> Masq:
    """Source NAT to the address of the outgoing interface, and to a port of some when there are registers."""
    low, high = register_or_none(attributes, _MASQ_MIN), register_or_none(attributes, _MASQ_MAX)
    return Masq(attributes.be32(_MASQ_FLAGS, 0), low, low if high is None else high)
