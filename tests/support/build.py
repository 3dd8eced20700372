"""A ruleset of a few lines, and a host, for tests of the evaluator (`from support.build import ...`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k3swatch.decode.hooks import seen_by
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Cmp, Code, Expr, Immediate, Meta, Nat, Payload, Verdict
from k3swatch.model.port import Host, Interface, ListeningSocket, LocalAddress
from k3swatch.model.ruleset import BaseChain, ChainRef, Element, Found, Rule, SetInfo
from k3swatch.model.words import Protocol


class TableRuleset:
    """Answers the Ruleset protocol from lists of expressions; sets are dicts of elements."""

    def __init__(self) -> None:
        self.generation: int | None = 7
        self.bases: list[BaseChain] = []
        self.chains: dict[ChainRef, list[list[Expr]]] = {}
        self.sets: dict[str, tuple[SetInfo, list[Element]]] = {}
        self.asked: list[bytes] = []

    def base(
        self,
        table: str,
        chain: str,
        hook: int,
        *rules: list[Expr],
        kind: str = "nat",
        priority: int = -100,
        policy: int = Code.ACCEPT,
        family: str = "ip",
        device: str | None = None,
    ) -> None:
        ref = ChainRef(family, table, chain)
        self.bases.append(BaseChain(ref, kind, hook, priority, policy, len(self.bases), device=device))
        self.chains[ref] = list(rules)

    def chain(self, table: str, chain: str, *rules: list[Expr], family: str = "ip") -> None:
        self.chains[ChainRef(family, table, chain)] = list(rules)

    def base_chains(self, hook: int, nfproto: int) -> Sequence[BaseChain]:
        return seen_by(self.bases, hook, nfproto)

    def rules(self, ref: ChainRef) -> Sequence[Rule]:
        if ref not in self.chains:
            raise DecodeError(f"no chain {ref.chain}")
        return [Rule(ref, number + 1, b"\1") for number in range(len(self.chains[ref]))]

    def expressions(self, rule: Rule) -> Sequence[Expr]:
        return self.chains[rule.ref][rule.handle - 1]

    def set_info(self, family: str, table: str, name: str) -> SetInfo:
        if name not in self.sets:
            raise DecodeError(f"no set {name}")
        return self.sets[name][0]

    def lookup(self, info: SetInfo, key: bytes) -> Found | None:
        self.asked.append(key)
        for element in self.sets[info.name][1]:
            if element.low <= key <= element.high:
                return Found(element.data, element.verdict)
        return None

    def elements(self, info: SetInfo, limit: int) -> Sequence[Element] | None:
        elements = self.sets[info.name][1]
        return elements if len(elements) <= limit else None


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def dport(number: int) -> list[Expr]:
    return [Meta(1, 16), Cmp(1, 0, b"\6"), Payload(1, 2, 2, 2), Cmp(1, 0, number.to_bytes(2))]


def saddr(text: str, op: int = 0) -> list[Expr]:
    network = ipaddress.ip_network(text)
    length = network.prefixlen // 8
    return [Payload(1, 1, 12, length), Cmp(1, op, network.network_address.packed[:length])]


def daddr(text: str) -> list[Expr]:
    return [Payload(1, 1, 16, 4), Cmp(1, 0, ip(text))]


def dnat(text: str, port: int | None = None) -> list[Expr]:
    load: list[Expr] = [Immediate(1, ip(text))]
    if port is None:
        return [*load, Nat(1, 2, addr_min=1, addr_max=1)]
    return [*load, Immediate(2, port.to_bytes(2)), Nat(1, 2, 1, 1, 2, 2, flags=3)]


def verdict(code: int, chain: str | None = None) -> list[Expr]:
    return [Immediate(0, verdict=Verdict(code, chain))]


def jump(chain: str) -> list[Expr]:
    return verdict(Code.JUMP, chain)


def node() -> Host:
    """The K3s node of the incident: eth0 192.168.1.233, cni0 10.42.0.1, loopback."""
    address = ipaddress.ip_address
    return Host(
        addresses=(
            LocalAddress(address("127.0.0.1"), 1, 8),
            LocalAddress(address("::1"), 1, 128),
            LocalAddress(address("192.168.1.233"), 2, 24),
            LocalAddress(address("fd00:1::233"), 2, 64),
            LocalAddress(address("10.42.0.1"), 3, 24),
        ),
        interfaces=(
            Interface(1, "lo", loopback=True, type=772),
            Interface(2, "eth0"),
            Interface(3, "cni0", kind="bridge"),
        ),
        sockets=(ListeningSocket(Protocol.TCP, address("::"), 6443),),
        name="node1",
    )
