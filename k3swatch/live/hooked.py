"""Whoever else has hooked into netfilter: BPF programs, ebtables-legacy, kernel modules that are not known here.

What the kernel calls beside nf_tables and iptables sees every packet, and may keep it. None of it can be read (of
ebtables-legacy it is not), so it is told like any BPF program: docs/adr/0017.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from k3swatch.decode.ebtables import idle
from k3swatch.decode.nfhook import RegisteredHook, decode_hook
from k3swatch.errors import Unsupported
from k3swatch.model.port import NETFILTER, UNTOLD, Host, Program
from k3swatch.sources import ebtables, nfhooks

_IP, _BRIDGE, _IP6 = 2, 7, 10  # NFPROTO_*
_FAMILIES = {_IP: "ip", _BRIDGE: "bridge", _IP6: "ip6"}
_NAMES = ("prerouting", "input", "forward", "output", "postrouting")
_WAYS = (0, 1, 3, 4)  # what a connection to this host passes; forward: only what NAT has sent elsewhere

# NF_BR_PRI_* of ebtable_filter.c and ebtable_nat.c; broute has a function of its own
_TABLES = {-200: "filter", 200: "filter", -300: "nat", 100: "nat", 300: "nat"}
_EBTABLES = ("ebt_", "ebtable_")

# modules of the kernel's own whose hooks are evaluated (nf_tables, legacy tables, IPVS, conntrack, br_netfilter), or
# neither send nor keep what is for this host
_KNOWN: Final = frozenset(
    (
        *("nf_tables", "nft_chain_nat", "nft_chain_filter", "nft_synproxy", "nf_flow_table"),
        *("nf_conntrack", "nf_conntrack_bridge", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_nat"),
        *("ip_tables", "iptable_nat", "iptable_filter", "iptable_mangle", "iptable_raw", "iptable_security"),
        *(
            "ip6_tables",
            "ip6table_nat",
            "ip6table_filter",
            "ip6table_mangle",
            "ip6table_raw",
            "ip6table_security",
        ),
        *("ip_vs", "bridge", "br_netfilter", "nf_synproxy_core", "ipt_SYNPROXY", "ip6t_SYNPROXY", "ipvlan"),
    )
)
# the same where they are built in: how the names of their functions begin; and security modules, which label packets
_BUILT_IN = (
    "nf_", "nft_", "ipv4_conntrack", "ipv6_conntrack", "ipv4_defrag", "ipv6_defrag", "ipt_", "ip6t_", "iptable_",
    "ip6table_", "ip_vs_", "br_nf_", "ip_sabotage_in", "ipv4_synproxy", "ipv6_synproxy", "ipvlan_", "selinux_",
    "smack_", "apparmor_",
)  # fmt: skip
_BPF = "nf_hook_run_bpf"


def others(host: Host) -> Iterator[Program]:
    """Those there are now; where the kernel does not list hooks, only ebtables-legacy. Raises what reading does."""
    bridged = any(each.kind == "bridge" and host.ports(each.index) for each in host.interfaces)
    places = {_IP: _WAYS, _IP6: _WAYS, **({_BRIDGE: range(len(_NAMES))} if bridged else {})}
    try:
        found = [decode_hook(raw) for raw in nfhooks.hooks(places)]
    except Unsupported:
        yield from _ruled(ebtables.ruled_tables() if bridged else ())
        return
    yield from _ruled(dict.fromkeys(filter(None, map(_table, found))))
    for hook in found:
        if not _table(hook) and not _known(hook):
            yield _told(hook)


def _ruled(tables: Iterable[str]) -> Iterator[Program]:
    """Of ebtables-legacy, the tables that do anything."""
    for table in tables:
        if not idle(ebtables.read_ebtables(table)):
            yield Program(f"{NETFILTER} bridge", f"ebtables {table}", 0, "ebtables-legacy")


def _table(hook: RegisteredHook) -> str:
    """The table of ebtables-legacy whose function it is; empty for any other."""
    if hook.family != _BRIDGE or not hook.function.startswith(_EBTABLES):
        return ""
    return "broute" if "broute" in hook.function else _TABLES.get(hook.priority, "")


def _known(hook: RegisteredHook) -> bool:
    if hook.program or _is_bpf(hook):
        return False
    if not hook.module:  # a kernel without symbols tells no name at all
        return not hook.function or hook.function.startswith(_BUILT_IN)
    return hook.module in _KNOWN


def _is_bpf(hook: RegisteredHook) -> bool:
    return not hook.module and hook.function.partition(".")[0] == _BPF


def _told(hook: RegisteredHook) -> Program:
    family = _FAMILIES.get(hook.family, str(hook.family))
    name = _NAMES[hook.number] if hook.number < len(_NAMES) else str(hook.number)
    what = UNTOLD if _is_bpf(hook) and not hook.program else hook.module or hook.function
    return Program(f"{NETFILTER} {family}", name, hook.program, "" if hook.program else what)
