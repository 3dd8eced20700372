"""`run`, `status`, `history`, `demo` and `config check`: the daemon and what it knows."""

from __future__ import annotations

import argparse

from k3swatch.cli.given import config_path, configuration, value
from k3swatch.cli.terminal import OK, colour, exit_status, say


def run(args: argparse.Namespace) -> int:
    """The daemon, until it is told to end."""
    from k3swatch.daemon.loop import run as daemon

    daemon(lambda: config_path(args), args.root)
    return OK


def status(args: argparse.Namespace) -> int:
    """What the running daemon says."""
    import json

    from k3swatch.daemon.control import ask
    from k3swatch.view import status

    config = configuration(args)
    document = status.parse(ask(config.control.socket))
    say(json.dumps(document, indent=2) if args.format == "json" else status.text(document, colour()))
    return exit_status(document["state"])


def history(args: argparse.Namespace) -> int:
    """Past incidents, from the daemon's store."""
    import time

    from k3swatch.config.words import since
    from k3swatch.sinks.past import past
    from k3swatch.view import history

    now = time.time()
    start = 0.0 if args.since is None else value("--since", lambda text: since(text, now), args.since)
    found = past(configuration(args).state.path, start)
    say(history.json(found, start) if args.format == "json" else history.text(found, now, start, colour()))
    return OK


def demo(args: argparse.Namespace) -> int:
    """The incident, in network namespaces of its own."""
    from k3swatch.demo.story import main as story

    return story()


def config_check(args: argparse.Namespace) -> int:
    """Every problem of a configuration file, or the ports it protects."""
    from k3swatch import config
    from k3swatch.cli.found import text
    from k3swatch.k3s.resolve import Resolved, resolve

    loaded = config.load(args.file)
    found = resolve(loaded, args.root) or Resolved(loaded.ports)
    say(f"{args.file}: good, protects {', '.join(port.spec for port in found.ports)}")
    if loaded.k3s.auto:
        say(text(found, loaded.ports if loaded.ports_given else ()))
    return OK
