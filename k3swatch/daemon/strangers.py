"""Listening sockets that are certain not to be the port owner's: whoever is accepted there is diverted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from k3swatch.evaluate.flows import vantage_of
from k3swatch.incident.picture import with_flow
from k3swatch.model.finding import Finding, Observation
from k3swatch.model.flow import Flow
from k3swatch.model.port import Host, ProtectedPort
from k3swatch.model.words import Mechanism, State


class Strangers:
    """Those of one observation. Pure."""

    def __init__(self, observation: Observation | None = None, host: Host | None = None) -> None:
        """Findings name one socket of each kind; `host` has all of them."""
        self._host = host or Host()
        self._found = [
            (verdict.port.name, finding, self._alike({step.handle for step in finding.path}))
            for verdict in (observation.verdicts if observation is not None else ())
            for finding in verdict.findings
            if finding.mechanism is Mechanism.SOCKET and finding.state is State.DIVERTED and finding.certain
        ]

    @property
    def inodes(self) -> frozenset[int]:
        """All of them."""
        return frozenset[int]().union(*(inodes for _, _, inodes in self._found))

    def taking(self, port: ProtectedPort, flow: Flow) -> Finding | None:
        """What was found about the socket that has this connection; None when it is none of these."""
        vantage, address = vantage_of(self._host, flow), str(flow.dialled)
        for name, finding, inodes in self._found:
            here = (name, finding.vantage) == (port.name, vantage) and address in finding.addresses
            if here and flow.listener in inodes:
                return with_flow(finding)
        return None

    def _alike(self, inodes: Iterable[int]) -> frozenset[int]:
        known, sockets = frozenset(inodes) - {0}, self._host.sockets or ()
        kinds = {replace(socket, inode=0) for socket in sockets if socket.inode in known}
        return known | {socket.inode for socket in sockets if replace(socket, inode=0) in kinds} - {0}
