"""Whose listening sockets are certain not to be the owner's, and which connections they have."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from support.build import TableRuleset, node

from k3swatch.daemon.strangers import Strangers
from k3swatch.evaluate import judge
from k3swatch.model.finding import Observation
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Address, Holder, Host, Listener, ListeningSocket, ProtectedPort
from k3swatch.model.words import Evidence, Protocol

API = ProtectedPort("k3s-api", 6443, listener=Listener(exe=("/usr/local/bin/k3s",)))
HERE, ANY = ipaddress.ip_address("192.168.1.233"), ipaddress.ip_address("0.0.0.0")


def socket(inode: int, exe: str | None, address: Address = HERE) -> ListeningSocket:
    return ListeningSocket(Protocol.TCP, address, 6443, inode=inode, holders=(Holder(7, exe),))


def on(*sockets: ListeningSocket, port: ProtectedPort = API) -> tuple[Strangers, Host]:
    host = replace(node(), sockets=(socket(1, "/usr/local/bin/k3s", ANY), *sockets))
    return Strangers(Observation(judge(TableRuleset(), host, [port]), 1), host), host


def flow(listener: int, dialled: str = str(HERE)) -> Flow:
    client, there = ipaddress.ip_address("192.168.1.50"), ipaddress.ip_address(dialled)
    return Flow(
        Protocol.TCP, client, 40000, there, 6443, there, 6443, Outcome.DIVERTED, 0.0, listener=listener
    )


def test_all_workers_of_a_taker() -> None:
    strangers, _ = on(*(socket(inode, "/usr/sbin/haproxy") for inode in (70, 71, 72)))
    assert strangers.inodes == {70, 71, 72}
    for inode in (70, 72):
        found = strangers.taking(API, flow(inode))
        assert found is not None
        assert found.evidence == {Evidence.LISTENER, Evidence.FLOW}


@pytest.mark.parametrize("seen", [flow(1), flow(0), flow(70, "10.42.0.1")])
def test_other_connections_are_none_of_theirs(seen: Flow) -> None:
    strangers, _ = on(socket(70, "/usr/sbin/haproxy"))
    assert strangers.taking(API, seen) is None
    assert strangers.taking(replace(API, name="other"), flow(70)) is None


@pytest.mark.parametrize(
    ("sockets", "port"),
    [
        ((), API),
        ((socket(70, "/usr/local/bin/k3s"),), API),
        ((socket(70, None),), API),  # may not be looked into
        ((socket(70, "/usr/sbin/haproxy"),), ProtectedPort("k3s-api", 6443)),  # nobody says whose it is
    ],
)
def test_what_is_not_certain_is_no_strangers(
    sockets: tuple[ListeningSocket, ...], port: ProtectedPort
) -> None:
    assert on(*sockets, port=port)[0].inodes == frozenset()
