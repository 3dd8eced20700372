"""What becomes of a packet that a rule hands to a program (NFQUEUE).

Follows nf_queue (net/netfilter/nf_queue.c), nfqnl_enqueue_packet and nfqueue_hash: without a reader the packet is
dropped, or, with `bypass`, goes on as if it had been accepted; a reader decides, and what it decides cannot be told.
Of several queues a packet gets the one that a hash of its addresses, or its processor (`fanout`), chooses.
"""

from __future__ import annotations

from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.machine import GONE, Context, Path, decided, ended
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.ranges import Ranges, normal, subtract
from k3swatch.model.expr import Code, Verdict
from k3swatch.model.queue import COPY_NONE, PacketQueue

_MASK, _BYPASS = 0xFF, 0x8000  # NF_VERDICT_MASK, NF_VERDICT_FLAG_QUEUE_BYPASS
MOST_NAMED = 2  # readers of one range
UNREAD = "nobody reads nfqueue {}: the kernel drops what it is handed"
UNCONFIGURED = "who reads nfqueue {} wants no packets yet: the kernel drops what it is handed"


def queued(context: Context, path: Path, first: int, total: int, bypass: bool) -> list[Path]:
    """The ways on from the queues `first` and the `total` - 1 after it. A packet that goes on has been accepted."""
    last = min(first + max(total, 1) - 1, 0xFFFF)
    queues = context.scene.host.queues
    if queues is None:
        why = f"handed to a program (nfqueue {_span(first, last)}), which decides"
        context.emit(Fate.UNKNOWN, path.packet, path.cube, why=why)
        return [ended(path, Verdict(Code.ACCEPT))]
    bound = {queue.number: queue for queue in queues if first <= queue.number <= last}
    ready = [queue for queue in bound.values() if queue.mode != COPY_NONE]
    every: Ranges = ((first, last),)
    read = normal([(queue.number, queue.number) for queue in ready])
    mute = normal([(number, number) for number, queue in bound.items() if queue.mode == COPY_NONE])
    free = subtract(subtract(every, read), mute)
    which = Var(
        f"nfqueue {context.rule_id}", every, Kind.CHANCE, f"by hash over nfqueue {_span(first, last)}"
    )
    ways: list[Path] = []
    for ranges, fate, why in (
        (read, Fate.UNKNOWN, f"handed to {_readers(ready)}"),
        (mute, Fate.DROPPED, UNCONFIGURED),
        (free, Fate.UNKNOWN if bypass else Fate.DROPPED, "" if bypass else UNREAD),
    ):
        inside = path.cube.restrict(which, ranges) if ranges else None
        if inside is None:
            continue
        way = path.fork(inside)
        if why:
            span = _span(ranges[0][0], ranges[-1][1])
            context.emit(fate, way.packet, inside, why=why.replace("{}", span))
        ways.append(ended(way, Verdict(Code.ACCEPT if fate is Fate.UNKNOWN else GONE)))
    return ways


def handed(context: Context, path: Path, verdict: Verdict) -> list[Path]:
    """The path with a verdict that was loaded, which may be to hand the packet over (NF_QUEUE_NR)."""
    if verdict.code < 0 or verdict.code & _MASK != Code.QUEUE:
        return [decided(path, verdict)]
    return queued(context, path, verdict.code >> 16, 1, bool(verdict.code & _BYPASS))


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _readers(queues: list[PacketQueue]) -> str:
    """`/usr/bin/suricata (pid 812), which reads nfqueue 0-3 and decides`."""
    if not queues:
        return ""
    numbers = sorted(queue.number for queue in queues)
    names = list(dict.fromkeys(queue.reader for queue in queues if queue.reader))[:MOST_NAMED]
    who = ", ".join(names) or "a program"
    return f"{who}, which reads nfqueue {_span(numbers[0], numbers[-1])} and decides"
