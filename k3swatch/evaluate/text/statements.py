"""Expressions that act: verdicts, NAT, marks, limits, in nft's words."""

from __future__ import annotations

from k3swatch.evaluate.text import fields, render, symbols
from k3swatch.evaluate.text.compare import prefix
from k3swatch.evaluate.text.loads import concatenation, expression, exthdr_name, payload
from k3swatch.evaluate.text.verdict import verdict
from k3swatch.evaluate.text.writer import LAYER3, LAYER4, Value, Writer
from k3swatch.model import expr as e

DYNSET = ("add", "update", "delete")
OBJECTS = {
    1: "counter name",
    2: "quota name",
    3: "ct helper set",
    4: "limit name",
    7: "ct timeout set",
    8: "secmark name",
    9: "ct expectation set",
    10: "synproxy name",
}
UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
BYTES = ((1 << 20, "mbytes"), (1 << 10, "kbytes"))
DEFAULT_BURST = 5  # which nft leaves out
NETMAP = 64  # NF_NAT_RANGE_NETMAP


def flags(value: int) -> str:
    """` random,persistent`, or nothing."""
    words = ",".join(word for bit, word in symbols.NAT_FLAGS.items() if value & bit)
    return f" {words}" if words else ""


def endpoint(low: str, high: str, ports: str, version6: bool) -> str:
    """`10.42.0.244:6443`, `[fd00::5]-[fd00::7]:6443`, `:7443`."""
    if version6 and ports:
        low, high = (f"[{address}]" if address else "" for address in (low, high))
    addresses = low if high in ("", low) else f"{low}-{high}"
    return f"{addresses}:{ports}" if ports else addresses


def registers(writer: Writer, low: int | None, high: int | None, shown: render.Render) -> tuple[str, str]:
    """Both ends of a range held in registers, as text; the same twice when there is one end."""

    def one(register: int | None) -> str:
        if register is None or not writer.holds(register):
            return ""
        value = writer.value(register)
        return shown(value.constant) if value.constant is not None else concatenation((value,))

    return one(low), one(high if high is not None else low)


def netmap(writer: Writer, expr: e.Nat, low: str, high: str) -> tuple[str, str]:
    """A range of constants as the prefix it is."""
    ends = [
        writer.value(register).constant for register in (expr.addr_min, expr.addr_max) if register is not None
    ]
    match ends:
        case [bytes() as first, bytes() as last]:
            mask = bytes(a ^ b ^ 0xFF for a, b in zip(first, last, strict=False))
            return prefix(first, mask), ""
    return low, high


def to_family(writer: Writer, number: int, always: bool = False) -> str:
    """`ip ` or `ip6 `, which nft adds in tables of more than one family."""
    name = symbols.NFPROTOS.get(number, "")
    return (
        f"{name.replace('ipv4', 'ip').replace('ipv6', 'ip6')} "
        if name and (always or writer.family == "inet")
        else ""
    )


def nat(expr: e.Nat, writer: Writer) -> str:
    """`dnat to 10.42.0.244:6443`, `dnat ip to ip daddr . tcp dport map @name`."""
    low, high = registers(writer, expr.addr_min, expr.addr_max, render.address)
    first, last = registers(writer, expr.proto_min, expr.proto_max, render.network)
    ports = first if last in ("", first) else f"{first}-{last}"
    family = to_family(writer, expr.family)
    if expr.flags & NETMAP:
        low, high = netmap(writer, expr, low, high)
    mapped = expr.addr_min is not None and writer.value(expr.addr_min).constant is None
    if mapped and (expr.flags & NETMAP or (expr.proto_min is not None and not first)):
        family = to_family(
            writer, expr.family, always=True
        )  # nft wants it for a map of both, and of prefixes
    word = "snat" if expr.type == 0 else "dnat" if expr.type == 1 else f"opaque(nat {expr.type})"
    target = endpoint(low, high, ports, expr.family == 10)
    return f"{word} {family}{'prefix ' if expr.flags & NETMAP else ''}to {target}{flags(expr.flags)}"


def to_this_host(word: str, expr: e.Redir | e.Masq, writer: Writer) -> str:
    """`redirect to :7443`, `masquerade to :1024-2000`: the address goes without saying."""
    first, last = registers(writer, expr.proto_min, expr.proto_max, render.network)
    ports = f" to :{first}" + (f"-{last}" if last not in ("", first) else "") if first else ""
    return f"{word}{ports}{flags(expr.flags)}"


def tproxy(expr: e.Tproxy, writer: Writer) -> str:
    """`tproxy ip to 127.0.0.1:9000`."""
    address, _ = registers(writer, expr.addr, None, render.address)
    port, _ = registers(writer, expr.port, None, render.network)
    family = to_family(writer, expr.family) if address else ""
    return f"tproxy {family}to {endpoint(address, address, port, ':' in address)}"


def reject(expr: e.Reject, writer: Writer) -> str:
    """`reject`, `reject with tcp reset`; port-unreachable is the default."""
    if expr.type == 0:
        writer.name(LAYER3)
    elif writer.family != "inet":
        writer.name(LAYER4)
    if expr.type == 1:
        return "reject with tcp reset"
    if expr.type == 2:
        name, table = "icmpx", symbols.REJECT_ICMPX
    elif writer.layer3 == 10:
        name, table = "icmpv6", symbols.REJECT_ICMPV6
    else:
        name, table = "icmp", symbols.REJECT_ICMP
    word = table.get(expr.code, str(expr.code))
    default = word == "port-unreachable" and (name == "icmpx") == (writer.family == "inet")
    return "reject" if default else f"reject with {name} {word}"


def assign(name: str, shown: render.Render, value: Value) -> str:
    """`meta mark set 0x00000001`."""
    constant = value.constant
    return f"{name} set {shown(constant) if constant is not None else expression(value)}"


def payload_set(expr: e.PayloadSet, writer: Writer) -> str:
    """`ip daddr set 10.0.0.1`."""
    target = payload(e.Payload(0, expr.base, expr.offset, expr.length), writer)
    writer.name(*target.rests_on)
    return assign(target.text, target.render, writer.value(expr.sreg))


def limit(expr: e.Limit) -> str:
    """`limit rate over 10/second burst 5 packets`."""
    over = "over " if expr.flags & 1 else ""
    unit = UNITS.get(expr.unit, f"{expr.unit}s")
    if expr.type == 0:
        return f"limit rate {over}{expr.rate}/{unit}" + (
            f" burst {expr.burst} packets" if expr.burst not in (0, DEFAULT_BURST) else ""
        )
    burst = f" burst {size(expr.burst)}" if expr.burst else ""
    return f"limit rate {over}{size(expr.rate)}/{unit}{burst}"


def size(count: int) -> str:
    """`25 mbytes`."""
    for factor, name in BYTES:
        if count and count % factor == 0:
            return f"{count // factor} {name}"
    return f"{count} bytes"


def queue(expr: e.Queue) -> str:
    """`queue flags bypass to 1-3`."""
    words = ",".join(word for bit, word in ((1, "bypass"), (2, "fanout")) if expr.flags & bit)
    last = f"-{expr.num + expr.total - 1}" if expr.total > 1 else ""
    numbers = f"{expr.num}{last}" if expr.sreg is None else "a number that is looked up"
    return f"queue{f' flags {words}' if words else ''} to {numbers}"


def dynset(expr: e.Dynset, writer: Writer) -> str:
    """`update @recent { ip saddr }`."""
    word = symbols.word(DYNSET, expr.op)
    key = concatenation(writer.key(expr.sreg_key))
    data = f" : {expression(writer.value(expr.sreg_data))}" if expr.sreg_data is not None else ""
    return f"{word} @{expr.set} {{ {key}{data} }}"


def objref(expr: e.Objref, writer: Writer) -> str:
    """`counter name "x"`, `ct helper set ip saddr map @name`."""
    words = OBJECTS.get(expr.type, "object")
    if expr.sreg is not None:
        return f"{words} {concatenation(writer.key(expr.sreg))} map @{expr.set}"
    return f'{words} "{expr.name}"'


def log(expr: e.Log) -> str:
    """`log prefix "dropped: " group 2`."""
    group = f" group {expr.group}" if expr.group is not None else ""
    return "log" + (f' prefix "{expr.prefix}"' if expr.prefix else "") + group


def forward(word: str, address: int | None, device: int | None, writer: Writer) -> str:
    """`dup to 10.0.0.9 device 3`, `fwd to 3`."""
    parts = []
    if address is not None:
        parts.append(f"to {registers(writer, address, None, render.address)[0]}")
    if device is not None:
        number = registers(writer, device, None, render.host)[0]
        parts.append(f"device {number}" if parts else f"to {number}")
    return " ".join([word, *parts])


def statement(expr: e.Expr, writer: Writer) -> str | None:
    """What an expression does, in words; the empty string says nothing; None: not one of these."""
    match expr:
        case e.Counter() | e.Last():
            return ""
        case e.Immediate(verdict=e.Verdict() as found):
            return verdict(found)
        case e.Nat():
            return nat(expr, writer)
        case e.Redir():
            return to_this_host("redirect", expr, writer)
        case e.Masq():
            return to_this_host("masquerade", expr, writer)
        case e.Tproxy():
            return tproxy(expr, writer)
        case e.Reject():
            return reject(expr, writer)
        case e.MetaSet():
            return assign(
                *fields.META.get(expr.key, (f"meta {expr.key}", render.hexadecimal)), writer.value(expr.sreg)
            )
        case e.CtSet():
            name, shown = fields.CT.get(expr.key, (str(expr.key), render.hexadecimal))
            return assign(f"ct {name}", shown, writer.value(expr.sreg))
        case e.PayloadSet():
            return payload_set(expr, writer)
        case e.Exthdr() if expr.sreg is not None:
            return assign(exthdr_name(expr), render.network, writer.value(expr.sreg))
        case e.Dynset():
            return dynset(expr, writer)
        case e.Objref():
            return objref(expr, writer)
        case e.Log():
            return log(expr)
        case e.Limit():
            return limit(expr)
        case e.Quota():
            return f"quota {'over ' if expr.flags & 1 else ''}{size(expr.bytes)}"
        case e.Connlimit():
            return f"ct count {'over ' if expr.flags & 1 else ''}{expr.count}"
        case e.Queue():
            return queue(expr)
        case e.Notrack():
            return "notrack"
        case e.Synproxy():
            return "synproxy"
        case e.Dup():
            return forward("dup", expr.addr, expr.dev, writer)
        case e.Flow():
            return f"flow add @{expr.table}"
        case e.Fwd():
            return forward("fwd", expr.addr, expr.dev, writer)
    return None
