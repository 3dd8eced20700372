"""Files of /proc and /proc/sys as values: who reads queues of packets, and what sysctls say."""

from __future__ import annotations

import pytest

from k3swatch.decode.nfqueue import decode_netlink_sockets, decode_queues
from k3swatch.decode.sysctl import decode_sysctls
from k3swatch.errors import DecodeError
from k3swatch.model.queue import PacketQueue

# as the kernel printed them (6.18): a reader whose port id is his pid, one whose port id was taken
QUEUES = b"""    3   7127     0 1     0     0     0        4  1
    4 -1296331  0 2 65531     0     0        0  1
"""
SOCKETS = b"""sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 12  7127       00000000 0        0        0     2        0        81225
0000000000000000 12  4293670965 00000000 0        0        0     2        0        81226
0000000000000000 0   7127       00000000 0        0        0     2        0        5
0000000000000000 12  0          00000000 0        0        0     2        0        11
"""


def test_queues() -> None:
    assert decode_queues(QUEUES) == (PacketQueue(3, 7127, 1), PacketQueue(4, 4293670965, 2))
    assert decode_queues(b"") == ()
    with pytest.raises(DecodeError, match="packet queues"):
        decode_queues(b"    3   x\n")


def test_port_ids_are_the_same_in_both_tables() -> None:
    inodes = decode_netlink_sockets(SOCKETS + b"short line\n")
    assert [inodes[queue.portid] for queue in decode_queues(QUEUES)] == [81225, 81226]


def test_sysctls_count_as_the_kernel_counts_them() -> None:
    lines = [b"ipv4/conf/all/rp_filter=0", b"ipv4/conf/eth0.5/rp_filter=1", b"ipv4/conf/eth0.5/forwarding=0"]
    found = decode_sysctls(
        [*lines, b"ipv4/conf/all/forwarding=1", b"ipv4/conf/eth0.5/route_localnet=1", b"x"]
    )
    assert found.of("eth0.5", "rp_filter") == 1  # the greater
    assert found.of("eth0.5", "forwarding") == 0  # its own
    assert found.of("eth0.5", "route_localnet") is None  # that of `all` could not be read
    assert found.of("eth1", "rp_filter") is None
