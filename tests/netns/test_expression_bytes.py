"""Expressions as this kernel and this nft make them: tests/unit/decode/data/expressions.txt is written from here.

`pytest tests/netns/test_expression_bytes.py --update-golden` rewrites the file; without it the test compares.
"""

from __future__ import annotations

from support.expressions import FILE, Sample, write

from k3swatch.decode.rule import decode_rule
from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.model.ruleset import ChainRef
from k3swatch.sources.nftables import NftablesSource

CHAINS = {
    ("ip", "t", "natpre"): "type nat hook prerouting priority -100",
    ("ip", "t", "natpost"): "type nat hook postrouting priority 100",
    ("ip", "t", "raw"): "type filter hook prerouting priority -300",
    ("ip", "t", "pre"): "type filter hook prerouting priority -150",
    ("ip", "t", "in"): "type filter hook input priority 0",
    ("ip6", "t6", "natpre"): "type nat hook prerouting priority -100",
    ("inet", "i", "pre"): "type filter hook prerouting priority -150",
    ("inet", "i", "in"): "type filter hook input priority 0",
    ("netdev", "n", "ingress"): "type filter hook ingress device lo priority 0",
}
OBJECTS = """
table ip t {
  set mgmt { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
  set seen { type ipv4_addr; flags dynamic; size 128; }
  map target { type inet_service : ipv4_addr . inet_service; elements = { 6443 : 10.9.9.9 . 443 } }
  counter hits { }
  map counters { type inet_service : counter; elements = { 6443 : "hits" } }
  chain other { }
}
"""
RULES = [
    ("ip", "t", "natpre", "tcp dport 6443 dnat to 10.42.0.244:6443"),
    ("ip", "t", "natpre", "tcp dport 6443 dnat to 10.5.5.5-10.5.5.7:6443-6445 random,persistent"),
    ("ip", "t", "natpre", "tcp dport 6443 redirect to :7443"),
    ("ip", "t", "natpre", "redirect"),
    ("ip", "t", "natpre", "dnat to tcp dport map @target"),
    ("ip", "t", "natpre", "dnat to jhash ip saddr mod 2 seed 0xbeef map { 0 : 10.6.6.1, 1 : 10.6.6.2 }"),
    ("ip", "t", "natpre", "dnat to symhash mod 2 offset 1 map { 1 : 10.6.6.1, 2 : 10.6.6.2 }"),
    ("ip", "t", "natpre", "dnat to numgen random mod 2 map { 0 : 10.6.6.1, 1 : 10.6.6.2 }"),
    ("ip", "t", "natpre", "dnat to numgen inc mod 2 offset 5 map { 5 : 10.6.6.1, 6 : 10.6.6.2 }"),
    ("ip", "t", "natpre", "dnat ip prefix to ip daddr map { 192.168.0.0/24 : 10.0.0.0/24 }"),
    ("ip", "t", "natpost", "masquerade random"),
    ("ip", "t", "natpost", "snat to 10.0.0.1"),
    ("ip", "t", "raw", "notrack"),
    ("ip", "t", "pre", "tcp dport vmap { 6443 : goto other, 80 : drop }"),
    ("ip", "t", "pre", "tcp dport 6443 jump other"),
    ("ip", "t", "pre", "ip saddr @mgmt return"),
    ("ip", "t", "pre", "ip saddr != @mgmt continue"),
    ("ip", "t", "pre", "ip saddr != 10.0.0.0/9 accept"),
    ("ip", "t", "pre", "tcp dport != 100-200 accept"),
    ("ip", "t", "pre", "tcp dport >= 1024"),
    ("ip", "t", "pre", "meta mark 0x10-0x20"),
    ("ip", "t", "pre", 'iifname "veth*"'),
    ("ip", "t", "pre", "meta mark set meta mark or 0x4000"),
    ("ip", "t", "pre", "meta mark set ct mark << 8"),
    ("ip", "t", "pre", "ct mark set 1"),
    ("ip", "t", "pre", "ct state new"),
    ("ip", "t", "pre", "ct original ip daddr 10.0.0.1"),
    ("ip", "t", "pre", "ip dscp set cs1"),
    ("ip", "t", "pre", "tcp option maxseg size 1000-1400"),
    ("ip", "t", "pre", "tcp option maxseg size set 1400"),
    ("ip", "t", "pre", "fib daddr type local"),
    ("ip", "t", "pre", "rt nexthop 10.0.0.1"),
    ("ip", "t", "pre", "counter"),
    ("ip", "t", "pre", "counter name hits"),
    ("ip", "t", "pre", "counter name tcp dport map @counters"),
    ("ip", "t", "pre", "limit rate over 10/second burst 5 packets"),
    ("ip", "t", "pre", "quota over 10 mbytes"),
    ("ip", "t", "pre", "ct count over 10"),
    ("ip", "t", "pre", 'log prefix "hi " group 5'),
    ("ip", "t", "pre", "add @seen { ip saddr }"),
    ("ip", "t", "pre", "update @seen { ip saddr limit rate 1/second }"),
    ("ip", "t", "pre", "dup to 10.0.0.1 device lo"),
    ("ip", "t", "in", "synproxy mss 1460 wscale 7"),
    ("ip", "t", "in", "reject with tcp reset"),
    ("ip6", "t6", "natpre", "ip6 daddr fd00::1 tcp dport 6443 dnat to [fd00::5]:6443"),
    ("inet", "i", "pre", "socket transparent 1"),
    ("inet", "i", "pre", "tcp dport 6443 tproxy ip to 127.0.0.1:9000"),
    ("inet", "i", "pre", "tcp dport 6443 tproxy to :9000"),
    ("inet", "i", "in", "reject"),
    ("inet", "i", "in", "ip daddr 10.0.0.1 drop"),
    ("inet", "i", "in", 'osf name "Linux"'),
    ("inet", "i", "in", "ipsec in reqid 1"),
    ("netdev", "n", "ingress", "fwd to lo"),
]
IPTABLES = [
    "-p tcp -m comment --comment hello -m tcp --dport 6443 -j DNAT --to-destination 10.42.0.244:6443",
    "-d 10.43.0.1/32 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 7443",
    "-m addrtype --dst-type LOCAL -j ACCEPT",
]


def load(space: Namespace) -> None:
    space.run("nft", "-f", "-", stdin=OBJECTS)
    for (family, table, chain), hook in CHAINS.items():
        space.run("nft", f"add table {family} {table}")
        space.run("nft", f"add chain {family} {table} {chain} {{ {hook}; }}")
    space.run("nft", "-f", "-", stdin="\n".join("add rule " + " ".join(rule) for rule in RULES))
    for rule in IPTABLES:
        space.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", *rule.split())


def test_expressions_are_as_the_unit_tests_have_them(update_golden: bool) -> None:
    with namespaces("expr") as spaces:
        load(spaces["expr"])
        with spaces["expr"].inside(), NftablesSource() as source:
            chains = [ChainRef(*key) for key in CHAINS]
            rules = {
                ref: list(map(decode_rule, source.rules(ref.family, ref.table, ref.chain))) for ref in chains
            }
            compat = list(map(decode_rule, source.rules("ip", "nat", "PREROUTING")))
    samples = [
        Sample(family, text, rules[ChainRef(family, table, chain)].pop(0).raw)
        for family, table, chain, text in RULES
    ]
    samples += [
        Sample("ip", f"iptables {text}", rule.raw) for text, rule in zip(IPTABLES, compat, strict=True)
    ]
    assert not any(rules.values()), "a rule was not asked for"
    if update_golden:
        FILE.write_text(write(samples))
    assert FILE.read_text() == write(samples)
