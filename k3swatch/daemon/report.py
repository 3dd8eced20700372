"""What the daemon says of itself: figures for metrics, a document for `status`, a line for the service manager."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from k3swatch import __version__
from k3swatch.errors import DecodeError, SourceError
from k3swatch.k3s.find import Found
from k3swatch.live.doer import NoDoer
from k3swatch.live.flows import FlowWatch
from k3swatch.model.flow import FlowCount
from k3swatch.model.words import Attach
from k3swatch.view import document

if TYPE_CHECKING:
    from k3swatch.daemon.loop import Daemon


def attach(daemon: Daemon) -> Attach:
    """How connections are seen."""
    watch = daemon.sources.flows.current
    return Attach.NONE if watch is None else watch.attach


def counts(daemon: Daemon) -> Sequence[FlowCount]:
    """Connections so far; empty while they cannot be seen."""
    watch = daemon.sources.flows.current
    if watch is None:
        return ()
    try:
        return watch.counts()
    except (SourceError, DecodeError) as error:
        daemon.sources.flows.failed(error)
        return ()


def lost(daemon: Daemon) -> dict[str, int]:
    """Events the kernel had to drop, by source."""
    found: dict[str, int] = {}
    watch = daemon.sources.flows.current
    if watch is not None:
        try:
            found = {f"connections_{name}": number for name, number in watch.lost().items()}
            found |= {f"doer_{name}": number for name, number in watch.doer.lost().items()}
        except SourceError as error:
            daemon.sources.flows.failed(error)
    for source in (daemon.sources.commits, daemon.sources.addresses):
        found[source.name] = source.current.lost if source.current is not None else 0
    return found


def _doer(watch: FlowWatch | None) -> dict[str, Any]:
    """How processes are seen, and what wakes the daemon at once that netlink tells nothing of."""
    doer = watch.doer if watch is not None else NoDoer()
    return {"sees": doer.sees, "wakes": list(doer.wakes), "refused": list(doer.refused)}


def status_line(daemon: Daemon) -> str:
    """`tcp/6443 delivered; connections seen by tracepoint; generation 42`."""
    observation = daemon.engine.observation
    ports = ", ".join(f"{verdict.port.spec} {verdict.state}" for verdict in observation.verdicts[:4])
    more = len(observation.verdicts) - 4
    ports += f" and {more} more" if more > 0 else ""
    return f"{ports}; connections seen by {attach(daemon)}; generation {observation.generation}"


def k3s(found: Found | None) -> dict[str, Any] | None:
    """The K3s whose ports are protected, for `status`."""
    if found is None:
        return None
    return {
        "program": found.settings.program,
        "role": "server" if found.settings.server else "agent",
        "unit": found.unit,
        "pid": found.pid,
        "running": found.running,
        "troubles": list(found.settings.troubles),
    }


def status(daemon: Daemon) -> bytes:
    """The document that `k3swatch status` gets: that of `check`, and how the daemon itself is."""
    watch = daemon.sources.flows.current
    whole: dict[str, Any] = document.check(daemon.engine.observation, attach(daemon))
    whole["daemon"] = {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_seconds": round(daemon.clock.monotonic() - daemon.started_at, 3),
        "config": daemon.config.path,
        "evaluations": daemon.evaluations,
        "last_evaluation_seconds": round(daemon.evaluation_seconds, 6),
        "healthy": daemon.watch.healthy(),
        "confined": daemon.sources.confined,
    }
    whole["k3s"] = k3s(daemon.protected.k3s)
    whole["refused"] = list(watch.refused) if watch is not None else []
    whole["ipvs"] = watch.ipvs if watch is not None else ""
    whole["doer"] = _doer(watch)
    whole["sources"] = [
        {
            "name": source.name,
            "blind": source.current is None,
            "why": source.why or None,
            "blind_seconds": round(source.blind_seconds, 3),
        }
        for source in daemon.sources.all
    ]
    whole["lost"] = lost(daemon)
    whole["connections"] = [
        {
            "protocol": row.protocol,
            "port": row.port,
            "outcome": row.outcome,
            "destination": row.destination,
            "connections": row.connections,
        }
        for row in counts(daemon)
    ]
    whole["sinks"] = [{"name": sink.name, "failures": sink.failures} for sink in daemon.sinks.all]
    whole["incidents"] = [document.incident(incident) for incident in daemon.engine.incidents]
    return document.dumps(whole).encode()
