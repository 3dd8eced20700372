"""Ask the kernel over netlink: one request, one answer or one dump, as raw messages. Framing only, no
parsing.

Follows `uapi/linux/netlink.h` and Documentation/userspace-api/netlink/intro.rst. A socket belongs to the
network namespace it was made in, for as long as it lives. Not for use by two threads at once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

from k3swatch.errors import Interrupted, NotPermitted, SourceError, Unsupported

NETLINK_ROUTE: Final = 0
NETLINK_SOCK_DIAG: Final = 4
NETLINK_NETFILTER: Final = 12

NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x4, 0x400, 0x800
_NLMSG_NOOP, _NLMSG_ERROR, _NLMSG_DONE = 1, 2, 3
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")

BUFFER: Final = 1 << 17  # the kernel fills 32 KB at most (netlink_dump); one rule may need a skb of its own
LONGEST: Final = 256 << 20  # bytes of one dump that we are willing to hold

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOPROTOOPT, errno.ENOSYS}


class Refused(SourceError):
    """The kernel answered with an error that means something only to who asked: see `errno`."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def frames(datagram: bytes) -> Iterator[bytes]:
    """The messages of one datagram (or of a file of them), each whole and without padding."""
    return (message for *_, message in _headed(datagram))


def _headed(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The same with type, flags and sequence number of each."""
    start, end, header = 0, len(datagram), HEADER.unpack_from
    while start < end:
        if end - start < HEADER.size:
            raise SourceError(f"netlink: {end - start} stray bytes after the last message")
        length, kind, flags, sequence, _ = header(datagram, start)
        if not HEADER.size <= length <= end - start:
            raise SourceError(f"netlink: message of length {length}, have {end - start}")
        yield kind, flags, sequence, datagram[start : start + length]
        start += length + 3 & ~3


def failure(what: str, number: int, said: str = "") -> SourceError:
    """The error for an errno: NotPermitted, Unsupported, Interrupted, or Refused with the number."""
    text = f"{what}: {os.strerror(number)}" + (f" ({said})" if said else "")
    if number in (errno.EPERM, errno.EACCES):
        return NotPermitted(text, hint="run it as root, or with the capability CAP_NET_ADMIN")
    if number in _UNSUPPORTED:
        return Unsupported(text, hint="this kernel was built without it, or its module is not loaded")
    if number in (errno.ENOBUFS, errno.EINTR):
        return Interrupted(text, hint="answers were lost; ask again")
    return Refused(text, number)


def _said(message: bytes, flags: int) -> str:
    """What the kernel says beside the errno (NLMSGERR_ATTR_MSG), if anything."""
    start = HEADER.size + _ERRNO.size
    if not flags & _NLM_F_ACK_TLVS or len(message) < start + HEADER.size:
        return ""
    (length,) = struct.unpack_from("=I", message, start)
    start += HEADER.size if flags & _NLM_F_CAPPED else length
    while start + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, start)
        if size < _ATTRIBUTE.size:
            break
        if kind == _NLMSGERR_ATTR_MSG:
            text = message[start + _ATTRIBUTE.size : start + size].rstrip(b"\0")
            return text.decode(errors="backslashreplace")
        start += size + 3 & ~3
    return ""


class NetlinkSocket:
    """A socket of one netlink protocol; `what` names it in errors, `timeout` is in seconds."""

    def __init__(self, protocol: int, what: str, timeout: float = 5.0) -> None:
        self._what = what
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise failure(what, error.errno or 0) from error
        self._socket.bind((0, 0))
        self._socket.settimeout(timeout)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._buffer = bytearray(BUFFER)

    def strict(self) -> None:
        """Let the kernel leave out of dumps what the request does not ask for (since 4.20; older ones send it all)."""
        with suppress(OSError):
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, kind: int, payload: bytes) -> bytes:
        """One question with one answer. Refused (with errno), NotPermitted, Unsupported, SourceError."""
        self._send(kind, NLM_F_REQUEST, payload)
        for _, answer in self._answers():
            return answer
        raise SourceError(f"{self._what}: an answer without a message")

    def dump(
        self,
        kind: int,
        payload: bytes,
        longest: int = LONGEST,
        keep: Callable[[bytes], bool] | None = None,
    ) -> list[bytes] | None:
        """All messages of a dump (or those that `keep` wants); None when they are more than `longest` bytes.

        Interrupted when the kernel says that what it walked changed meanwhile. The dump is always read to its
        end: a socket with one under way refuses the next.
        """
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)
        found: list[bytes] = []
        size, torn = 0, False
        for flags, answer in self._answers():
            torn = torn or bool(flags & NLM_F_DUMP_INTR)
            if keep is not None and not keep(answer):
                continue
            size += len(answer)
            if size <= longest:
                found.append(answer)
        if torn or self._done_flags & NLM_F_DUMP_INTR:
            raise Interrupted(f"{self._what}: it changed while it was read", hint="ask again")
        return found if size <= longest else None

    def tell(self, kind: int, payload: bytes) -> None:
        """One request that is answered with nothing but an acknowledgement. Raises what `ask` does."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK, payload)
        for _ in self._answers():
            pass

    def batch(self, messages: Sequence[tuple[int, int, bytes]]) -> None:
        """Requests (type, flags, payload) in one datagram, for subsystems that take them as one transaction.

        Every message with NLM_F_ACK must be acknowledged. The first error is raised: as Interrupted when it is
        ERESTART, what nfnetlink says when the generation asked for is over.
        """
        first = self._sequence + 1
        parts = []
        for number, (kind, flags, payload) in enumerate(messages, first):
            header = HEADER.pack(HEADER.size + len(payload), kind, flags | NLM_F_REQUEST, number, 0)
            parts.append(header + payload + bytes(-len(payload) % 4))
        self._sequence += len(messages)
        wanted = {number for number, (_, flags, _) in enumerate(messages, first) if flags & NLM_F_ACK}
        datagram = b"".join(parts)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(datagram) + BUFFER)
            self._socket.send(datagram)
        except OSError as error:
            raise failure(self._what, error.errno or 0) from error
        while wanted:  # nfnetlink_rcv works in our own send(2): all answers are there
            for message in frames(self._receive()):
                _, kind, flags, sequence, _ = HEADER.unpack_from(message)
                if kind == _NLMSG_ERROR and sequence >= first:
                    self._acknowledged(message, flags)
                    wanted.discard(sequence)

    def _acknowledged(self, message: bytes, flags: int) -> None:
        number = -_ERRNO.unpack_from(message, HEADER.size)[0]
        if number == errno.ERESTART:
            raise Interrupted(f"{self._what}: it changed meanwhile", hint="nothing was done; try again")
        if number > 0:
            raise failure(self._what, number, _said(message, flags))

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        header = HEADER.pack(HEADER.size + len(payload), kind, flags, self._sequence, 0)
        self._dumping = flags & NLM_F_DUMP == NLM_F_DUMP
        self._done_flags = 0
        try:
            self._socket.send(header + payload)
        except OSError as error:
            raise failure(self._what, error.errno or 0) from error

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """The messages that answer the last request, with their flags; what is left of an older one is thrown away."""
        while True:
            for kind, flags, sequence, message in _headed(self._receive()):
                if sequence != self._sequence or kind == _NLMSG_NOOP:
                    continue
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    self._end(message, kind, flags)
                    return
                yield flags, message
            if not self._dumping:
                return

    def _end(self, message: bytes, kind: int, flags: int) -> None:
        self._done_flags = flags
        number = 0
        if len(message) >= HEADER.size + _ERRNO.size:
            number = -_ERRNO.unpack_from(message, HEADER.size)[0]
        if number > 0:
            raise failure(self._what, number, _said(message, flags) if kind == _NLMSG_ERROR else "")

    def _receive(self) -> bytes:
        """One datagram that the kernel itself sent."""
        while True:
            try:
                length, _, flags, address = self._socket.recvmsg_into([self._buffer])
            except TimeoutError:
                raise SourceError(f"{self._what}: no answer from the kernel in time") from None
            except OSError as error:
                raise failure(self._what, error.errno or 0) from error
            if address[0] != 0:
                continue  # any root process may write to our socket
            if flags & socket.MSG_TRUNC:
                raise SourceError(f"{self._what}: an answer of more than {BUFFER} bytes")
            return bytes(memoryview(self._buffer)[:length])
