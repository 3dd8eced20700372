"""Matches on rates, counts and time: they hold or not by what went before, not by what the packet is."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts, Reader, rate, span, string
from k3swatch.model.xt import Environment, Statistic, XtSpec

RANDOM, NTH = 0, 1  # enum xt_statistic_mode
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ALL_WEEKDAYS = 0xFE  # XT_TIME_ALL_WEEKDAYS
# enum of xt_recent.h
CHECK, SET, UPDATE, REMOVE = 1, 2, 4, 8


def statistic(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_statistic_info: `-m statistic --mode random --probability 0.5`. The kernel keeps `every` less one."""
    mode, flags, first, packet = unpack_from("=2H2I", info)
    if mode == RANDOM:
        return Statistic(mode, bool(flags & 1), probability=first / 2**31)
    if mode == NTH:
        return Statistic(mode, bool(flags & 1), every=first + 1, packet=packet)
    return None


def limit(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_rateinfo: `-m limit --limit 5/min --limit-burst 7`."""
    cost, burst = unpack_from("=2I", info)
    return Environment(f"limit {rate(cost, 10_000)} burst {burst}")


def hashlimit(name_length: int, layout: str, offset: int, scale: int) -> Reader:
    """struct xt_hashlimit_mtinfo1..3: a name, then a hashlimit_cfg with `layout` giving (avg, burst, mode)."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        numbers = unpack_from(layout, info, offset)
        mode, cost, burst = numbers if scale == 10_000 else (numbers[2], *numbers[:2])
        keys = [
            key for bit, key in ((1, "dstip"), (2, "dstport"), (4, "srcip"), (8, "srcport")) if mode & bit
        ]
        # in bytes mode, and when matching a plain rate, `avg` has another meaning: say no number then
        amount = "" if mode & 0x60 else f" {rate(cost, scale)} burst {burst}"
        per = f" per {','.join(keys)}" if keys else ""
        side = "above" if mode & 0x10 else "up to"
        return Environment(f'hashlimit "{string(info[:name_length])}" {side}{amount or " its rate"}{per}')

    return read


def connlimit(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_connlimit_info: `-m connlimit --connlimit-above 10`; revision 0 has only the first flag."""
    count, flags = unpack_from("=2I", info, 16)
    side = "up to" if flags & 1 else "above"
    return Environment(f"connlimit {side} {count} per {'destination' if flags & 2 else 'source'}")


def recent(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_recent_mtinfo: `-m recent --name ssh --rcheck --seconds 60`. `--set` and nothing else always holds.

    recent_mt(): with XT_RECENT_SET it adds the address, then answers yes (no when inverted).
    """
    seconds, hits, check, invert = unpack_from("=2I2B", info)
    name, side = string(info[10:210]), "destination" if info[210] else "source"
    words = f'recent "{name}" '
    if check & SET:
        return Environment(f"{words}add {side}", holds=not invert)
    if not check & (CHECK | UPDATE | REMOVE):
        return None
    words += f"{side} {'not ' if invert else ''}seen"
    words += f" {hits} times" if hits else ""
    words += f" in {seconds}s" if seconds else ""
    words += ", remove" if check & REMOVE else ", update" if check & UPDATE else ""
    return Environment(words)


def quota(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_quota_info: `-m quota --quota 1000000`."""
    flags, _, count = unpack_from("=2IQ", info)
    return Environment(f"quota {'over ' if flags & 1 else ''}{count} bytes")


def time(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_time_info: `-m time --timestart 08:00 --timestop 18:00 --weekdays Mon,Tue`."""
    start, stop = unpack_from("=2I", info, 8)
    if max(start, stop) > 86_400:
        return None
    words = f"time {_clock(start)}-{_clock(stop)}"
    weekdays = info[20]
    if weekdays & ALL_WEEKDAYS != ALL_WEEKDAYS:
        words += " " + ",".join(day for bit, day in enumerate(DAYS, 1) if weekdays & 1 << bit)
    return Environment(words)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}"


def connbytes(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_connbytes_info: `-m connbytes --connbytes 100:200`. from > to means inverted."""
    low, high, what, direction = unpack_from("=2Q2B", info)
    if what > 2 or direction > 2:
        return None
    invert = "!= " if low > high else ""
    unit, which = ("packets", "bytes", "average")[what], ("original", "reply", "both")[direction]
    return Environment(f"connbytes {which} {unit} {invert}{span(min(low, high), max(low, high))}")


def nfacct(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_nfacct_match_info: counts, and holds unless the accounting object has a quota not yet used up."""
    return Environment(f'nfacct "{string(info[:32])}"')


def rateest(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_rateest_match_info: compares measured rates."""
    return Environment(f'rateest "{string(info[:16])}"')


MATCHES: Layouts = {
    ("statistic", 0): (24, statistic),
    ("limit", 0): (40, limit),
    ("hashlimit", 1): (56, hashlimit(16, "=3I", 16, 10_000)),
    ("hashlimit", 2): (304, hashlimit(255, "=2QI", 256, 1_000_000)),
    ("hashlimit", 3): (312, hashlimit(255, "=2QI", 256, 1_000_000)),
    ("connlimit", 0): (32, connlimit),
    ("connlimit", 1): (32, connlimit),
    ("recent", 0): (212, recent),
    ("recent", 1): (228, recent),
    ("quota", 0): (24, quota),
    ("time", 0): (24, time),
    ("connbytes", 0): (24, connbytes),
    ("nfacct", 0): (40, nfacct),
    ("nfacct", 1): (40, nfacct),
    ("rateest", 0): (72, rateest),
}
