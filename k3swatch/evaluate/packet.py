"""The hypothetical packets of a connection to a protected port, as the kernel would see them.

`Scene` is what does not change on its way (vantage, client, interfaces, the host); `Packet` is what rules can change.
A connection needs four: the first one (a SYN), the answer (SYN and ACK), the client's next (an ACK), and the server's,
which stand for all that follow. Whichever it is, `Packet.daddr` and `dport` are the server's end, and `Scene.saddr` and
`sport` the client's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from k3swatch.evaluate.cells import Byte, Cells, little
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.ranges import Ranges, normal, subtract
from k3swatch.model.finding import PathStep
from k3swatch.model.port import Address, Host, family_of
from k3swatch.model.ruleset import Rule
from k3swatch.model.words import Family, Mechanism, Protocol, Vantage

NAT_DST, NAT_SRC = -100, 100  # NF_IP_PRI_NAT_DST, _SRC
EPHEMERAL: Ranges = ((32768, 60999),)  # net.ipv4.ip_local_port_range, as it is by default
NO_MARK: Cells = (
    0,
    0,
    0,
    0,
)  # of an answer: its socket's, which is nobody's to set but the server's (SO_MARK)
TPROXIED = (-1, 0)  # the shadow of tproxy on what NAT has sent elsewhere: later chains still run
RAW_CONNTRACK = -200  # NF_IP_PRI_CONNTRACK: before it no rule sees a connection


def _place(item: tuple[tuple[int, int], Byte]) -> tuple[int, int]:
    return item[0]


class Turn(Enum):
    """Which packet of the connection, in words for tests whose answers differ from packet to packet."""

    FIRST = ""
    ANSWER = " of the answer"
    NEXT = " of later packets"
    LATER = " of later answers"


class Discovery(Enum):
    """In the place of a connection's protocol: what asks where an address is."""

    ARP = 0x0806
    ND = 58

    @property
    def number(self) -> int:
        """IPPROTO_* as in `<netinet/in.h>`; what ARP has in its place is no protocol of IP, and 0 nobody's."""
        return self.value if self is Discovery.ND else 0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a mapping sends the packet: inclusive ranges of addresses and ports. Empty bytes: not to be known."""

    low: bytes
    high: bytes
    port_low: int
    port_high: int


@dataclass(frozen=True, slots=True)
class Turned:
    """By which rules NAT has sent a connection away from the protected port, and where to."""

    path: tuple[Rule | PathStep, ...]
    mechanism: Mechanism
    target: Target


@dataclass(frozen=True, slots=True)
class Packet:
    """What rules on the way can change. `shadow` names the chain whose mapping already won, None while open."""

    daddr: bytes  # the server's end, as it is by now; so is dport
    dport: int
    mark: Cells
    ctmark: Cells = (0, 0, 0, 0)
    zone: Cells = (0, 0)
    tracked: bool = True
    untracked: tuple[Rule, ...] = ()  # the path of the rule that said so
    dialled: tuple[bytes, int] | None = None  # where it was going when NAT sent it somewhere else
    sourced: bool = False  # NAT has set up its source
    snatted: bool = False  # and it is another one
    alias: bytes = b""  # this one; empty: not to be known
    renamed: tuple[
        tuple[int, int, Byte], ...
    ] = ()  # the bytes that source NAT has overwritten, as in `patch`
    patch: tuple[
        tuple[int, int, Byte], ...
    ] = ()  # bytes that were overwritten: header, offset, what is there now
    sent: tuple[Rule, ...] = ()  # the path of the rule that overwrote the destination, without a connection
    shadow: tuple[int, int] | None = None  # (group of tied chains, chain within it) that decided before
    turned: Turned | None = None  # it goes elsewhere by now
    balanced: bool = False  # IPVS has had it, and left it on this host
    reached: tuple[bytes, int] | None = None  # after the first packet: where the connection ends
    given: bool = False  # TPROXY has given it to a socket
    settled: bool = False  # and NAT has set up its destination, which changes nothing for that socket
    begun: bool = False  # after the first packet: conntrack has seen that one
    home: Cells | None = None  # in this zone, where it is looked for
    connected: bool = True  # and has a connection for it: it has seen all packets before
    offloaded: bool = False  # after the first packet: to a flowtable, which bypasses what hooks there are

    def __hash__(self) -> int:
        """Of what tells most packets apart and is quickly hashed: a walk has a handful, and asks for it very often."""
        return hash((self.daddr, self.dport, self.dialled, self.tracked, self.snatted, self.shadow))

    def mapped(self, daddr: bytes, dport: int) -> Packet:
        """As NAT sends it on. An identity mapping leaves no trace (IPS_DST_NAT is not set)."""
        there = (self.daddr, self.dport)
        return self if there == (daddr, dport) else replace(self, daddr=daddr, dport=dport, dialled=there)

    def overwritten(self, written: dict[tuple[int, int], Byte]) -> Packet:
        """With other bytes in its headers."""
        bytes_now = {(base, offset): byte for base, offset, byte in self.patch} | written
        return replace(
            self, patch=tuple((*place, byte) for place, byte in sorted(bytes_now.items(), key=_place))
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """Who sends the packet, and where it is being looked at."""

    host: Host
    vantage: Vantage
    family: Family
    protocol: Protocol | Discovery
    saddr: Var
    sport: Var
    mark: Var
    iif: Var | None  # None where there is no input interface (output hook)
    oif: Var | None = None  # None where it is not known yet where to (prerouting, input)
    top: Var | None = None  # below IP: the interface as IP sees it, where `iif` or `oif` is the device
    bridge: int = 0  # in a chain of a bridge: which
    uid: Var | None = None  # of the socket it was sent from; None where it has none
    turn: Turn = Turn.FIRST
    hook: int = 0
    priority: int = 0
    _derived: dict[tuple[tuple[str, object], ...], Scene] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def but(self, **changes: object) -> Scene:
        """`dataclasses.replace`, but the same again for the same changes: every address of a host is walked through the
        same places, and on a host of many addresses to make these anew is a fifth of a look.
        """
        key = tuple(changes.items())
        found = self._derived.get(key)
        if found is None:
            found = self._derived[key] = replace(self, **changes)  # type: ignore[arg-type]  # mypy: as replace takes
        return found

    def first_packet(self, daddr: bytes, dport: int) -> Packet:
        """The packet before any rule."""
        return Packet(daddr, dport, little(self.mark, 4))

    @property
    def from_client(self) -> bool:
        """Whether the client sends it."""
        return self.turn in (Turn.FIRST, Turn.NEXT)

    @property
    def side(self) -> str:
        """For what is the same in all packets of one end, the words that tell it from the other's."""
        return "" if self.from_client else Turn.ANSWER.value

    @property
    def loopback(self) -> tuple[int, str]:
        """Index and name of the loopback interface."""
        for interface in self.host.interfaces:
            if interface.loopback:
                return interface.index, interface.name
        return 1, "lo"


def scene(
    host: Host,
    vantage: Vantage,
    family: Family,
    protocol: Protocol,
    *,
    source: Address | None = None,
    source_port: int | None = None,
) -> Scene:
    """A scene with everything unknown that differs between connections; `source` narrows it to one sender.

    From outside nobody can send from an address of ours (fib_validate_source drops such packets as martians), and a
    process of this host can only send from one (or any of 127.0.0.0/8).
    """
    bits = family.length * 8
    pairs = [(int(a), int(a)) for a in host.local() if family_of(a) is family]
    if family is Family.IP:
        pairs.append((127 << 24, (128 << 24) - 1))
    own = normal(pairs)
    if source is not None:
        addresses: Ranges = ((int(source), int(source)),)
    elif vantage is Vantage.LOCAL:
        addresses = own or ((0, 2**bits - 1),)
    else:
        addresses = subtract(((0, 2**bits - 1),), own)
    ports: Ranges = ((0, 65535),) if source_port is None else ((source_port, source_port),)
    indexes = sorted(i.index for i in host.interfaces if not i.loopback and i.index not in host.enslaved)
    iif = None
    if vantage is Vantage.EXTERNAL:
        base: Ranges = normal([(index, index) for index in indexes]) or ((1, 2**31 - 1),)
        iif = Var("iif", base, Kind.FIELD, "iif")
    return Scene(
        host,
        vantage,
        family,
        protocol,
        Var("saddr", addresses, Kind.FIELD, f"{family} saddr"),
        Var("sport", ports, Kind.FIELD, f"{protocol} sport"),
        Var("mark", ((0, 2**32 - 1),), Kind.FIELD, "mark"),
        iif,
        uid=UID,
    )


UID = Var("uid", ((0, 2**32 - 1),), Kind.FIELD, "uid")
SERVER_UID = Var("uid of the server", ((0, 2**32 - 1),), Kind.ENVIRONMENT, "uid of the server")

SAME_PRIORITY = "whether connection tracking runs before a chain of its own priority"


def has_connection(scene: Scene, packet: Packet) -> bool:
    """Whether conntrack has given the packet a connection by now."""
    return scene.priority > RAW_CONNTRACK and packet.tracked and of_connection(packet)


def of_connection(packet: Packet) -> bool:
    """Whether conntrack finds the connection: it has it, in the zone where it looks."""
    return packet.connected and packet.home in (None, packet.zone)


def is_local(host: Host, address: bytes) -> bool:
    """Whether packets to `address` end on this host (all of 127.0.0.0/8 does)."""
    if len(address) == 4 and address[0] == 127:
        return True
    return address in host.owners


def owner_of(host: Host, address: bytes) -> int:
    """The index of the interface that has `address`; loopback's 1 when none does."""
    return host.owners.get(address, 1)
