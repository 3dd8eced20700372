"""Which function knows what an expression does."""

from __future__ import annotations

from k3swatch.evaluate import (
    conntrack,
    lookups,
    mapping,
    metadata,
    native,
    statements,
    tproxy,
    xtables,
    xtargets,
)
from k3swatch.evaluate.machine import Handler
from k3swatch.model import expr as nft

HANDLERS: dict[type, Handler] = {  # each handler takes its own expression type
    nft.Immediate: native.immediate,
    nft.Payload: native.payload,
    nft.Cmp: native.cmp,
    nft.Range: native.range_,
    nft.Bitwise: native.bitwise,
    nft.Byteorder: native.byteorder,
    nft.Meta: metadata.meta,
    nft.Ct: conntrack.ct,
    nft.Fib: native.fib,
    nft.Numgen: native.numgen,
    nft.Hash: native.hash_,
    nft.Socket: native.socket,
    nft.Rt: native.rt,
    nft.Exthdr: native.exthdr,
    nft.Lookup: lookups.lookup,
    nft.Objref: lookups.objref,
    nft.Nat: mapping.nat,
    nft.Redir: mapping.redir,
    nft.Tproxy: tproxy.tproxy,
    nft.Reject: statements.reject,
    nft.Queue: statements.queue,
    nft.MetaSet: statements.meta_set,
    nft.CtSet: statements.ct_set,
    nft.PayloadSet: statements.payload_set,
    nft.Notrack: statements.notrack,
    nft.Dynset: statements.dynset,
    nft.Limit: statements.limit,
    nft.Quota: statements.quota,
    nft.Connlimit: statements.connlimit,
    nft.Counter: statements.on,
    nft.Log: statements.on,
    nft.Last: statements.on,
    nft.Masq: mapping.masq,
    nft.Synproxy: statements.synproxy,
    nft.Dup: statements.on,
    nft.Flow: statements.flow,
    nft.Fwd: statements.fwd,
    nft.XtMatch: xtables.match,
    nft.XtTarget: xtargets.target,
}
