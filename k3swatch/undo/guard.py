"""`guard on|off|status`: our table in, out, or looked at; each change is one transaction.

What it is worth is not believed but judged: `status` evaluates the port as `check` does, and looks at the order of the
nat chains in both hooks, those of iptables-legacy included.
"""

from __future__ import annotations

from k3swatch.decode.generation import decode_newgen
from k3swatch.errors import Interrupted, SourceError
from k3swatch.live import guard
from k3swatch.model.plan import Guard
from k3swatch.model.port import ProtectedPort
from k3swatch.sources.nftables import NftablesSource
from k3swatch.sources.transaction import commit
from k3swatch.undo.apply import introduce
from k3swatch.undo.case import look

TRIES = 5


def turn_on(source: NftablesSource, port: ProtectedPort) -> bool:
    """Guard `port`; whether anything had to be changed. SourceError when the table holds what is not ours."""
    introduce()
    for attempt in range(TRIES):
        try:
            generation = decode_newgen(source.generation()).id
            table = guard.read(source)
            if table.foreign is not None:
                hint = "nothing was changed; look: nft list table inet k3swatch_guard"
                raise SourceError(f"table inet k3swatch_guard: {table.foreign}", hint)
            wanted = guard.priority_before(guard.others(source))
            key = (port.protocol, port.port)
            fits = table.priority is not None and (table.priority <= wanted)
            if key in table.ports and fits:
                return False
            priority = wanted if table.priority is None else min(wanted, table.priority)
            commit(generation, guard.making({*table.ports, key}, priority, table.exists))
        except Interrupted:
            if attempt == TRIES - 1:
                raise
        else:
            return True
    raise AssertionError


def turn_off(source: NftablesSource, port: ProtectedPort) -> bool:
    """Take away what `turn_on` made for `port`, and nothing else; whether there was anything."""
    introduce()
    for attempt in range(TRIES):
        try:
            generation = decode_newgen(source.generation()).id
            changes = guard.removing(guard.read(source), (port.protocol, port.port))
            if changes:
                commit(generation, changes)
        except Interrupted:
            if attempt == TRIES - 1:
                raise
        else:
            return bool(changes)
    raise AssertionError


def status(source: NftablesSource, port: ProtectedPort, root: str) -> Guard:
    """How it is, judged. NotPermitted; what cannot be read is unknown in the verdict."""
    case = look(source, port, root)
    table = guard.read(source)
    on = (port.protocol, port.port) in table.ports
    before = []
    if on and table.priority is not None:
        before = [each for each in guard.others(source) if each.priority <= table.priority]
    names = tuple(
        f"{each.ref.family} {each.ref.table} {each.ref.chain} (priority {each.priority})" for each in before
    )
    return Guard(port, on, table.priority if on else None, names, table.foreign, case.verdict)
