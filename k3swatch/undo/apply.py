"""`restore --apply` and `--rollback`: one transaction each, bound to the generation that was judged.

Order: judge, save to disk, delete, end stuck connections, judge again, dial. Nothing is executed. Whatever fails before
the transaction leaves everything as it was, and the transaction itself is all or nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from k3swatch.decode.generation import decode_newgen
from k3swatch.errors import Interrupted, SourceError, Unsupported
from k3swatch.live import savedfile
from k3swatch.live.capture import capture
from k3swatch.live.connections import end_diverted
from k3swatch.live.dial import dial
from k3swatch.live.putback import putting_back
from k3swatch.live.saved import Saved, removing, save
from k3swatch.model.flow import Flow
from k3swatch.model.plan import Answer, Done
from k3swatch.model.port import Address
from k3swatch.model.words import Protocol
from k3swatch.sources.nftables import NftablesSource
from k3swatch.sources.transaction import commit
from k3swatch.undo.case import Case, look

TRIES = 3
NAME = "k3swatch"  # what NEWGEN, and so the journal and the history, calls who did it


def apply(source: NftablesSource, case: Case, root: str, directory: str) -> Done:
    """Do the local part of the plan of `case`. NotPermitted, SourceError; Interrupted when the ruleset changed
    meanwhile: nothing was removed then.
    """
    introduce()
    file = _remove(source, case, directory) if case.plan.removals else None
    ended: list[Flow] = []
    unended = None
    try:
        ended = end_diverted(case.port, frozenset(case.addresses), lambda flow: _spared(case, flow))
    except (Unsupported, Interrupted) as error:
        unended = str(error)
    after = look(source, case.port, root)
    removed = case.plan.removals
    return Done(file, removed, tuple(ended), unended, after.verdict, after.plan, dialled(after))


def rollback(source: NftablesSource, saved: Sequence[Saved]) -> tuple[int, list[Saved]]:
    """Put everything back in one transaction: how much, and what was there already. Interrupted when it never holds
    still; SourceError when it cannot be.
    """
    introduce()
    for attempt in range(TRIES):
        try:
            generation = decode_newgen(source.generation()).id
            changes, there = putting_back(source, saved)
            if changes:
                commit(generation, changes)
        except Interrupted:
            if attempt == TRIES - 1:
                raise
        else:
            return len(saved) - len(there), there
    raise AssertionError


def introduce() -> None:
    """Have the kernel call this process by the program's name in what it tells of the commit."""
    try:
        Path("/proc/self/comm").write_text(NAME)
    except OSError:
        return  # then it says python3


def dialled(case: Case) -> tuple[tuple[str, Answer], ...]:
    """Who answers on each protected address, from this host; over TCP only."""
    if case.port.protocol is not Protocol.TCP:
        return ()
    return tuple((str(each), dial(str(each), case.port.port)) for each in case.addresses if _can_dial(each))


def _can_dial(address: Address) -> bool:
    return not (address.version == 6 and address.is_link_local)  # would need an interface


def _remove(source: NftablesSource, case: Case, directory: str) -> str:
    """Save, then delete: the file's path."""
    assert case.generation is not None
    saved = save(source, case.plan.removals)
    now = time.time()
    snapshot = capture(source, now)
    if snapshot["generation"] != case.generation:
        raise Interrupted("nf_tables: the ruleset changed meanwhile", "nothing was removed; try again")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    name = f"{stamp}-{case.port.protocol}-{case.port.port}-{case.generation}.json"
    content = savedfile.document(case.port.spec, case.generation, saved, snapshot)
    file = savedfile.write(directory, name, content)
    try:
        commit(case.generation, removing(saved))
    except SourceError:
        Path(file).unlink(missing_ok=True)
        raise
    return file


def _spared(case: Case, flow: Flow) -> bool:
    """Whether the configuration allows that it goes there."""
    reached = f"[{flow.reached}]" if flow.reached.version == 6 else str(flow.reached)
    return f"{reached}:{flow.reached_port}" in case.spared
