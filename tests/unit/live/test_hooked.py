"""Whoever hooks into netfilter and is not known here is told; whoever is evaluated, or made with the kernel, is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.decode.test_nfhook import NEW, RULE, chain, hook

from k3swatch.errors import SourceError, Unsupported
from k3swatch.live import hooked
from k3swatch.live.programs import Programs
from k3swatch.model.port import Host, Interface, Program
from k3swatch.sources import bpfobjects, ebtables, nfhooks, procs

BRIDGED = Host(interfaces=(Interface(3, "cni0", kind="bridge"), Interface(4, "veth1", kind="veth", master=3)))

# what Debian 12 and 13 have with Docker, kube-proxy, IPVS, SYNPROXY and br_netfilter at work
USUAL = [
    hook(2, 0, -400, "ipv4_conntrack_defrag", "nf_defrag_ipv4"),
    hook(2, 0, -300, "ipt_do_table", "ip_tables"),
    hook(2, 0, -200, "ipv4_conntrack_in", "nf_conntrack"),
    hook(2, 0, -100, "nft_nat_do_chain", "nft_chain_nat"),
    hook(2, 0, -100, "iptable_nat_do_chain", "iptable_nat"),
    hook(2, 0, 0, "nft_do_chain_inet", "nf_tables"),
    hook(2, 0, 2147483647, "ip_sabotage_in", "br_netfilter"),
    hook(2, 1, 98, "ip_vs_out_hook", "ip_vs"),
    hook(2, 1, 2147483647, "nf_confirm", "nf_conntrack"),
    hook(2, 4, 225, "apparmor_ip_postroute"),
    hook(2, 4, -225, "selinux_ip_postroute"),
    hook(10, 0, -400, "ipv6_defrag", "nf_defrag_ipv6"),
    hook(7, 0, 0, "br_nf_pre_routing", "br_netfilter"),
]


class Kernel:
    """What it would answer, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hooks: list[bytes] | SourceError = list(USUAL)
        self.tables: dict[str, bytes] = {}
        self.asked: list[object] = []
        monkeypatch.setattr(nfhooks, "hooks", self._hooks)
        monkeypatch.setattr(ebtables, "read_ebtables", self._table)
        monkeypatch.setattr(ebtables, "ruled_tables", lambda: tuple(self.tables))

    def _hooks(self, places: dict[int, tuple[int, ...]]) -> list[bytes]:
        self.asked.append(set(places))
        if isinstance(self.hooks, SourceError):
            raise self.hooks
        return self.hooks

    def _table(self, name: str) -> bytes:
        self.asked.append(name)
        return self.tables[name]

    def add(self, *raw: bytes) -> None:
        assert isinstance(self.hooks, list)
        self.hooks += raw


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_who_is_known(kernel: Kernel) -> None:
    assert list(hooked.others(BRIDGED)) == []
    assert kernel.asked == [{2, 7, 10}]


def test_no_bridge_no_question_about_bridges(kernel: Kernel) -> None:
    assert list(hooked.others(Host(interfaces=(Interface(3, "cni0", kind="bridge"),)))) == []
    assert kernel.asked == [{2, 10}]


def test_a_bpf_program(kernel: Kernel) -> None:
    kernel.add(hook(2, 0, -1, "nf_hook_run_bpf", program=12))
    assert list(hooked.others(BRIDGED)) == [Program("netfilter ip", "prerouting", 12)]


def test_a_bpf_program_on_a_kernel_that_does_not_tell_which(kernel: Kernel) -> None:
    kernel.add(hook(10, 1, -1, "nf_hook_run_bpf.cfi"))
    assert list(hooked.others(BRIDGED)) == [Program("netfilter ip6", "input", 0, "a BPF program")]


def test_a_module_of_somebody(kernel: Kernel) -> None:
    """Even when its function has a name like the kernel's own."""
    kernel.add(hook(2, 3, -150, "nf_nat_fn", "falcon_lsm"))
    assert list(hooked.others(BRIDGED)) == [Program("netfilter ip", "output", 0, "falcon_lsm")]


def test_something_built_in_that_is_not_known(kernel: Kernel) -> None:
    kernel.add(hook(2, 0, 0, "vendor_hook"))
    assert list(hooked.others(BRIDGED)) == [Program("netfilter ip", "prerouting", 0, "vendor_hook")]


def test_a_kernel_without_symbols(kernel: Kernel) -> None:
    kernel.add(hook(2, 0, 0, ""))
    assert list(hooked.others(BRIDGED)) == []


def test_ebtables_is_told_when_it_does_something(kernel: Kernel) -> None:
    kernel.add(
        hook(7, 1, -200, "ebt_do_table", "ebtables"),
        hook(7, 3, 200, "ebt_do_table", "ebtables"),
        hook(7, 0, -300, "ebt_do_table", "ebtables"),
        hook(7, 0, -2147483648, "ebt_broute", "ebtable_broute"),
    )
    kernel.tables = {"filter": NEW, "nat": NEW, "broute": NEW[:48]}
    assert list(hooked.others(BRIDGED)) == []
    assert kernel.asked[1:] == ["filter", "nat", "broute"]  # each once, and no other: it would be made
    kernel.tables["nat"] = chain(b"PREROUTING", policy=-2)
    assert list(hooked.others(BRIDGED)) == [Program("netfilter bridge", "ebtables nat", 0, "ebtables-legacy")]


def test_a_kernel_that_does_not_list_them(kernel: Kernel) -> None:
    kernel.hooks = Unsupported("netfilter hooks: this kernel does not list them")
    assert list(hooked.others(BRIDGED)) == []
    kernel.tables = {"filter": NEW, "nat": NEW + RULE}  # the first has rules in another network namespace
    assert list(hooked.others(BRIDGED)) == [Program("netfilter bridge", "ebtables nat", 0, "ebtables-legacy")]
    assert list(hooked.others(Host())) == []


@pytest.mark.parametrize(
    ("modules", "tables"),
    [
        (b"ebtable_filter 16384 1 - Live 0x0\nebtables 45056 1 ebtable_filter, Live 0x0\n", ("filter",)),
        (
            b"ebtable_nat 16384 0 - Live 0x0\n\xff\n\nebtable_broute 1 -1 - Unloading 0x0\nebtable_filter x y\n",
            (),
        ),
        (b"ebtable_nat 1 2 - Live 0\nebtable_broute 1 7 - Live 0", ("broute", "nat")),
    ],
)
def test_tables_with_rules_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: bytes, tables: tuple[str, ...]
) -> None:
    path = tmp_path / "modules"
    path.write_bytes(modules)
    monkeypatch.setattr(ebtables, "MODULES", str(path))
    assert ebtables.ruled_tables() == tables
    path.unlink()
    assert ebtables.ruled_tables() == ()


def test_what_cannot_be_read_is_said_and_costs_nothing_else(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfobjects, "query", lambda target, kind: [])
    monkeypatch.setattr(bpfobjects, "info", lambda program: None)
    monkeypatch.setattr(procs, "cgroup_mount", lambda: None)
    kernel.hooks = SourceError("netfilter hooks: broken")
    found, unreadable = Programs().read(BRIDGED, 0.0)
    assert (found, unreadable) == ((), ("netfilter's hooks: netfilter hooks: broken",))


def test_it_is_noticed_when_nothing_tells_of_it(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpfobjects, "query", lambda target, kind: [])
    monkeypatch.setattr(bpfobjects, "info", lambda program: None)
    monkeypatch.setattr(procs, "cgroup_mount", lambda: None)
    programs = Programs()
    programs.read(BRIDGED, 0.0)
    assert not programs.moved(BRIDGED)
    kernel.add(hook(2, 0, -1, "nf_hook_run_bpf", program=12))
    assert programs.moved(BRIDGED)
