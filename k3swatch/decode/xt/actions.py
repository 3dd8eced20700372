"""Targets that do not send the packet elsewhere: reject, notrack, queue, and those that change nothing that decides."""

from __future__ import annotations

from ipaddress import ip_address
from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts, Reader, address, string
from k3swatch.model.xt import AnyMark, Harmless, XtNotrack, XtQueue, XtReject, XtSpec, XtSynproxy, XtZone

CT_ZONE_OF_ELSE = 0x1C  # XT_CT_ZONE_DIR_ORIG | XT_CT_ZONE_DIR_REPL | XT_CT_ZONE_MARK
CT_NOTRACK = 0x03  # XT_CT_NOTRACK | XT_CT_NOTRACK_ALIAS
SET_MAP_SKBMARK = 1 << 8  # IPSET_FLAG_MAP_SKBMARK
STEPS = ("set", "increment", "decrement")  # IPT_TTL_SET, INC, DEC; IP6T_HL_* alike


def harmless(words: str) -> Reader:
    """A target whose options do not matter to where the packet goes."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return Harmless(words)

    return read


def ct(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_ct_target_info and _v1: `-j CT --notrack`, `--zone 5`, `--helper ftp`."""
    flags, zone = unpack_from("=2H", info)
    if flags & ~0x1F:  # XT_CT_MASK
        return None
    if flags & CT_NOTRACK:
        return XtNotrack()
    name = string(info[12:28])
    words = (f"zone {zone}" if zone or flags & 0x10 else "", f'helper "{name}"' if name else "")
    text = " ".join(word for word in ("CT", *words) if word)
    return XtZone(zone, text) if zone and not flags & CT_ZONE_OF_ELSE else Harmless(text)


def notrack(info: bytes, nfproto: int) -> XtSpec | None:
    """The NOTRACK target of old kernels: no options."""
    return XtNotrack()


def reject(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ipt_reject_info and ip6t_reject_info; the numbers differ by family."""
    (how,) = unpack_from("=I", info)
    return XtReject(how) if how <= 8 else None


def log(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_log_info."""
    return Harmless(f'LOG prefix "{string(info[2:32])}"')


def nflog(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_nflog_info."""
    return Harmless(f'NFLOG group {unpack_from("=H", info, 4)[0]} prefix "{string(info[12:76])}"')


def tcpmss(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tcpmss_info."""
    (mss,) = unpack_from("=H", info)
    return Harmless("TCPMSS clamp to path MTU" if mss == 0xFFFF else f"TCPMSS set {mss}")


def ttl(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ipt_TTL_info and ip6t_HL_info."""
    return Harmless(f"TTL {STEPS[info[0]]} {info[1]}") if info[0] < len(STEPS) else None


def classify(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_classify_target_info."""
    (priority,) = unpack_from("=I", info)
    return Harmless(f"CLASSIFY {priority >> 16:x}:{priority & 0xFFFF:x}")


def tee(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tee_tginfo: a copy goes to the gateway, the packet itself goes on."""
    return Harmless(f"TEE copy to {ip_address(address(info[:16], nfproto))}")


def ipset(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_set_info_target_v0..v2: adds to and deletes from ipsets."""
    return Harmless("SET")


def ipset_map(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_set_info_target_v3: may also take the mark, priority and queue from an ipset."""
    map_set, _, _, flags = unpack_from("=H2BI", info, 8)
    if flags & SET_MAP_SKBMARK:
        return AnyMark(f"SET mark from ipset #{map_set}")
    return Harmless("SET")


def queue(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_NFQ_info."""
    return XtQueue(*unpack_from("=H", info))


def queue_v1(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_NFQ_info_v1: balanced over `total` queues."""
    return XtQueue(*unpack_from("=2H", info))


def queue_v2(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_NFQ_info_v2 and v3: bit 0 is NFQ_FLAG_BYPASS."""
    num, total, flags = unpack_from("=3H", info)
    return XtQueue(num, total, bypass=bool(flags & 1))


def synproxy(info: bytes, nfproto: int) -> XtSpec | None:
    """struct nf_synproxy_info."""
    return XtSynproxy()


TARGETS: Layouts = {
    ("CT", 0): (40, ct),
    ("CT", 1): (72, ct),
    ("CT", 2): (72, ct),
    ("NOTRACK", 0): (0, notrack),
    ("REJECT", 0): (4, reject),
    ("NFQUEUE", 0): (2, queue),
    ("NFQUEUE", 1): (4, queue_v1),
    ("NFQUEUE", 2): (6, queue_v2),
    ("NFQUEUE", 3): (6, queue_v2),
    ("SYNPROXY", 0): (4, synproxy),
    ("SET", 0): (64, ipset),
    ("SET", 1): (8, ipset),
    ("SET", 2): (16, ipset),
    ("SET", 3): (20, ipset_map),
    ("LOG", 0): (32, log),
    ("NFLOG", 0): (76, nflog),
    ("TCPMSS", 0): (2, tcpmss),
    ("TTL", 0): (2, ttl),
    ("HL", 0): (2, ttl),
    ("CLASSIFY", 0): (4, classify),
    ("TEE", 1): (40, tee),
    ("TRACE", 0): (0, harmless("TRACE")),
    ("TCPOPTSTRIP", 0): (32, harmless("TCPOPTSTRIP")),
    ("DSCP", 0): (1, harmless("DSCP")),
    ("TOS", 1): (2, harmless("TOS")),
    ("ECN", 0): (3, harmless("ECN")),
    ("CONNSECMARK", 0): (1, harmless("CONNSECMARK")),
    ("SECMARK", 0): (264, harmless("SECMARK")),
    ("SECMARK", 1): (264, harmless("SECMARK")),
    ("AUDIT", 0): (1, harmless("AUDIT")),
    ("AUDIT", 1): (1, harmless("AUDIT")),
    ("RATEEST", 0): (32, harmless("RATEEST")),
    ("CHECKSUM", 0): (1, harmless("CHECKSUM")),
    ("IDLETIMER", 0): (40, harmless("IDLETIMER")),
    ("IDLETIMER", 1): (48, harmless("IDLETIMER")),
    ("LED", 0): (40, harmless("LED")),
}
