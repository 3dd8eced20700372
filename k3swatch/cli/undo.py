"""`restore` and `guard`: what is done to this host, when it is told to be.

Exit status of `restore`: 0 nothing takes the port (any more), 1 something does, 2 unknown, or stopped because the
ruleset changed. Of `--rollback`: 0 all of it is back. Of `guard`: 0 guarded, before every other nat chain, and
delivered; 1 not; 2 unknown; `off` 0.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from k3swatch.cli.given import configuration, protected, with_k3s
from k3swatch.cli.terminal import BAD, OK, colour, exit_status, say
from k3swatch.errors import UsageError

if TYPE_CHECKING:
    from k3swatch.model.plan import Done


def restore(args: argparse.Namespace) -> int:
    """The undo plan of one port; with --apply, its local part; with --rollback, the way back from that."""
    if args.rollback:
        if args.port or args.apply:
            raise UsageError("--rollback takes a file alone", "k3swatch restore --rollback FILE")
        return _rollback(args.rollback, args.format == "json")
    if not args.port:
        raise UsageError("which port?", "k3swatch restore tcp/6443")
    from k3swatch.sources.nftables import NftablesSource
    from k3swatch.undo.case import look
    from k3swatch.view import restore as view

    config = with_k3s(configuration(args), args)
    port = protected(args.port, config)
    with NftablesSource() as source:
        case = look(source, port, args.root)
        if args.apply:
            from k3swatch.undo.apply import apply

            directory = args.output or os.path.join(config.state.path, "restore")
            return _done(apply(source, case, args.root, directory), args.format == "json")
    if args.format == "json":
        from k3swatch.view import document

        say(document.dumps(view.document(case.verdict, case.plan, case.generation)))
    else:
        say(view.text(case.verdict, case.plan, colour()))
    return exit_status(case.verdict.state)


def guard(args: argparse.Namespace) -> int:
    """Pin a port, let it go, or say how it is pinned."""
    from k3swatch.sources.nftables import NftablesSource
    from k3swatch.undo.guard import status, turn_off, turn_on
    from k3swatch.view import document
    from k3swatch.view import guard as view

    port = protected(args.port, configuration(args))
    with NftablesSource() as source:
        changed = None
        if args.action == "on":
            changed = turn_on(source, port)
        elif args.action == "off":
            changed = turn_off(source, port)
        found = status(source, port, args.root)
    if args.format == "json":
        say(document.dumps(view.document(found, changed)))
    else:
        say(view.text(found, changed, colour()))
    if args.action == "off":
        return OK
    state = exit_status(found.verdict.state)
    return state or (OK if found.on and not found.before else BAD)


def _done(done: Done, as_json: bool) -> int:
    from k3swatch.view import document, restored

    if as_json:
        say(document.dumps(restored.document(done)))
    else:
        say(restored.text(done, colour()))
    return exit_status(done.after.state) or (OK if done.answered else BAD)


def _rollback(path: str, as_json: bool) -> int:
    from k3swatch.live import savedfile
    from k3swatch.sources.nftables import NftablesSource
    from k3swatch.undo.apply import rollback
    from k3swatch.view import document, restored

    port, saved = savedfile.read(path)
    with NftablesSource() as source:
        count, there = rollback(source, saved)
    if as_json:
        say(document.dumps({"schema": 1, "port": port, "put_back": count, "already_there": len(there)}))
    else:
        say(restored.rolled_back(port, count, len(there)))
    return OK
