"""One lab in which a ruleset is loaded, connections are made, the trace is read and the evaluator is asked."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from support import nftrace
from support.dialer import PATIENCE, Answer, Dial, Dialer
from support.nftrace import Step

from fuzz.ruleset import Ruleset
from k3swatch.demo.netns import Namespace
from k3swatch.live.host import read_host
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.sources.netlink import HEADER, NETLINK_NETFILTER
from k3swatch.sources.nftables import NftablesSource

LOADERS = {
    "nft": ("nft", "-f", "-"),
    "iptables": ("iptables-restore",),
    "ip6tables": ("ip6tables-restore",),
}
_CT_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE: without a tuple, all of them
_REQUEST_ACK = 0x5
TRACED = f"flush ruleset\n{nftrace.TABLE}"


@dataclass(frozen=True)
class Seen:
    """What became of one connection: who answered, and the rules its packets met, of both directions."""

    answer: Answer
    steps: tuple[Step, ...]


class Rig:
    """The namespaces of a lab (k3swatch.demo.lab.wired), made ready. The thread it is made in must be the one it is
    used in.
    """

    def __init__(self, spaces: Mapping[str, Namespace]) -> None:
        self._host = spaces["host"]
        self._stack = ExitStack()
        for name in ("host", "other", "web"):
            spaces[name].sysctl(ipv4__tcp_synack_retries=0, ipv4__tcp_syncookies=0)
        self._dialer = Dialer(spaces)
        self._stack.callback(self._dialer.close)
        with self._host.inside():
            self._source = self._stack.enter_context(NftablesSource())
            self._conntrack = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._stack.callback(self._conntrack.close)
        with self._host.inside():
            self._tracer = nftrace.Tracer()
        self._stack.callback(self._tracer.close)
        self.ruleset = LiveRuleset(self._source)
        with self._host.inside():
            self.host = read_host()

    def close(self) -> None:
        """Give all sockets back; the namespaces are whoever made them."""
        self._stack.close()

    def load(self, ruleset: Ruleset) -> None:
        """In place of the rules that were there. SourceError when a tool does not like them."""
        first = TRACED
        loads = list(ruleset.loads())
        if loads and loads[0][0] == "nft":
            first += loads.pop(0)[1]
        self._host.run(*LOADERS["nft"], stdin=first)
        for tool, text in loads:
            self._host.run(*LOADERS[tool], stdin=text)
        self.ruleset.refresh()

    def watch(self, dials: Sequence[Dial], patience: float = PATIENCE) -> list[Seen]:
        """Make the connections; what became of each."""
        self._forget()
        self._tracer.read()
        answers = self._dialer.dial(dials, patience)
        clients = {(dial.source, answer.source_port) for dial, answer in zip(dials, answers, strict=True)}
        traced = self._tracer.read(clients)
        return [
            Seen(answer, tuple(traced.get((dial.source, answer.source_port), ())))
            for dial, answer in zip(dials, answers, strict=True)
        ]

    def _forget(self) -> None:
        """No connection is known any more."""
        self._conntrack.send(HEADER.pack(20, _CT_DELETE, _REQUEST_ACK, 0, 0) + bytes(4))
        self._conntrack.recv(4096)
