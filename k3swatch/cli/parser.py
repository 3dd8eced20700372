"""The commands and their options."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from k3swatch import __version__
from k3swatch.cli import look, service, undo
from k3swatch.cli.terminal import USAGE, complain


class _Parser(argparse.ArgumentParser):
    """argparse, but exit status 64 and errors in our form."""

    def error(self, message: str) -> NoReturn:
        complain(message)
        complain(f"see `{self.prog} --help`", "hint")
        sys.exit(USAGE)


def parser() -> argparse.ArgumentParser:
    """All of the command line; `command` of what it parses is the function to call."""
    top = _Parser(
        prog="k3swatch",
        description="Does a connection to this host's port 6443 still reach its owner? If not: which rule takes it?",
        epilog="Exit status of check, explain and status: 0 delivered or unserved, 1 diverted or blocked, 2 unknown; "
        "64 usage, 77 not permitted, 78 bad configuration. The manual: man k3swatch, or docs/.",
    )
    top.add_argument("--version", action="version", version=f"k3swatch {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="the daemon, in the foreground")
    run.set_defaults(command=service.run)
    check = commands.add_parser("check", help="one look at this host, no daemon needed")
    check.set_defaults(command=look.check)
    check.add_argument(
        "--port", action="append", metavar="tcp/6443", help="instead of those configured; repeatable"
    )
    explain = commands.add_parser("explain", help="who lands where, by which rules, in their order")
    explain.set_defaults(command=look.explain)
    explain.add_argument("port", nargs="?", metavar="tcp/6443", help="default: all that are configured")
    explain.add_argument(
        "--from", dest="source", metavar="ADDR", help="only for connections from this address"
    )
    explain.add_argument("--to", metavar="ADDR", help="only for connections to this address")
    explain.add_argument(
        "--vantage", choices=("external", "local"), help="only for connections that start there"
    )
    explain.add_argument(
        "--snapshot", metavar="FILE", help="judge what `k3swatch snapshot` captured, not this host"
    )
    snapshot = commands.add_parser("snapshot", help="capture the ruleset, lossless, for a support case")
    snapshot.set_defaults(command=look.snapshot)
    snapshot.add_argument(
        "-o", dest="output", metavar="FILE", help="write there instead of to standard output"
    )
    status = commands.add_parser("status", help="ask the running daemon")
    status.set_defaults(command=service.status)
    history = commands.add_parser("history", help="past incidents, newest last; no daemon needed")
    history.set_defaults(command=service.history)
    history.add_argument("--since", metavar="WHEN", help="2h, 1d, 2026-11-23, 2026-11-23T07:12; default: all")
    restore = commands.add_parser(
        "restore", help="how to give the port back to its owner; --apply does what can be done here"
    )
    restore.set_defaults(command=undo.restore)
    restore.add_argument("port", nargs="?", metavar="tcp/6443")
    restore.add_argument(
        "--apply",
        action="store_true",
        help="delete the rules that take it, over netlink, after saving them; end connections that are stuck",
    )
    restore.add_argument("--rollback", metavar="FILE", help="put back what --apply removed and saved there")
    restore.add_argument(
        "-o", dest="output", metavar="DIR", help="where --apply saves; default: /var/lib/k3swatch/restore"
    )
    guard = commands.add_parser(
        "guard", help="pin a port, so that no NAT rule takes it; opt-in, not over a reboot"
    )
    guard.set_defaults(command=undo.guard)
    guard.add_argument("action", choices=("on", "off", "status"))
    guard.add_argument("port", metavar="tcp/6443")
    demo = commands.add_parser("demo", help="the incident, for real, in private network namespaces")
    demo.set_defaults(command=service.demo)
    config = commands.add_parser("config", help="look at a configuration file")
    actions = config.add_subparsers(required=True, metavar="ACTION", parser_class=_Parser)
    config_check = actions.add_parser("check", help="report every problem of a configuration file")
    config_check.set_defaults(command=service.config_check)
    config_check.add_argument("file", metavar="FILE")

    for command in (run, check, explain, status, history, restore, guard):
        command.add_argument(
            "--config", metavar="FILE", help="default: /etc/k3swatch/config.yaml, when there is one"
        )
    for command in (run, check, explain, restore, guard, config_check):
        command.add_argument(
            "--root",
            metavar="DIR",
            default="/",
            help="read this host's files below DIR: /host in a container",
        )
    for command in (check, explain, status, history, restore, guard):
        command.add_argument("--format", choices=("text", "json"), default="text")
    return top
