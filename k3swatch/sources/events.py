"""Wait for netlink multicast messages without losing count: what arrived, and that something was lost.

The one thing worse than no event is an event lost in silence: a full socket buffer (ENOBUFS) raises `lost`,
and whoever waits on `fileno()` was woken by it all the same.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final

from k3swatch.errors import SourceError
from k3swatch.sources.netlink import BUFFER, HEADER, failure, frames

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER: Final = 26
# struct sock_filter of `uapi/linux/filter.h` and the three classic BPF codes that are needed
_FILTER = struct.Struct("=HBBI")
_LD_H_ABS, _JMP_JEQ_K, _RET_K = 0x28, 0x15, 0x06
_NLMSG_TYPE_OFFSET: Final = 4
_AT_ONCE: Final = 256  # datagrams in one read: the daemon has other things to do as well


def only_type(message_type: int) -> list[bytes]:
    """A classic BPF program that lets only datagrams of one nlmsg_type into the socket's buffer.

    BPF loads 16 bits as network order, nlmsg_type is host order: hence htons.
    """
    return [
        _FILTER.pack(_LD_H_ABS, 0, 0, _NLMSG_TYPE_OFFSET),
        _FILTER.pack(_JMP_JEQ_K, 0, 1, socket.htons(message_type)),
        _FILTER.pack(_RET_K, 0, 0, 0xFFFFFFFF),
        _FILTER.pack(_RET_K, 0, 0, 0),
    ]


class EventSocket:
    """Messages of some multicast groups of one netlink protocol, in the network namespace it was made in.

    `lost` counts the times the kernel had to drop some. Raises NotPermitted, Unsupported, SourceError.
    """

    def __init__(
        self, protocol: int, groups: Sequence[int], what: str, program: Sequence[bytes] = ()
    ) -> None:
        self._what = what
        self.lost = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        except OSError as error:
            raise failure(what, error.errno or 0) from error
        try:
            self._socket.bind((0, 0))
            if program:  # before joining, so that nothing else ever gets in
                self.attach(program)
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise failure(what, error.errno or 0) from error

    def attach(self, program: Sequence[bytes]) -> None:
        """Let only in what this classic BPF program accepts; it takes the place of the one before."""
        code = ctypes.create_string_buffer(b"".join(program))
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
        )

    def fileno(self) -> int:
        """To wait on; readable when something came or was lost."""
        return self._socket.fileno()

    def read(self) -> list[bytes]:
        """The messages that wait now, oldest first; empty when none does. Never blocks.

        A read that was woken and returns nothing while `lost` went up means: something changed.
        """
        found: list[bytes] = []
        for _ in range(_AT_ONCE):
            try:
                datagram, _, flags, address = self._socket.recvmsg(BUFFER)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise SourceError(f"{self._what}: {error.strerror}") from error
                self.lost += 1
                continue
            if address[0] != 0:
                continue  # not from the kernel
            if flags & socket.MSG_TRUNC:
                self.lost += 1
                continue
            found.extend(frames(datagram))
        return [message for message in found if HEADER.unpack_from(message)[1] > 3]  # no NOOP, ERROR, DONE

    def close(self) -> None:
        """Leave the groups."""
        self._socket.close()
