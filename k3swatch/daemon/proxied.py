"""Whether kube-proxy still serves a ClusterIP: the second source for a Service that the datastore does not have.

iptables mode: a rule of KUBE-SERVICES for the address. nftables mode: an element of the verdict map `service-ips`,
whose keys are address . protocol . port (kubernetes pkg/proxy/nftables).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k3swatch.errors import DecodeError, SourceError
from k3swatch.model.ruleset import LEGACY, ChainRef, Ruleset

ELEMENTS = 8192  # of service-ips; on a cluster with more, nothing is concluded


def proxied(ruleset: Ruleset | None, addresses: Sequence[str]) -> bool | None:
    """Whether kube-proxy has one of these ClusterIPs; None: it cannot be told."""
    if ruleset is None:
        return None
    wanted = {ipaddress.ip_address(address).packed for address in addresses}
    answers = [_by_rules(ruleset, wanted), _by_map(ruleset, wanted)]
    if True in answers:
        return True
    return False if False in answers else None


def _by_rules(ruleset: Ruleset, wanted: set[bytes]) -> bool | None:
    looked = False
    for family in ("ip", "ip6", f"{LEGACY} ip", f"{LEGACY} ip6"):
        try:
            rules = ruleset.rules(ChainRef(family, "nat", "KUBE-SERVICES"))
        except (SourceError, DecodeError):
            continue
        if any(rule.daddr in wanted for rule in rules):
            return True
        looked = looked or bool(rules)
    return False if looked else None


def _by_map(ruleset: Ruleset, wanted: set[bytes]) -> bool | None:
    looked = False
    for family, size in (("ip", 4), ("ip6", 16)):
        try:
            elements = ruleset.elements(ruleset.set_info(family, "kube-proxy", "service-ips"), ELEMENTS)
        except (SourceError, DecodeError):
            continue
        if elements is None:
            return None
        if any(element.low[:size] in wanted for element in elements):
            return True
        looked = looked or bool(elements)
    return False if looked else None
