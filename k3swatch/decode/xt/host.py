"""Matches that ask the host around the packet: ipset, sockets, routes, cgroups, devices, IPsec, CPUs, helpers."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts, Reader, string
from k3swatch.model.xt import Comment, Environment, RpFilter, XtSocket, XtSpec

PATH_MAX = 4096


def comment(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_comment_info."""
    return Comment(string(info))


def ipset_v0(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_set_info_match_v0."""
    return Environment(f"ipset #{unpack_from('=H', info)[0]}")


def ipset(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_set_info_match_v1..v4: `-m set --match-set NAME src,dst`. The kernel keeps the set's index only."""
    index, dimensions, flags = unpack_from("=H2B", info)
    if dimensions > 6:  # IPSET_DIM_MAX
        return None
    # enum ip_set_kopt: bit 0 inverts, bit n says that dimension n is the source
    sides = ",".join("src" if flags & 1 << n else "dst" for n in range(1, dimensions + 1))
    counters = ", counters" if len(info) >= 48 and (info[8] or info[24]) else ""
    return Environment(f"ipset {'!= ' if flags & 1 else ''}#{index} {sides}{counters}".rstrip())


def rpfilter(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_rpfilter_info."""
    return None if info[0] & ~0x0F else RpFilter(info[0])


def socket_v0(info: bytes, nfproto: int) -> XtSpec | None:
    """Revision 0 has no options."""
    return XtSocket(0)


def socket(known: int) -> Reader:
    """struct xt_socket_mtinfo1..3: the same byte, each revision knows one flag more."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return None if info[0] & ~known else XtSocket(info[0])

    return read


def helper(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_helper_info; an empty name is any helper."""
    return Environment(f'ct helper {"!= " if any(info[:4]) else ""}"{string(info[4:34])}"')


def connlabel(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_connlabel_mtinfo."""
    bit, options = unpack_from("=2H", info)
    return Environment(f"ct label {'!= ' if options & 1 else ''}{bit}")


def cpu(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_cpu_info."""
    number, invert = unpack_from("=2I", info)
    return Environment(f"cpu {'!= ' if invert else ''}{number}")


def devgroup(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_devgroup_info."""
    flags, source, source_mask, out, out_mask = unpack_from("=5I", info)
    words = []
    if flags & 1:
        words.append(f"iifgroup & {source_mask:#x} {'!=' if flags & 2 else '=='} {source:#x}")
    if flags & 4:
        words.append(f"oifgroup & {out_mask:#x} {'!=' if flags & 8 else '=='} {out:#x}")
    return Environment("devgroup " + " ".join(words))


def realm(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_realm_info."""
    number, mask, invert = unpack_from("=2IB", info)
    return Environment(f"realm & {mask:#x} {'!=' if invert else '=='} {number:#x}")


def policy(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_policy_info: `-m policy --dir in --pol ipsec`."""
    (flags,) = unpack_from("=H", info, 304)
    return Environment(f"policy {'in' if flags & 1 else 'out'} {'none' if flags & 4 else 'ipsec'}")


def cgroup_v0(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_cgroup_info_v0."""
    number, invert = unpack_from("=2I", info)
    return Environment(f"cgroup {'!= ' if invert else ''}{number:#x}")


def cgroup(path_length: int, classid_at: int) -> Reader:
    """struct xt_cgroup_info_v1 and v2: a path, or a class id; v2 keeps them in the same place."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        has_path, has_classid, invert_path, invert_classid = info[:4]
        if has_path:
            return Environment(f'cgroup {"!= " if invert_path else ""}"{string(info[4 : 4 + path_length])}"')
        number = unpack_from("=I", info, classid_at)[0] if has_classid else 0
        return Environment(f"cgroup {'!= ' if invert_classid else ''}{number:#x}")

    return read


def cluster(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_cluster_match_info."""
    total, mask, _, flags = unpack_from("=4I", info)
    return Environment(f"cluster {'!= ' if flags & 1 else ''}nodes {mask:#x} of {total}")


def osf(info: bytes, nfproto: int) -> XtSpec | None:
    """struct nf_osf_info."""
    return Environment(f'osf {"!= " if info[36] & 8 else ""}"{string(info[:32])}"')


def ipvs(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_ipvs_mtinfo."""
    return Environment("ipvs")


MATCHES: Layouts = {
    ("comment", 0): (256, comment),
    ("set", 0): (32, ipset_v0),
    ("set", 1): (4, ipset),
    ("set", 2): (4, ipset),
    ("set", 3): (48, ipset),
    ("set", 4): (48, ipset),
    ("rpfilter", 0): (1, rpfilter),
    ("socket", 0): (0, socket_v0),
    ("socket", 1): (1, socket(1)),
    ("socket", 2): (1, socket(3)),
    ("socket", 3): (1, socket(7)),
    ("helper", 0): (36, helper),
    ("connlabel", 0): (4, connlabel),
    ("cpu", 0): (8, cpu),
    ("devgroup", 0): (20, devgroup),
    ("realm", 0): (12, realm),
    ("policy", 0): (308, policy),
    ("cgroup", 0): (8, cgroup_v0),
    ("cgroup", 1): (4112, cgroup(PATH_MAX, 4 + PATH_MAX)),
    ("cgroup", 2): (528, cgroup(512, 4)),
    ("cluster", 0): (16, cluster),
    ("osf", 0): (48, osf),
    ("ipvs", 0): (40, ipvs),
}
