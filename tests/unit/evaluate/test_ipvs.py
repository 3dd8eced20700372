"""IPVS on hypothetical packets; tests/vm/ipvs has the same and more with real ones."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from support.build import TableRuleset, node

from k3swatch.evaluate import judge
from k3swatch.model.finding import PortVerdict
from k3swatch.model.ipvs import PERSISTENT, Method, RealServer, VirtualServer
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Family, Mechanism, State, Vantage

HOST, POD = ipaddress.ip_address("192.168.1.233"), ipaddress.ip_address("10.42.0.9")
OTHER = ipaddress.ip_address("192.168.1.200")
HOST6 = ipaddress.ip_address("fd00:1::233")


def server(address: object = POD, port: int = 6443, **more: Any) -> RealServer:
    values: dict[str, Any] = {"address": address, "port": port, "method": Method.MASQ, "weight": 1}
    return RealServer(**{**values, **more})


def virtual(*servers: RealServer, **more: Any) -> VirtualServer:
    values: dict[str, Any] = {
        "family": Family.IP,
        "scheduler": "rr",
        "protocol": 6,
        "address": HOST,
        "port": 6443,
    }
    return VirtualServer(servers=servers, **{**values, **more})


def on(*services: VirtualServer) -> PortVerdict:
    (verdict,) = judge(TableRuleset(), replace(node(), services=services), [ProtectedPort("k3s-api", 6443)])
    return verdict


def test_both_vantages_and_this_address_alone() -> None:
    verdict = on(virtual(server()))
    assert verdict.state is State.DIVERTED
    found = {(f.vantage, f.addresses, f.mechanism, f.destination, f.certain) for f in verdict.findings}
    assert found == {
        (vantage, ("192.168.1.233",), Mechanism.IPVS, "10.42.0.9:6443", True) for vantage in Vantage
    }
    (step,) = verdict.findings[0].path
    assert (step.family, step.table, step.chain, step.handle) == ("ipvs", "tcp", "192.168.1.233:6443", 0)
    assert step.rule == "rr: 10.42.0.9:6443 masq"


def test_several_real_servers_are_one_cause() -> None:
    verdict = on(virtual(server(), server(OTHER, 443), server(HOST)))
    assert len({finding.cause for finding in verdict.findings}) == 1
    said = {(f.destination, f.conditions) for f in verdict.findings}
    share = ("1 of 3 connections, by rr",)
    assert said == {("10.42.0.9:6443", share), ("192.168.1.200:443", share)}  # a third is delivered


@pytest.mark.parametrize(
    "harmless",
    [
        virtual(server(), port=443),
        virtual(server(), protocol=17),
        virtual(server(), address=OTHER),
        virtual(server(), port=21),  # FTP, and not persistent
        virtual(server(HOST)),
        virtual(server(ipaddress.ip_address("10.42.0.1"))),
        virtual(server(HOST, method=Method.ROUTE)),
        virtual(server(HOST, 443, method=Method.TUNNEL)),  # which translates no port
        virtual(server(), family=Family.IP6, address=HOST6, port=443),
    ],
    ids=str,
)
def test_what_takes_nothing(harmless: VirtualServer) -> None:
    assert on(harmless).findings == ()


@pytest.mark.parametrize(
    ("service", "destination"),
    [
        (virtual(server(port=0)), "10.42.0.9:6443"),
        (virtual(server(port=443, method=Method.ROUTE)), "10.42.0.9:6443"),
        (virtual(server(port=21), port=21, flags=PERSISTENT), "10.42.0.9:6443"),
        (virtual(server(port=0), port=0, flags=PERSISTENT), "10.42.0.9:6443"),
        (virtual(server(HOST, 8443)), "192.168.1.233:8443"),
        (virtual(server(weight=0), server(OTHER)), "192.168.1.200:6443"),
    ],
    ids=lambda value: str(value),
)
def test_where_it_goes(service: VirtualServer, destination: str) -> None:
    assert {f.destination for f in on(service).findings} == {destination}


@pytest.mark.parametrize(
    "service", [virtual(), virtual(server(weight=0)), virtual(server(), port=0)], ids=str
)
def test_nobody_to_choose(service: VirtualServer) -> None:
    verdict = on(service)
    assert {(f.state, f.mechanism, f.conditions) for f in verdict.findings} == {
        (State.BLOCKED, Mechanism.NONE, ())
    }
    assert verdict.findings[0].path[0].family == "ipvs"


def test_the_exact_one_is_asked_first() -> None:
    exact, every = virtual(server(HOST)), virtual(server(), port=0, flags=PERSISTENT)
    assert on(every, exact).findings == ()


def test_a_firewall_mark() -> None:
    marked = virtual(server(port=0), protocol=0, address=None, port=0, fwmark=7)
    verdict = on(marked, virtual(server(OTHER)))
    said = {(f.destination, f.conditions) for f in verdict.findings if "192.168.1.233" in f.addresses}
    assert said == {("10.42.0.9:6443", ("mark 0x7",)), ("192.168.1.200:6443", ("not mark 0x7",))}


def test_what_cannot_be_read_is_unknown() -> None:
    host = replace(node(), services=None)
    (verdict,) = judge(TableRuleset(), host, [ProtectedPort("k3s-api", 6443)])
    assert verdict.state is State.UNKNOWN
    named = {(f.vantage, address) for f in verdict.findings for address in f.addresses}
    assert named == set(verdict.judged)
