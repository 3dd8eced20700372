"""Which addresses of a host a port is protected on."""

from __future__ import annotations

import ipaddress

import pytest

from k3swatch.live.protected import endpoints
from k3swatch.model.port import LOCAL, Network, ProtectedPort
from k3swatch.model.words import Protocol

HOST = frozenset(map(ipaddress.ip_address, ("127.0.0.1", "192.168.1.233", "10.42.0.1", "::1", "fd00:1::233")))


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ([LOCAL], {"127.0.0.1", "192.168.1.233", "10.42.0.1", "::1", "fd00:1::233"}),
        (["192.168.0.0/16"], {"192.168.1.233"}),
        (["192.168.1.233/32", "fd00::/8"], {"192.168.1.233", "fd00:1::233"}),
        (["172.16.0.0/12"], set()),
        (["0.0.0.0/0"], {"127.0.0.1", "192.168.1.233", "10.42.0.1"}),
        (["::/0"], {"::1", "fd00:1::233"}),
    ],
)
def test_addresses(entries: list[str], wanted: set[str]) -> None:
    networks: list[str | Network] = [
        entry if entry == LOCAL else ipaddress.ip_network(entry) for entry in entries
    ]
    port = ProtectedPort("api", 6443, addresses=tuple(networks))
    assert {str(address) for _, _, address in endpoints([port], HOST)} == wanted


def test_every_port_and_protocol() -> None:
    ports = [ProtectedPort("api", 6443), ProtectedPort("vxlan", 8472, Protocol.UDP)]
    found = endpoints(ports, frozenset(map(ipaddress.ip_address, ["192.168.1.233"])))
    assert {(protocol, port) for protocol, port, _ in found} == {(Protocol.TCP, 6443), (Protocol.UDP, 8472)}
    assert endpoints([], HOST) == frozenset()
