"""Queues of packets for programs (NFQUEUE): who reads each of them."""

from __future__ import annotations

from dataclasses import dataclass

COPY_NONE = 0  # NFQNL_COPY_NONE: its reader has not said yet what it wants of packets


@dataclass(frozen=True, slots=True)
class PacketQueue:
    """A queue that a program has bound (nfqnl_msg_config_cmd). One that nobody has bound is not there."""

    number: int
    portid: int  # the netlink socket of whoever reads it
    mode: int = 2  # NFQNL_COPY_*
    reader: str = ""  # `/usr/bin/suricata (pid 812)`, hostile; empty: not looked up, or not to be found
