"""tproxy: `tproxy to 127.0.0.1:9000`. NFTA_TPROXY_FAMILY be32, _REG_ADDR, _REG_PORT be32."""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.nft.data import register_or_none
from k3swatch.model.expr import Tproxy

_FAMILY, _REG_ADDR, _REG_PORT = 1, 2, 3


def tproxy(attributes: Attributes) -> Tproxy:
    """Hand the packet to a transparent socket; address and port are in registers."""
    family = attributes.be32(_FAMILY)
    return Tproxy(family, register_or_none(attributes, _REG_ADDR), register_or_none(attributes, _REG_PORT))
