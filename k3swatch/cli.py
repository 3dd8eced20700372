"""The command line: the only module that prints and exits.

Exit status: 0 delivered or unserved, 1 diverted or blocked (or `run` could not start), 2 unknown, 64 usage,
77 not permitted, 78 bad configuration; 130 on Ctrl-C. Errors go to stderr: one line, then a hint. A bug, or a disk
that is full, is `unknown`: Python's own status for it, 1, would say that the port is diverted.
Everything but argparse is imported by the command that needs it, so that `check` starts fast.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

from k3swatch import __version__
from k3swatch.errors import ConfigError, K3swatchError, NotPermitted, SourceError, UsageError

if TYPE_CHECKING:
    from k3swatch.config import Config
    from k3swatch.model.finding import Observation
    from k3swatch.model.port import Address, Host, ProtectedPort
    from k3swatch.model.ruleset import Ruleset
    from k3swatch.model.words import State

T = TypeVar("T")
OK, BAD, UNKNOWN, USAGE, NOPERM, CONFIG = 0, 1, 2, 64, 77, 78  # 64.. as in <sysexits.h>


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by who started us
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        args = _parser().parse_args(argv)
        status: int = args.command(args)
        print(end="", flush=True)
    except UsageError as error:
        _complain(str(error))
        _complain(error.hint, "hint")
        return USAGE
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        _complain(error.hint, "hint")
        return CONFIG
    except NotPermitted as error:
        _complain(str(error))
        _complain(error.hint or "run as root, or with CAP_NET_ADMIN", "hint")
        return NOPERM
    except K3swatchError as error:
        _complain(str(error))
        _complain(error.hint, "hint")
        return BAD if "run" in argv[:1] else UNKNOWN
    except BrokenPipeError:
        _close_stdout()
        return 128 + 13  # as if SIGPIPE had ended us
    except KeyboardInterrupt:
        return 128 + 2
    except Exception:  # noqa: BLE001  see above: it must not end with 1
        traceback.print_exc()
        _complain(
            "this is a bug in k3swatch, not an answer: please report it, with `k3swatch snapshot -o FILE`"
        )
        return BAD if "run" in argv[:1] else UNKNOWN
    return status


def _say(text: str) -> None:
    """Print an answer. SourceError when nobody can read it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _close_stdout()
        raise SourceError(f"standard output: {error.strerror}") from error


def _close_stdout() -> None:
    """What is still buffered goes nowhere; else the interpreter tries it again at its end, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, who: str = "k3swatch") -> None:
    if text:
        print(f"{who}: {text}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """argparse, but exit status 64 and errors in our form."""

    def error(self, message: str) -> NoReturn:
        _complain(message)
        _complain(f"see `{self.prog} --help`", "hint")
        sys.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="k3swatch",
        description="Does a connection to this host's port 6443 still reach its owner? If not: which rule takes it?",
        epilog="Exit status of check, explain and status: 0 delivered or unserved, 1 diverted or blocked, 2 unknown; "
        "64 usage, 77 not permitted, 78 bad configuration. The manual: man k3swatch, or docs/.",
    )
    top.add_argument("--version", action="version", version=f"k3swatch {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="the daemon, in the foreground")
    run.set_defaults(command=_run)
    check = commands.add_parser("check", help="one look at this host, no daemon needed")
    check.set_defaults(command=_check)
    check.add_argument(
        "--port", action="append", metavar="tcp/6443", help="instead of those configured; repeatable"
    )
    explain = commands.add_parser("explain", help="who lands where, by which rules, in their order")
    explain.set_defaults(command=_explain)
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
    snapshot.set_defaults(command=_snapshot)
    snapshot.add_argument(
        "-o", dest="output", metavar="FILE", help="write there instead of to standard output"
    )
    status = commands.add_parser("status", help="ask the running daemon")
    status.set_defaults(command=_status)
    history = commands.add_parser("history", help="past incidents, newest last; no daemon needed")
    history.set_defaults(command=_history)
    history.add_argument("--since", metavar="WHEN", help="2h, 1d, 2026-11-23, 2026-11-23T07:12; default: all")
    demo = commands.add_parser("demo", help="the incident, for real, in private network namespaces")
    demo.set_defaults(command=_demo)
    config = commands.add_parser("config", help="look at a configuration file")
    actions = config.add_subparsers(required=True, metavar="ACTION", parser_class=_Parser)
    config_check = actions.add_parser("check", help="report every problem of a configuration file")
    config_check.set_defaults(command=_config_check)
    config_check.add_argument("file", metavar="FILE")

    for command in (run, check, explain, status, history):
        command.add_argument(
            "--config", metavar="FILE", help="default: /etc/k3swatch/config.yaml, when there is one"
        )
    for command in (run, check, explain):
        command.add_argument(
            "--root",
            metavar="DIR",
            default="/",
            help="read this host's files below DIR: /host in a container",
        )
    for command in (check, explain, status, history):
        command.add_argument("--format", choices=("text", "json"), default="text")
    return top


def _run(args: argparse.Namespace) -> int:
    from k3swatch.daemon.loop import run

    run(lambda: _config_path(args), args.root)
    return OK


def _check(args: argparse.Namespace) -> int:
    config = _config(args)
    ports = [_port(spec, config) for spec in args.port] if args.port else config.ports
    observation = _alarming(_look(args, ports))
    if args.format == "json":
        from k3swatch.view import document

        _say(document.dumps(document.check(observation)))
    else:
        from k3swatch.view import check

        _say(check.text(observation, _colour()))
    return exit_status(observation.state)


def _explain(args: argparse.Namespace) -> int:
    config = _config(args)
    ports: Sequence[ProtectedPort] = [_port(args.port, config)] if args.port else config.ports
    if args.to:
        from k3swatch.config.words import network

        ports = [replace(port, addresses=(_value("--to", network, args.to),)) for port in ports]
    observation = _look(args, ports)
    if args.vantage:
        from k3swatch.daemon.observe import seen_from
        from k3swatch.model.words import Vantage

        observation = seen_from(observation, Vantage(args.vantage))
    alarming = _alarming(observation)
    if not any(verdict.judged or verdict.findings for verdict in observation.verdicts):
        raise UsageError("nobody can dial that port so: check --from, --to and --vantage")
    if args.format == "json":
        from k3swatch.view import document

        _say(document.dumps(document.check(observation)))
    else:
        from k3swatch.view import explain

        note = ""
        if alarming.verdicts != observation.verdicts:
            note = (
                f"\nWhat the configuration allows is told to nobody; without it the port is {alarming.state}."
            )
        _say(explain.text(observation, _colour(), explain.HEIGHT - bool(note)) + note)
    return exit_status(alarming.state)


def _snapshot(args: argparse.Namespace) -> int:
    import json
    import time

    from k3swatch.live.capture import capture
    from k3swatch.sources.nftables import NftablesSource

    with NftablesSource() as source:
        document = capture(source, time.time())
    text = json.dumps(document, indent=1)
    if not args.output:
        _say(text)
        return OK
    try:
        with open(args.output, "w", encoding="ascii") as file:
            print(text, file=file)
    except OSError as error:
        raise UsageError(f"{args.output}: {error.strerror}", "give a file that can be written") from error
    return OK


def _status(args: argparse.Namespace) -> int:
    import json

    from k3swatch.daemon.control import ask
    from k3swatch.view import status

    config = _config(args)
    document = status.parse(ask(config.control.socket))
    _say(json.dumps(document, indent=2) if args.format == "json" else status.text(document, _colour()))
    return exit_status(document["state"])


def _history(args: argparse.Namespace) -> int:
    import time

    from k3swatch.config.words import since
    from k3swatch.sinks.past import past
    from k3swatch.view import history

    now = time.time()
    start = 0.0 if args.since is None else _value("--since", lambda text: since(text, now), args.since)
    found = past(_config(args).state.path, start)
    _say(history.json(found, start) if args.format == "json" else history.text(found, now, start, _colour()))
    return OK


def _demo(args: argparse.Namespace) -> int:
    from k3swatch.demo.story import main as demo

    return demo()


def _config_check(args: argparse.Namespace) -> int:
    from k3swatch import config

    ports = config.load(args.file).ports
    _say(f"{args.file}: good, protects {', '.join(port.spec for port in ports)}")
    return OK


def _look(args: argparse.Namespace, ports: Sequence[ProtectedPort]) -> Observation:
    """One observation of this host or of a snapshot."""
    from ipaddress import ip_address

    from k3swatch.clock import SystemClock
    from k3swatch.daemon.observe import observe

    source = _value("--from", ip_address, args.source) if getattr(args, "source", None) else None
    if getattr(args, "snapshot", None):
        from k3swatch.live.snapshot import SnapshotRuleset

        snapshot = SnapshotRuleset.load(args.snapshot)
        observation = observe(snapshot, snapshot.host, ports, SystemClock(), source)
        # this host's files tell nothing about another's pods, whose addresses are the same
        return _attributed(observation, args.root if args.root != "/" else None, snapshot)
    return _look_here(args.root, ports, source)


def _alarming(observation: Observation) -> Observation:
    """Without the known-good diversions: what the daemon makes incidents of."""
    from k3swatch.incident.allow import without_allowed

    return replace(observation, verdicts=tuple(map(without_allowed, observation.verdicts)))


def _look_here(root: str, ports: Sequence[ProtectedPort], source: Address | None) -> Observation:
    from k3swatch.clock import SystemClock
    from k3swatch.daemon.observe import observe, unknown
    from k3swatch.live.host import HostReader
    from k3swatch.live.ruleset import LiveRuleset
    from k3swatch.sources.nftables import NftablesSource

    clock = SystemClock()

    def read_host() -> Host:
        return reader.read(ports)

    reader = HostReader(clock)
    try:
        with NftablesSource() as nftables:
            ruleset = LiveRuleset(nftables)
            return _attributed(observe(ruleset, read_host, ports, clock, source), root, ruleset)
    except NotPermitted:
        raise
    except SourceError as error:
        return unknown(ports, f"the ruleset could not be read: {error}", read_host())


def _attributed(observation: Observation, root: str | None, ruleset: Ruleset) -> Observation:
    """The observation with who takes the connections; a healthy host does not even load what finds that out."""
    if not any(each.state == "diverted" for verdict in observation.verdicts for each in verdict.findings):
        return observation
    from k3swatch.daemon.attribution import attributed

    return attributed(observation, root, ruleset)


def exit_status(state: State) -> int:
    """0 delivered or unserved, 1 diverted or blocked, 2 unknown: what node-problem-detector expects, too."""
    return {"diverted": BAD, "blocked": BAD, "unknown": UNKNOWN}.get(state, OK)


def _config_path(args: argparse.Namespace) -> str | None:
    from k3swatch.config.settings import DEFAULT_FILE

    default = os.path.join(getattr(args, "root", "/"), DEFAULT_FILE.lstrip("/"))
    path: str | None = args.config
    return path or (default if os.path.exists(default) else None)


def _config(args: argparse.Namespace) -> Config:
    from k3swatch import config

    return config.load(_config_path(args))


def _port(spec: str, config: Config) -> ProtectedPort:
    """The configured port that is called so, or one on every address of this host."""
    from k3swatch.config.words import port_spec

    for port in config.ports:
        if spec in (port.name, port.spec, port.spec.removeprefix("tcp/")):
            return port
    try:
        return port_spec(spec)
    except ValueError as error:
        raise UsageError(str(error), "write tcp/6443, 6443, or a name of the configuration") from error


def _value(option: str, parse: Callable[[str], T], text: str) -> T:
    """What an option's text means; UsageError when it cannot be meant."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _colour() -> bool:
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


if __name__ == "__main__":
    entry()
