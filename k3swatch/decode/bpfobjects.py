"""bpf_prog_info, and the tc qdiscs and filters that hold BPF programs -> values.

Follows `uapi/linux/bpf.h`, `rtnetlink.h`, `pkt_cls.h`, `tc_act/tc_bpf.h`. Integers are in host order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from k3swatch.decode.attributes import Attributes, display, walk
from k3swatch.decode.message import message
from k3swatch.errors import DecodeError

_RTM_NEWQDISC, _RTM_NEWTFILTER = 36, 44
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_ACT, _TCA_BPF_NAME, _TCA_BPF_TAG, _TCA_BPF_ID = 1, 7, 10, 11
_TCA_ACT_KIND, _TCA_ACT_OPTIONS = 1, 2
_TCA_ACT_BPF_NAME, _TCA_ACT_BPF_TAG, _TCA_ACT_BPF_ID = 6, 8, 9
# where each classifier of the kernel keeps its actions: TCA_*_ACT
_ACTIONS = {
    "bpf": 1,
    "matchall": 2,
    "flower": 3,
    "basic": 3,
    "cgroup": 1,
    "flow": 9,
    "fw": 4,
    "route": 6,
    "u32": 7,
}

_REWRITING = frozenset({"nat", "pedit", "ct", "tunnel_key", "mpls", "ife", "skbmod"})
# struct tc_gact, struct tc_mirred: index, capab, action, refcnt, bindcnt; and of mirred eaction, ifindex
_PARMS = {"gact": (2, 20), "mirred": (2, 28)}  # TCA_GACT_PARMS, TCA_MIRRED_PARMS, and their length
_PASSING = frozenset({-1, 0, 1, 3})  # TC_ACT_UNSPEC, OK, RECLASSIFY, PIPE
_REDIRECTING = frozenset({1, 3})  # TCA_EGRESS_REDIR, TCA_INGRESS_REDIR

# type, id, tag, lengths and instructions, load time, user, maps, name: struct bpf_prog_info
_INFO = struct.Struct("=II8s32xI12x16s")


class Info(NamedTuple):
    """What the kernel says of one program."""

    id: int
    name: str
    tag: str
    uid: int | None


def decode_info(raw: bytes) -> Info:
    """One struct bpf_prog_info, its first 80 bytes."""
    if len(raw) < _INFO.size:
        raise DecodeError(f"bpf_prog_info: {len(raw)} bytes, want {_INFO.size}")
    _, number, tag, uid, name = _INFO.unpack_from(raw)
    return Info(number, display(name), tag.hex(), uid)


def decode_qdisc(raw: bytes) -> tuple[int, str]:
    """The interface's index and the kind of one qdisc."""
    interface, attributes = _tc(raw, _RTM_NEWQDISC, "qdisc")
    return interface, display(attributes.raw(_TCA_KIND))


def decode_filter(raw: bytes) -> list[Info]:
    """The BPF programs of one tc filter: the classifier itself, or actions of any classifier.

    An action that is no BPF and takes, changes or drops packets is among them, with id 0 and its kind as its name.
    """
    _, attributes = _tc(raw, _RTM_NEWTFILTER, "filter")
    kind = display(attributes.raw(_TCA_KIND))
    if _TCA_OPTIONS not in attributes:
        return []  # the head of a chain
    options = attributes.nested(_TCA_OPTIONS, kind)
    found = []
    if kind == "bpf" and _TCA_BPF_ID in options:
        found.append(_info(options, _TCA_BPF_ID, _TCA_BPF_NAME, _TCA_BPF_TAG))
    place = _ACTIONS.get(kind)
    if place is not None and place in options:
        for _, inside in walk(options.raw(place), f"{kind} actions"):
            action = Attributes(inside, f"{kind} action")
            called = display(action.raw_or_empty(_TCA_ACT_KIND))
            if _takes(called, action):
                found.append(Info(0, called, "", None))
            elif called == "bpf":
                known = action.nested(_TCA_ACT_OPTIONS, "bpf")
                if _TCA_ACT_BPF_ID in known:
                    found.append(_info(known, _TCA_ACT_BPF_ID, _TCA_ACT_BPF_NAME, _TCA_ACT_BPF_TAG))
    return found


def _takes(kind: str, action: Attributes) -> bool:
    """Whether an action does more to some packets than to look at them."""
    parms, size = _PARMS.get(kind, (0, 0))
    if not size:
        return kind in _REWRITING
    values = action.nested(_TCA_ACT_OPTIONS, kind).raw_or_empty(parms) if _TCA_ACT_OPTIONS in action else b""
    if len(values) < size:
        return True
    if kind == "gact":
        return int(struct.unpack_from("=i", values, 8)[0]) not in _PASSING
    return int(struct.unpack_from("=i", values, 20)[0]) in _REDIRECTING


def _info(attributes: Attributes, number: int, name: int, tag: int) -> Info:
    value = attributes.raw(number)
    if len(value) != 4:
        raise DecodeError(f"{attributes.where}: program id of {len(value)} bytes")
    called = display(attributes.raw(name)) if name in attributes else ""
    hashed = attributes.raw(tag)[:8].hex() if tag in attributes else ""
    return Info(int(struct.unpack("=I", value)[0]), called, hashed, None)


def _tc(raw: bytes, kind: int, where: str) -> tuple[int, Attributes]:
    found = message(raw)
    if found.type != kind or len(found.body) < _TCMSG.size:
        raise DecodeError(f"{where}: message of type {found.type} with {len(found.body)} bytes")
    interface = _TCMSG.unpack_from(found.body)[1]
    return interface, Attributes(found.body[_TCMSG.size :], where)
