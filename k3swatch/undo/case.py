"""One port as it is now: what takes it, who, and what to do about it. Reads; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from k3swatch.attribute.root import Root
from k3swatch.clock import Clock, SystemClock
from k3swatch.daemon.attribution import attributed
from k3swatch.daemon.observe import observe, unknown
from k3swatch.daemon.proxied import proxied
from k3swatch.daemon.ways import TAKEN, tried
from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.judge import protected_addresses
from k3swatch.incident.allow import allowed, without_allowed
from k3swatch.k3s.find import find
from k3swatch.k3s.settings import Settings
from k3swatch.k3s.ways import candidates, serves_api
from k3swatch.live.host import HostReader
from k3swatch.live.recorder import RecordingRuleset
from k3swatch.model.finding import Finding, Observation, PortVerdict
from k3swatch.model.plan import Plan
from k3swatch.model.port import Address, Host, ProtectedPort
from k3swatch.model.ruleset import LEGACY, ChainRef
from k3swatch.model.way import Way
from k3swatch.restore import plan
from k3swatch.restore.iptables import specification
from k3swatch.restore.local import Place
from k3swatch.restore.plan import Host as Written
from k3swatch.restore.target import targets
from k3swatch.sources.nftables import NftablesSource

TRIES = 5
_OF_PODS = ("bridge", "vxlan", "dummy")  # kinds of interfaces that nobody outside dials
ADMIN = "/var/lib/rancher/k3s/server/cred/admin.kubeconfig"  # https://127.0.0.1:6444, kube-apiserver's own address


@dataclass(frozen=True, slots=True)
class Case:
    """`verdict` is without what the configuration allows; `spared` are the destinations of that."""

    port: ProtectedPort
    observation: Observation
    verdict: PortVerdict
    plan: Plan
    addresses: tuple[Address, ...]
    spared: frozenset[str]

    @property
    def generation(self) -> int | None:
        """The generation all of it was worked out for; None when the ruleset cannot be read."""
        return self.observation.generation


def look(source: NftablesSource, port: ProtectedPort, root: str) -> Case:
    """The case of one port. Raises NotPermitted; what cannot be read is unknown in it, and planned for nowhere."""
    clock = SystemClock()
    reader = HostReader(clock)
    try:
        ruleset = RecordingRuleset(source)
    except Interrupted:
        ruleset = RecordingRuleset(source)
    for attempt in range(TRIES):
        host = reader.read([port])
        observation = observe(ruleset, lambda host=host: host, [port], clock)  # type: ignore[misc]
        observation = attributed(observation, root, ruleset)
        verdict = without_allowed(observation.verdicts[0])
        bad = [each for each in verdict.findings if each.path]
        try:
            removals, kept = targets(ruleset, port, bad, ruleset.hits)
            places = _places(ruleset, bad)
            ruleset.check()
        except (Interrupted, SourceError, DecodeError) as error:
            if isinstance(error, Interrupted) and attempt < TRIES - 1:
                continue
            observation = unknown([port], f"the ruleset could not be read: {error}", host)
            verdict, removals, kept, places = observation.verdicts[0], [], [], {}
        break
    addresses = protected_addresses(host, port)
    written = replace(_written(root, host, addresses), ways=_ways(root, ruleset, clock, verdict))
    spared = frozenset(
        each.destination
        for each in observation.verdicts[0].findings
        if each.destination and allowed(port, each)
    )
    return Case(port, observation, verdict, plan(verdict, written, places, removals, kept), addresses, spared)


def _ways(root: str, ruleset: RecordingRuleset, clock: Clock, verdict: PortVerdict) -> tuple[Way, ...]:
    """Ways to the API, tried now; none where the port is not the API's, or not taken."""
    if not serves_api(verdict.port) or verdict.state not in TAKEN:
        return ()
    with Root(root, clock) as files:
        found = find(files)
    settings = found.settings if found is not None else Settings()
    networks = [str(network[1]) for network in settings.service_networks]
    cluster = (found is not None and found.running) or proxied(ruleset, networks) is True
    ways = tried(root, clock, settings, candidates(settings, [verdict], cluster))
    return tuple(way if _there(root, way.kubeconfig) else replace(way, kubeconfig=None) for way in ways)


def _there(root: str, path: str | None) -> bool:
    return path is not None and os.path.exists(os.path.join(root, path.lstrip("/")))


def _places(ruleset: RecordingRuleset, findings: Sequence[Finding]) -> dict[tuple[str, str, str, int], Place]:
    """Where the rules on the paths are, and what iptables calls them."""
    found: dict[tuple[str, str, str, int], Place] = {}
    for step in (step for each in findings for step in each.path if step.handle):
        key = (step.family, step.table, step.chain, step.handle)
        family = step.family.removeprefix(f"{LEGACY} ")
        if key in found or family not in ("ip", "ip6"):
            continue
        for number, rule in enumerate(ruleset.rules(ChainRef(*key[:3])), 1):
            if rule.handle == step.handle:
                found[key] = Place(number, specification(ruleset.expressions(rule), family))
    return found


def _written(root: str, host: Host, addresses: Sequence[Address]) -> Written:
    """How commands are written on this host: by what is there."""

    k3s = any(_there(root, each) for each in ("/usr/local/bin/k3s", "/usr/bin/k3s", "/var/lib/rancher/k3s"))
    rke2 = _there(root, "/var/lib/rancher/rke2")
    kubectl, crictl = "kubectl", "crictl"
    if k3s:
        kubectl, crictl = "k3s kubectl", "k3s crictl"
    elif rke2:
        kubectl = "/var/lib/rancher/rke2/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml"
        crictl = "/var/lib/rancher/rke2/bin/crictl"
    kinds = {each.index: each.kind for each in host.interfaces}
    own = {each.address for each in host.addresses if kinds.get(each.interface) not in _OF_PODS}
    outside = [
        str(each) for each in addresses if each in own and not (each.is_loopback or each.is_link_local)
    ]
    return Written(ADMIN if k3s and _there(root, ADMIN) else None, kubectl, crictl, tuple(outside))
