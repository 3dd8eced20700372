"""`check`, `explain` and `snapshot`: one look at this host, or at what was captured of another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from k3swatch.cli.given import configuration, protected, value, with_k3s
from k3swatch.cli.terminal import OK, colour, exit_status, say
from k3swatch.errors import NotPermitted, SourceError, UsageError

if TYPE_CHECKING:
    from k3swatch.model.finding import Observation
    from k3swatch.model.port import Address, Host, ProtectedPort
    from k3swatch.model.ruleset import Ruleset


def check(args: argparse.Namespace) -> int:
    """One line per port, one per finding."""
    config = with_k3s(configuration(args), args)
    ports = [protected(spec, config) for spec in args.port] if args.port else config.ports
    observation = _alarming(_look(args, ports))
    if args.format == "json":
        from k3swatch.view import document

        say(document.dumps(document.check(observation)))
    else:
        from k3swatch.view import check

        say(check.text(observation, colour()))
    return exit_status(observation.state)


def explain(args: argparse.Namespace) -> int:
    """Every rule between the hook and the decision."""
    config = with_k3s(configuration(args), args)
    ports: Sequence[ProtectedPort] = [protected(args.port, config)] if args.port else config.ports
    if args.to:
        from k3swatch.config.words import network

        ports = [replace(port, addresses=(value("--to", network, args.to),)) for port in ports]
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

        say(document.dumps(document.check(observation)))
    else:
        from k3swatch.view import explain

        note = ""
        if alarming.verdicts != observation.verdicts:
            note = (
                f"\nWhat the configuration allows is told to nobody; without it the port is {alarming.state}."
            )
        say(explain.text(observation, colour(), explain.HEIGHT - bool(note)) + note)
    return exit_status(alarming.state)


def snapshot(args: argparse.Namespace) -> int:
    """The ruleset of this network namespace, lossless."""
    import json
    import time

    from k3swatch.live.capture import capture
    from k3swatch.sources.nftables import NftablesSource

    with NftablesSource() as source:
        document = capture(source, time.time())
    text = json.dumps(document, indent=1)
    if not args.output:
        say(text)
        return OK
    try:
        with open(args.output, "w", encoding="ascii") as file:
            print(text, file=file)
    except OSError as error:
        raise UsageError(f"{args.output}: {error.strerror}", "give a file that can be written") from error
    return OK


def _look(args: argparse.Namespace, ports: Sequence[ProtectedPort]) -> Observation:
    """One observation of this host or of a snapshot."""
    from ipaddress import ip_address

    from k3swatch.clock import SystemClock
    from k3swatch.daemon.observe import observe

    source = value("--from", ip_address, args.source) if getattr(args, "source", None) else None
    if getattr(args, "snapshot", None):
        from k3swatch.live.snapshot import SnapshotRuleset

        captured = SnapshotRuleset.load(args.snapshot)
        observation = observe(captured, captured.host, ports, SystemClock(), source)
        # this host's files tell nothing about another's pods, whose addresses are the same
        return _attributed(observation, args.root if args.root != "/" else None, captured)
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
