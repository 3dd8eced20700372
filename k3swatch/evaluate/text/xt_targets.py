"""xtables targets in nft's words: NAT, TPROXY, marks, and those that end a rule."""

from __future__ import annotations

from k3swatch.evaluate.text import render, statements, symbols
from k3swatch.evaluate.text.compare import prefix
from k3swatch.evaluate.text.loads import expression
from k3swatch.evaluate.text.verdict import verdict as verdict_text
from k3swatch.evaluate.text.writer import Value, Writer
from k3swatch.evaluate.text.xt_words import ALL, span
from k3swatch.model import xt
from k3swatch.model.expr import Queue, Verdict

NAT_ADDRESS, NAT_PORT, NAT_OFFSET = 1, 2, 32  # NF_NAT_RANGE_MAP_IPS, PROTO_SPECIFIED, PROTO_OFFSET
NAT_WORDS = {
    "DNAT": "dnat",
    "SNAT": "snat",
    "REDIRECT": "redirect",
    "MASQUERADE": "masquerade",
    "NETMAP": "netmap",
}
REJECT_IP = (
    "net-unreachable",
    "host-unreachable",
    "prot-unreachable",
    "port-unreachable",
    "echo-reply",
    "net-prohibited",
    "host-prohibited",
    "tcp reset",
    "admin-prohibited",
)
REJECT_IP6 = (
    "no-route",
    "admin-prohibited",
    "not-neighbour",
    "addr-unreachable",
    "port-unreachable",
    "echo-reply",
    "tcp reset",
    "policy-fail",
    "reject-route",
)


def set_mark(spec: xt.SetMark) -> str:
    """`meta mark set meta mark | 0x00004000`; what nft cannot say in one go is told as CONNMARK."""
    if spec.op:
        if spec.clear == spec.nfmask == ALL and not spec.shift:
            return "ct mark set meta mark" if spec.op == 1 else "meta mark set ct mark"
        word = "save" if spec.op == 1 else "restore"
        shift = f" shift {spec.shift}" if spec.shift else ""
        return f"xt CONNMARK {word} nfmask 0x{spec.nfmask:08x} ctmask 0x{spec.clear:08x}{shift}"
    name = "ct mark" if spec.conntrack else "meta mark"
    if spec.shift:
        return f"xt CONNMARK set 0x{spec.flip:08x} mask 0x{spec.clear:08x} shift {spec.shift}"
    if spec.clear == ALL:
        return f"{name} set 0x{spec.flip:08x}"
    keep, flip = ((number & ALL).to_bytes(4, "big") for number in (~spec.clear, spec.flip))
    return f"{name} set {expression(Value(name, _mark_be, mask=keep, xor=flip))}"


def _mark_be(data: bytes) -> str:
    return f"0x{data.hex()}"


def nat(spec: xt.NatRange, writer: Writer) -> str:
    """`dnat to 10.42.0.244:6443`, `redirect to :7443`, `masquerade fully-random`, `netmap to 10.5.5.0/24`."""
    verb = NAT_WORDS.get(spec.target, f"opaque({spec.target})")
    low, high = spec.addr
    ports = span(spec.port) if spec.flags & NAT_PORT else ""
    if ports and spec.flags & NAT_OFFSET:
        ports += f"/{spec.base_port}"  # as iptables writes it: the port the range counts from
    if spec.target == "NETMAP":
        hosts = bytes(a ^ b for a, b in zip(low, high, strict=False))
        return f"{verb} to {prefix(low, bytes(byte ^ 0xFF for byte in hosts))}"
    addresses = ("", "")
    if spec.flags & NAT_ADDRESS and spec.target in ("DNAT", "SNAT"):
        addresses = (render.address(low), render.address(high))
    target = statements.endpoint(*addresses, ports, writer.layer3 == 10)
    return verb + (f" to {target}" if target else "") + statements.flags(spec.flags)


def tproxy(spec: xt.XtTproxy) -> str:
    """`tproxy to 127.0.0.1:9000 meta mark set 0x00000001`."""
    address = render.address(spec.addr) if any(spec.addr) else ""
    target = statements.endpoint(address, address, str(spec.port) if spec.port else "", len(spec.addr) == 16)
    text = f"tproxy to {target}" if target else "tproxy"
    if not spec.mark_mask:
        return text
    # tproxy_tg4(): mark = (mark & ~mark_mask) ^ mark_value
    return f"{text} {set_mark(xt.SetMark(spec.mark_mask, spec.mark_value))}"


def verdict(
    spec: xt.XtNotrack | xt.XtSynproxy | xt.XtQueue | xt.XtReject | xt.XtStandard, writer: Writer
) -> str:
    """Targets with a statement of nft's own."""
    match spec:
        case xt.XtNotrack():
            return "notrack"
        case xt.XtSynproxy():
            return "synproxy"
        case xt.XtQueue():
            return statements.queue(Queue(spec.num, spec.total, int(spec.bypass)))
        case xt.XtStandard():
            return verdict_text(Verdict(spec.code, spec.chain))
        case xt.XtReject():
            six = writer.layer3 == 10
            names = REJECT_IP6 if six else REJECT_IP
            word = symbols.word(names, spec.how)
            kind = "" if word == "tcp reset" else "icmpv6 " if six else "icmp "
            return "reject" if word == "port-unreachable" else f"reject with {kind}{word}"
