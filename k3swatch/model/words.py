"""The enumerations every other module speaks in. Their values are what JSON, metrics and the journal show."""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """Transport protocol of a protected port."""

    TCP = "tcp"
    UDP = "udp"

    @property
    def number(self) -> int:
        """IPPROTO_* as in `<netinet/in.h>`."""
        return 6 if self is Protocol.TCP else 17


class Family(StrEnum):
    """Address family of a connection, named as nft names it."""

    IP = "ip"
    IP6 = "ip6"

    @property
    def nfproto(self) -> int:
        """NFPROTO_IPV4 / NFPROTO_IPV6 (`uapi/linux/netfilter.h`), equal to AF_INET / AF_INET6."""
        return 2 if self is Family.IP else 10

    @property
    def length(self) -> int:
        """Bytes of one address."""
        return 4 if self is Family.IP else 16


class Vantage(StrEnum):
    """Where a connection starts."""

    EXTERNAL = "external"  # arrives on an interface: prerouting. Pods are external too
    LOCAL = "local"  # a process of this host: output


class State(StrEnum):
    """What becomes of a connection to a protected port; `worst` orders them."""

    DELIVERED = "delivered"
    UNSERVED = "unserved"
    UNKNOWN = "unknown"
    BLOCKED = "blocked"
    DIVERTED = "diverted"

    @property
    def rank(self) -> int:
        """Severity, 0 is best: diverted > blocked > unknown > unserved > delivered."""
        return list(State).index(self)


def worst(states: list[State]) -> State:
    """The most severe of `states`; delivered when there is none."""
    return max(states, key=lambda state: state.rank, default=State.DELIVERED)


class Mechanism(StrEnum):
    """How a connection is taken elsewhere; `none` for findings that are not a diversion (blocked, unknown, ...)."""

    DNAT = "dnat"
    REDIRECT = "redirect"
    NETMAP = "netmap"
    TPROXY = "tproxy"
    IPVS = "ipvs"
    SOCKET = "socket"
    BPF = "bpf"
    ROUTE = "route"
    NEIGHBOUR = "neighbour"
    UNEXPLAINED = "unexplained"
    NONE = "none"


UNRULED = frozenset(
    {Mechanism.SOCKET, Mechanism.BPF, Mechanism.ROUTE, Mechanism.IPVS}
)  # no commit of a rule brings these about


class Evidence(StrEnum):
    """What a finding rests on."""

    RULE = "rule"  # a rule would divert
    FLOW = "flow"  # a connection was diverted
    LISTENER = "listener"


class Attach(StrEnum):
    """How the connection probe is attached, best first; `conntrack` and `none` are the fallbacks."""

    FENTRY = "fentry"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"
    CONNTRACK = "conntrack"
    NONE = "none"
