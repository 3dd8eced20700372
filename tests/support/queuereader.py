"""A program that reads a queue of packets (NFQUEUE) and lets all of them pass, or none: `python queuereader.py 0 drop`.

Follows uapi/linux/netfilter/nfnetlink_queue.h. It says `ready`, goes to the background, and ends with the next change
of the ruleset, so that whoever flushes the rules is rid of it, or after a minute.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

from k3swatch.sources.netlink import HEADER, NETLINK_NETFILTER, attribute

_SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE
_PACKET, _VERDICT, _CONFIG = range(3)
_CFG_CMD, _CFG_PARAMS, _VERDICT_HDR, _PACKET_HDR = 1, 2, 2, 1
_BIND, _COPY_META = 1, 1
_NFNLGRP_NFTABLES = 7
_LONGEST = 60.0


def _send(netlink: socket.socket, kind: int, number: int, payload: bytes) -> None:
    body = struct.pack(">BBH", 0, 0, number) + payload
    netlink.send(HEADER.pack(HEADER.size + len(body), _SUBSYSTEM | kind, 1, 0, 0) + body)


def main(number: int, verdict: int) -> None:
    """Bind the queue, fork, and decide in the child."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    _send(netlink, _CONFIG, number, attribute(_CFG_CMD, struct.pack(">BxH", _BIND, 0)))
    _send(netlink, _CONFIG, number, attribute(_CFG_PARAMS, struct.pack(">IB", 0, _COPY_META)))
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    events.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
    if os.fork():
        print("ready", flush=True)
        os._exit(0)
    os.setsid()
    for descriptor in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    until = time.monotonic() + _LONGEST
    while (left := until - time.monotonic()) > 0:
        readable, _, _ = select.select([netlink, events], [], [], left)
        if events in readable:
            return
        for message in [netlink.recv(65536)] if netlink in readable else []:
            if message[4] == _PACKET and message[5] == _SUBSYSTEM >> 8:
                packet = message[HEADER.size + 4 + 4 :][
                    :4
                ]  # nfqnl_msg_packet_hdr comes first, with the id first
                _send(netlink, _VERDICT, number, attribute(_VERDICT_HDR, struct.pack(">I", verdict) + packet))


if __name__ == "__main__":
    main(int(sys.argv[1]), {"drop": 0, "accept": 1}[sys.argv[2]])
