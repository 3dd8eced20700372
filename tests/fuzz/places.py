"""The lab's addresses of one family, as rules and connections use them, and the connections there are."""

from __future__ import annotations

import random
from dataclasses import dataclass

from support.dialer import Dial

from k3swatch.demo import lab as at


@dataclass(frozen=True)
class Places:
    """`ip` is nft's word for the family, `tool` iptables' program for it."""

    ip: str
    tool: str
    host: str
    cni0: str
    client: str
    client_b: str
    other: str
    web: str
    nowhere: str  # nobody has it
    loopback: str
    lan: str
    pods: str
    near: str  # a range that holds the host's address
    far: str  # a range that does not
    half: tuple[str, str]  # a mask with holes, and what it leaves of the host's address

    @property
    def kind(self) -> str:
        """nft's type."""
        return "ipv4_addr" if self.ip == "ip" else "ipv6_addr"

    @property
    def everyone(self) -> tuple[str, ...]:
        """Who sends or is sent to."""
        return (self.host, self.cni0, self.client, self.client_b, self.other, self.web)

    def to(self, address: str, port: int | str) -> str:
        """`192.168.1.233:8443`, `[fd00:1::233]:8443`."""
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def dials(self) -> list[Dial]:
        """Every way from somebody to an address of the host, with port 6443, unmarked, as root."""
        return [
            Dial("client", self.client, self.host),
            Dial("client", self.client_b, self.host),
            Dial("other", self.other, self.host),
            Dial("other", self.other, self.cni0),
            Dial("web", self.web, self.host),
            Dial("web", self.web, self.cni0),
            Dial("host", self.host, self.host),
            Dial("host", self.cni0, self.host),
            Dial("host", self.host, self.cni0),
            Dial("host", self.loopback, self.loopback),
            Dial("host", self.host, self.loopback),
        ]


V4 = Places(
    "ip", "iptables", at.HOST, at.CNI0, at.CLIENT, at.CLIENT_B, at.OTHER, at.WEB, "10.42.0.77", "127.0.0.1",
    "192.168.1.0/24", "10.42.0.0/16", "192.168.1.201-192.168.1.240", "10.0.0.1-10.42.0.0",
    ("255.255.0.255", "192.168.0.233"),
)  # fmt: skip
V6 = Places(
    "ip6", "ip6tables", at.HOST6, at.CNI0_6, at.CLIENT6, at.CLIENT6_B, at.OTHER6, at.WEB6, "fd42::77", "::1",
    "fd00:1::/64", "fd42::/64", "fd00:1::201-fd00:1::240", "fc00::1-fd00::1",
    ("ffff::ffff", "fd00::233"),
)  # fmt: skip


def connections(rng: random.Random, places: Places, count: int) -> list[Dial]:
    """Some of the ways; now and then another port, a mark or another user."""
    chosen = []
    for each in rng.sample(places.dials(), count):
        port = 8443 if rng.random() < 0.08 else 6443
        local = each.start == "host"
        mark = rng.choice((0x10, 0x20, 0x1)) if local and rng.random() < 0.2 else 0
        uid = 1000 if local and rng.random() < 0.35 else 0
        chosen.append(Dial(each.start, each.source, each.address, port, mark, uid))
    return chosen
