"""The commands and their options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from k3swatch import __version__
from k3swatch.cli import look, service, undo
from k3swatch.cli.terminal import USAGE, complain

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction["_Parser"]

Command = Callable[[argparse.Namespace], int]


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

    def add(name: str, text: str, command: Command, within: _Commands = commands) -> argparse.ArgumentParser:
        made = within.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        made.set_defaults(command=command)
        return made

    run = add("run", "the daemon, in the foreground", service.run)
    check = add("check", "one look at this host, no daemon needed", look.check)
    check.add_argument(
        "--port", action="append", metavar="tcp/6443", help="instead of those configured; repeatable"
    )
    explain = add("explain", "who lands where, by which rules, in their order", look.explain)
    explain.add_argument("port", nargs="?", metavar="tcp/6443", help="default: all that are protected")
    explain.add_argument(
        "--from", dest="source", metavar="ADDR", help="only for connections from this address"
    )
    explain.add_argument("--to", metavar="ADDR", help="only for connections to this address, or network")
    explain.add_argument(
        "--vantage", choices=("external", "local"), help="only for connections that start there"
    )
    explain.add_argument(
        "--snapshot", metavar="FILE", help="judge what `k3swatch snapshot` captured, not this host"
    )
    snapshot = add("snapshot", "capture the ruleset, lossless, for a support case", look.snapshot)
    snapshot.add_argument(
        "-o", dest="output", metavar="FILE", help="write there instead of to standard output"
    )
    status = add("status", "ask the running daemon", service.status)
    history = add("history", "past incidents, newest last; no daemon needed", service.history)
    history.add_argument("--since", metavar="WHEN", help="2h, 1d, 2026-11-23, 2026-11-23T07:12; default: all")
    restore = add(
        "restore", "how to give the port back to its owner; --apply does what can be done here", undo.restore
    )
    restore.add_argument("port", nargs="?", metavar="tcp/6443", help="which port; needed, but for --rollback")
    restore.add_argument(
        "--apply",
        action="store_true",
        help="delete the rules that take it, over netlink, after saving them; end connections that are stuck",
    )
    restore.add_argument("--rollback", metavar="FILE", help="put back what --apply removed and saved there")
    restore.add_argument(
        "-o",
        dest="output",
        metavar="DIR",
        help="where --apply saves; default: restore/ in state.path, /var/lib/k3swatch",
    )
    guard = add("guard", "pin a port, so that no NAT rule takes it; opt-in, not over a reboot", undo.guard)
    guard.add_argument("action", choices=("on", "off", "status"), help="status changes nothing")
    guard.add_argument("port", metavar="tcp/6443", help="which port of this host")
    add("demo", "the incident, for real, in private network namespaces", service.demo)
    config = commands.add_parser("config", help="look at a configuration file")
    actions = config.add_subparsers(required=True, metavar="ACTION", parser_class=_Parser)
    config_check = add("check", "report every problem of a configuration file", service.config_check, actions)
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
        command.add_argument(
            "--format", choices=("text", "json"), default="text", help="for people, or for programs"
        )
    return top
