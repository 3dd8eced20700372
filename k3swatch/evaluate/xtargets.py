"""The meaning of xtables targets (nft_compat's, and those of iptables-legacy rules).

Follows the `target` functions of net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c.
"""

from __future__ import annotations

from k3swatch.evaluate import ebtables
from k3swatch.evaluate.cells import combined, little, masked
from k3swatch.evaluate.cube import Kind, Var
from k3swatch.evaluate.machine import REJECTED, Context, Path, ended, unreadable, with_mark
from k3swatch.evaluate.mapping import NETMAP, map_to, redirect_to
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import has_connection
from k3swatch.evaluate.queues import handed, queued
from k3swatch.evaluate.sourcenat import masquerade, source_nat
from k3swatch.evaluate.statements import in_zone, notrack, synproxy
from k3swatch.evaluate.tproxy import xt_tproxy
from k3swatch.model import xt
from k3swatch.model.expr import Verdict, XtTarget
from k3swatch.model.words import Mechanism


def target(context: Context, expr: XtTarget, path: Path) -> list[Path]:
    """nft_target_eval_xt: targets that do not decide go on (XT_CONTINUE)."""
    spec = expr.spec
    if isinstance(spec, xt.NatRange):
        return _nat(context, spec, path)
    if isinstance(spec, xt.SetMark):
        return _set_mark(context, spec, path)
    if isinstance(spec, xt.XtTproxy):
        return xt_tproxy(context, spec, path)
    if isinstance(spec, xt.XtReject):
        return [ended(path, Verdict(REJECTED))]
    if isinstance(spec, xt.XtZone):
        return in_zone(context, path, tuple(spec.zone.to_bytes(2, "little")))
    if isinstance(spec, xt.XtNotrack):
        return notrack(context, expr, path)
    if isinstance(spec, xt.EtherNat | xt.EtherMark):
        return ebtables.target(context, spec, path)
    if isinstance(spec, xt.XtStandard):
        return handed(context, path, Verdict(spec.code, spec.chain))
    if isinstance(spec, xt.XtQueue):
        return queued(context, path, spec.num, spec.total, spec.bypass)
    if isinstance(spec, xt.AnyMark):
        after = Var(f"mark {context.rule_id}", ((0, 2**32 - 1),), Kind.ENVIRONMENT, spec.words)
        return with_mark(path, little(after, 4))
    if isinstance(spec, xt.XtNpt) and spec.target == "DNPT":
        why = "the IPv6 prefix of the destination is rewritten (DNPT)"
        context.emit(Fate.UNKNOWN, path.packet, path.cube, Mechanism.NETMAP, why=why)
        return [path]
    if isinstance(spec, xt.XtSynproxy):
        return synproxy(context, expr, path)
    if isinstance(spec, xt.Harmless | xt.XtNpt):
        return [path]
    return unreadable(context, f"xt target {expr.name}", path, last=True)


def _nat(context: Context, spec: xt.NatRange, path: Path) -> list[Path]:
    ips, proto, offset = 1, 2, 32
    ports = spec.port if spec.flags & proto else None
    if spec.target == "MASQUERADE":
        return masquerade(context, path, ports, spec.flags)
    if spec.target == "SNAT":
        address = spec.addr[0][: context.scene.family.length]
        one = spec.flags & ips and spec.addr[0] == spec.addr[1]
        return source_nat(context, path, tuple(address) if one else None, ports, spec.flags)
    if spec.target == "REDIRECT":
        return redirect_to(context, path, ports, spec.flags)
    length = context.scene.family.length
    low, high = (side[:length] for side in spec.addr) if spec.flags & ips else (b"", b"")
    if spec.flags & offset and ports is not None and ports[0] != ports[1]:
        # nf_nat_l4proto_unique_tuple: the dialled port's distance from the base, within the range
        distance = (path.packet.dport - spec.base_port) % (ports[1] - ports[0] + 1)
        ports = (ports[0] + distance, ports[0] + distance)
    flags = spec.flags | (NETMAP if spec.target == "NETMAP" else 0)
    return map_to(context, path, low, high, ports, flags)


def _set_mark(context: Context, spec: xt.SetMark, path: Path) -> list[Path]:
    """mark_tg, connmark_tg: set, save to or restore from the connection, if there is one."""
    if spec.conntrack and not has_connection(context.scene, path.packet):
        return [path]
    mask, flip = (~spec.clear & 0xFFFFFFFF).to_bytes(4, "little"), spec.flip.to_bytes(4, "little")
    if not spec.conntrack or spec.op == 0:
        mark = path.packet.ctmark if spec.conntrack else path.packet.mark
        cells = tuple(masked(c, m, f) for c, m, f in zip(mark, mask, flip, strict=True))
        return with_mark(path, cells, spec.conntrack)
    save = spec.op == 1
    sides = ((path.packet.mark, spec.nfmask), (path.packet.ctmark, spec.clear))
    (source, wanted), (target, replaced) = sides if save else sides[::-1]
    taken = [masked(cell, m, 0) for cell, m in zip(source, wanted.to_bytes(4, "little"), strict=True)]
    kept = [
        masked(cell, 0xFF & ~m, 0) for cell, m in zip(target, replaced.to_bytes(4, "little"), strict=True)
    ]
    mixed = [combined(old, new) for old, new in zip(kept, taken, strict=True)]
    if None in mixed or (spec.shift and any(taken)):
        name = f"mark after {context.rule_id}"
        mixed = [*little(Var(name, ((0, 2**32 - 1),), Kind.ENVIRONMENT, "mark restored in part"), 4)]
    return with_mark(path, tuple(cell for cell in mixed if cell is not None), conntrack=save)
