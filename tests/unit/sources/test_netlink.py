"""The request side of netlink, with a kernel of a few lines behind the socket."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

import pytest
from support.wire import nla, nlmsg

from k3swatch.errors import Interrupted, NotPermitted, SourceError, Unsupported
from k3swatch.sources import nftables
from k3swatch.sources.netlink import NetlinkSocket, Refused, frames
from k3swatch.sources.nftables import NftablesSource

DONE, ERROR = 3, 2
Reply = bytes | OSError


class Kernel:
    """Stands for the kernel's end: keeps what was asked, answers each receive with the next datagram.

    Sequence 0 in an answer stands for that of the last request.
    """

    def __init__(self, *replies: Reply, sender: int = 0, flags: int = 0) -> None:
        self.replies = list(replies)
        self.asked: list[bytes] = []
        self.sender, self.flags = sender, flags
        self.closed = False

    def __call__(self, *arguments: int) -> Kernel:
        return self

    def bind(self, address: tuple[int, int]) -> None: ...
    def settimeout(self, seconds: float) -> None: ...
    def setsockopt(self, *arguments: object) -> None: ...

    def close(self) -> None:
        self.closed = True

    def send(self, request: bytes) -> None:
        self.asked.append(request)

    def recvmsg_into(self, buffers: list[bytearray]) -> tuple[int, list[object], int, tuple[int, int]]:
        if not self.replies:
            raise TimeoutError
        reply = self.replies.pop(0)
        if isinstance(reply, OSError):
            raise reply
        sequence = self.asked[-1][8:12]
        raw = b"".join(
            each[:8] + sequence + each[12:] + bytes(-len(each) % 4) if each[8:12] == bytes(4) else each
            for each in frames(reply)
        )
        buffers[0][: len(raw)] = raw
        sender, self.sender = self.sender, 0
        return len(raw), [], self.flags, (sender, 0)


Opener = Callable[..., tuple[Kernel, NetlinkSocket]]


@pytest.fixture
def open_with(monkeypatch: pytest.MonkeyPatch) -> Opener:
    def build(*replies: Reply, **options: int) -> tuple[Kernel, NetlinkSocket]:
        kernel = Kernel(*replies, **options)
        monkeypatch.setattr(socket, "socket", kernel)
        return kernel, NetlinkSocket(12, "test")

    return build


def error(number: int, flags: int = 0, more: bytes = b"") -> bytes:
    """NLMSG_ERROR, with the head of the request that failed."""
    return nlmsg(ERROR, struct.pack("=i", -number) + nlmsg(0, b"") + more, flags)


def test_dump_is_read_to_its_end_across_datagrams(
    open_with: Opener,
) -> None:
    one, two, three = (nlmsg(0xA06, bytes([number]) * 5) for number in (1, 2, 3))
    kernel, sock = open_with(one + bytes(3) + two + bytes(3), three, nlmsg(DONE, bytes(4)))
    found = sock.dump(0xA07, b"\1\2\3\4")
    assert [message[16:] for message in found or []] == [b"\1" * 5, b"\2" * 5, b"\3" * 5]
    length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", kernel.asked[0])
    assert (length, kind, flags, sequence) == (20, 0xA07, 0x301, 1)
    assert kernel.asked[0][16:] == b"\1\2\3\4"


def test_answers_to_an_older_request_and_of_other_processes_are_thrown_away(
    open_with: Opener,
) -> None:
    _, sock = open_with(nlmsg(9, b"evil"), nlmsg(9, b"late", sequence=77) + nlmsg(9, b"good"), sender=4711)
    assert sock.ask(1, b"")[16:] == b"good"


def test_interrupted_dump_is_drained_first_and_then_told(
    open_with: Opener,
) -> None:
    _, sock = open_with(nlmsg(9, b"", flags=0x10), nlmsg(9, b""), nlmsg(DONE, bytes(4)), nlmsg(9, b"next"))
    with pytest.raises(Interrupted):
        sock.dump(1, b"")
    assert sock.ask(1, b"")[16:] == b"next"


def test_interruption_told_only_at_the_end(open_with: Opener) -> None:
    _, sock = open_with(nlmsg(9, b""), nlmsg(DONE, bytes(4), flags=0x10))
    with pytest.raises(Interrupted):
        sock.dump(1, b"")


def test_too_long_a_dump_is_none_and_leaves_the_socket_usable(
    open_with: Opener,
) -> None:
    _, sock = open_with(nlmsg(9, bytes(100)) * 3, nlmsg(DONE, bytes(4)), nlmsg(9, b"next"))
    assert sock.dump(1, b"", longest=250) is None
    assert sock.ask(1, b"")[16:] == b"next"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, NotPermitted),
        (errno.EACCES, NotPermitted),
        (errno.EOPNOTSUPP, Unsupported),
        (errno.EPROTONOSUPPORT, Unsupported),
        (errno.ENOBUFS, Interrupted),
        (errno.EINTR, Interrupted),
        (errno.ENOENT, Refused),
        (errno.EBUSY, Refused),
    ],
)
def test_errno_becomes_the_error_that_says_what_to_do(
    number: int, kind: type[SourceError], open_with: Opener
) -> None:
    for reply in (error(number), nlmsg(DONE, struct.pack("=i", -number)), OSError(number, "x")):
        _, sock = open_with(reply)
        with pytest.raises(kind) as raised:
            sock.dump(1, b"")
        assert type(raised.value) is kind
        assert str(raised.value).startswith("test: ")
        assert raised.value.hint or kind is Refused


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            error(22, 0x300, nla(2, bytes(4)) + nla(1, b"no such hook\0")),
            "test: Invalid argument (no such hook)",
        ),
        (error(22, 0x300, nla(1, b"evil \xff\0")), "test: Invalid argument (evil \\xff)"),
        (error(22, 0x300, b"\0\0\0\0"), "test: Invalid argument"),
        (error(22, 0, b""), "test: Invalid argument"),
    ],
)
def test_what_the_kernel_says_beside_the_errno_is_shown(reply: bytes, said: str, open_with: Opener) -> None:
    _, sock = open_with(reply)
    with pytest.raises(Refused) as raised:
        sock.ask(1, b"")
    assert str(raised.value) == said


def test_no_answer_in_time(open_with: Opener) -> None:
    _, sock = open_with()
    with pytest.raises(SourceError, match="no answer from the kernel in time"):
        sock.ask(1, b"")


def test_truncated_answer_is_not_taken_for_whole(
    open_with: Opener,
) -> None:
    _, sock = open_with(nlmsg(9, b""), flags=socket.MSG_TRUNC)
    with pytest.raises(SourceError, match="an answer of more than"):
        sock.ask(1, b"")


@pytest.mark.parametrize("datagram", [b"\0" * 15, b"\x0f\0\0\0" + bytes(12), b"\x11\0\0\0" + bytes(12)])
def test_bad_framing(datagram: bytes) -> None:
    with pytest.raises(SourceError):
        list(frames(datagram))


def test_socket_is_closed_with_the_block(open_with: Opener) -> None:
    kernel, sock = open_with()
    with sock:
        assert not kernel.closed
    assert kernel.closed


def test_nftables_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked, byte for byte: the family, and the attributes of each request."""
    done = nlmsg(DONE, bytes(4))
    kernel = Kernel(done, nlmsg(9, b"chain"), nlmsg(9, b"found"), nlmsg(9, b"all"), done)
    monkeypatch.setattr(socket, "socket", kernel)
    with NftablesSource() as source:
        source.rules("ip", "nat", "PREROUTING")
        source.chain("inet", "fw", "pre")
        source.get_element("ip6", "t", "s", b"\x19\x2b")
        source.get_element("ip6", "t", "s", None)
        source.elements("ip", "t", "s")
    rules, chain, element, catchall, elements = kernel.asked
    assert (rules[4:8], rules[16:]) == (
        struct.pack("=HH", 0xA07, 0x301),
        b"\2\0\0\0" + nla(1, b"nat\0") + nla(2, b"PREROUTING\0"),
    )
    assert (chain[4:8], chain[16:]) == (
        struct.pack("=HH", 0xA04, 1),
        b"\1\0\0\0" + nla(1, b"fw\0") + nla(3, b"pre\0"),
    )
    head = b"\n\0\0\0" + nla(1, b"t\0") + nla(2, b"s\0")
    assert element[16:] == head + nla(3, nla(1, nla(1, nla(1, b"\x19\x2b"))))
    assert catchall[16:] == head + nla(3, nla(1, nla(3, b"\0\0\0\2")))
    assert (elements[4:8], elements[16:]) == (
        struct.pack("=HH", 0xA0D, 0x301),
        b"\2\0\0\0" + nla(1, b"t\0") + nla(2, b"s\0"),
    )


def test_nftables_absent_key_chain_and_set_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Kernel(*[error(errno.ENOENT)] * 3))
    with NftablesSource() as source:
        assert source.get_element("ip", "t", "s", b"k") is None
        assert source.chain("ip", "t", "c") is None
        assert source.set("ip", "t", "s") is None


def test_no_nf_tables_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Kernel(error(errno.EINVAL)))
    with NftablesSource() as source, pytest.raises(Unsupported) as raised:
        source.generation()
    assert "modprobe nf_tables" in raised.value.hint


def test_unknown_family_is_refused_before_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(nftables, "NetlinkSocket", lambda *arguments: kernel)
    with pytest.raises(SourceError, match="no family 'legacy ip'"):
        NftablesSource().rules("legacy ip", "nat", "PREROUTING")
    assert not kernel.asked
