"""BPF programs as bpf(2), tc and rtnetlink describe them."""

from __future__ import annotations

import struct

import pytest
from support.wire import name, nla, nlmsg

from k3swatch.decode.bpfobjects import Info, decode_filter, decode_info, decode_qdisc
from k3swatch.decode.host import decode_link, decode_socket, listening_port
from k3swatch.errors import DecodeError
from k3swatch.model.words import Protocol

TAG = bytes(range(8))


def u32(kind: int, number: int) -> bytes:
    return nla(kind, struct.pack("=I", number))


def tc(kind: int, *attributes: bytes, interface: int = 2) -> bytes:
    return nlmsg(kind, struct.pack("=BxxxiIII", 0, interface, 1, 0xFFFFFFF2, 0) + b"".join(attributes))


def bpf_filter(*options: bytes, kind: str = "bpf") -> bytes:
    return tc(44, name(1, kind), nla(2, b"".join(options)))


def action(kind: str, *options: bytes) -> bytes:
    return nla(1, name(1, kind) + nla(2, b"".join(options)))


def test_prog_info() -> None:
    raw = struct.pack("=II8sIIQQQIIQ16s", 6, 77, TAG, 9, 9, 0, 0, 5, 1000, 0, 0, b"cil_xdp_entry")
    assert decode_info(raw) == Info(77, "cil_xdp_entry", TAG.hex(), 1000)
    with pytest.raises(DecodeError, match="want 80"):
        decode_info(raw[:-1])


def test_classifier_and_action() -> None:
    own = bpf_filter(name(7, "cls"), nla(10, TAG), u32(11, 5))
    assert decode_filter(own) == [Info(5, "cls", TAG.hex(), None)]
    acting = nla(2, action("skbedit") + action("bpf", name(6, "act"), nla(8, TAG), u32(9, 6)))
    assert decode_filter(bpf_filter(acting, kind="matchall")) == [Info(6, "act", TAG.hex(), None)]


@pytest.mark.parametrize(
    "raw",
    [
        tc(44, name(1, "bpf")),  # the head of a chain
        bpf_filter(name(7, "cls")),  # classic BPF has no id
        bpf_filter(nla(2, action("bpf", name(6, "act"))), kind="matchall"),
        bpf_filter(nla(9, b"whatever"), kind="unheard-of"),
    ],
)
def test_no_program(raw: bytes) -> None:
    assert decode_filter(raw) == []


@pytest.mark.parametrize(
    "raw", [tc(36, name(1, "bpf")), bpf_filter(nla(11, b"xy")), tc(44, b"\1\0\0\0"), nlmsg(44, b"")]
)
def test_what_does_not_fit_is_an_error(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_filter(raw)


def test_qdisc() -> None:
    assert decode_qdisc(tc(36, name(1, "clsact"), interface=7)) == (7, "clsact")


def test_link_with_xdp_on_a_bond() -> None:
    xdp = nla(43, nla(2, b"\1") + u32(4, 12) + u32(5, 12))
    raw = nlmsg(16, struct.pack("=BxHiII", 0, 1, 3, 1, 0) + name(3, "eth1") + u32(10, 4) + u32(5, 9) + xdp)
    link = decode_link(raw)
    assert (link.xdp, link.master, link.link) == ((12,), 4, 9)
    assert decode_link(nlmsg(16, struct.pack("=BxHiII", 0, 1, 3, 1, 0) + name(3, "eth1"))).xdp == ()


def test_socket_with_its_control_group() -> None:
    ends = struct.pack(">HH", 6443, 0) + bytes(32)
    body = struct.pack("=BBBB", 2, 10, 0, 0) + ends + struct.pack("=I8xIIIII", 3, 0, 0, 0, 1000, 42)
    raw = nlmsg(20, body + nla(21, struct.pack("=Q", 1 << 32 | 5)))
    socket = decode_socket(raw, Protocol.TCP)
    assert (socket.cgroup, socket.inode, socket.interface) == (1 << 32 | 5, 42, 3)
    assert listening_port(raw) == 6443
    assert listening_port(raw[:20]) == 0
    assert decode_socket(nlmsg(20, body), Protocol.TCP).cgroup == 0


def parms(*numbers: int) -> bytes:
    return nla(2, struct.pack(f"={len(numbers)}i", *numbers))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        pytest.param(action("mirred", parms(1, 0, 4, 1, 1, 1, 3)), True, id="redirect"),
        pytest.param(action("mirred", parms(1, 0, 3, 1, 1, 2, 3)), False, id="mirror"),
        pytest.param(action("gact", parms(1, 0, 2, 1, 1)), True, id="drop"),
        pytest.param(action("gact", parms(1, 0, 0, 1, 1)), False, id="pass"),
        pytest.param(action("nat"), True, id="nat"),
        pytest.param(action("mirred"), True, id="what it does is not said"),
        pytest.param(action("police"), False, id="police"),
    ],
)
def test_actions_that_are_no_bpf(made: bytes, told: bool) -> None:
    (kind,) = {each for each in ("mirred", "gact", "nat", "police") if each.encode() in made}
    assert decode_filter(bpf_filter(nla(7, made), kind="u32")) == ([Info(0, kind, "", None)] if told else [])
