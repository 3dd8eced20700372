"""The receiver of a diverted connection: clues of the rules and files of the node, each checked against another.

Two questions are kept apart, because a stale rule answers them differently: for whom the rule was made (its comment,
the hash in its chain's name), and whose the address is now (host-local's lease, the CNI cache). When they are one,
that is the receiver. When not, the address decides who receives, and the rule was left behind if its container is gone
(`gone`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from k3swatch.attribute import cni, gone, oci, pods, published
from k3swatch.attribute.case import Case
from k3swatch.attribute.clues import certainty, clues, cni_chain
from k3swatch.attribute.cri import Cri
from k3swatch.attribute.kine import Kine
from k3swatch.attribute.root import Root
from k3swatch.attribute.service import serve
from k3swatch.model.finding import Culprit, Finding, Orphan
from k3swatch.model.words import State


@dataclass(frozen=True, slots=True)
class Answer:
    """What one look found out. `settled`: another look soon will not tell more.

    `orphaned_from`: there is no such Service any more, says kine; if kube-proxy has no rule for these ClusterIPs
    either, the pod is an orphan.
    """

    culprit: Culprit
    settled: bool
    orphaned_from: tuple[str, ...] = ()


def receiver(
    finding: Finding,
    root: Root,
    services: Collection[str] = (),
    thorough: bool = True,
    cri: Cri | None = None,
    port: int | None = None,
) -> Answer | None:
    """Who receives what `finding` diverts; None when nothing is known.

    `services` are those that rules of other findings name. `thorough` also looks through the network namespaces of
    all processes when no file tells the pod. `cri`: the runtimes to ask, none when there is no time for that. `port`:
    the one that is protected.
    """
    if finding.state is not State.DIVERTED:
        return None
    case = Case(clues(finding), root, cri, port)
    maker, holder = _maker(case, root), _holder(case, root)
    container = holder or maker
    if container:
        _identify(case, root, container)
    if case.pod is None and maker and holder != maker and case.running(maker):
        _identify(case, root, maker)  # a lease of nobody: what the rule says is better, and contradicted
    if case.pod is None and thorough and case.clues.address is not None:
        container = _by_namespace(case, root) or container
    left_behind = gone.left_behind(case, root, maker, holder, thorough) if maker else False
    if case.pod is None and case.clues.address is not None and (case.clues.publisher or not container):
        found = published.of_address(root, case.clues.address, container)
        case.source(*[found[0]] if found else [])
        container = found[1] if found else container
    with Kine(root) as kine:
        served = serve(case.pod, case.clues.service, services, kine, case.labels)
    if case.clues.service:
        case.source("kube-proxy", *["chain-hash"] if case.clues.service_hashed else [])
    case.source(*served.sources)
    case.against += served.against
    case.notes += served.notes
    if not (container or served.service):
        return None
    culprit = Culprit(
        pod=case.pod.path if case.pod else None,
        owner=served.owner,
        service=served.service,
        container=container,
        confidence=_confidence(case, served.confirmed),
        sources=tuple(case.sources),
        forwards=_forwards(case, root, container, finding),
        left_behind=left_behind,
        orphan=Orphan.SANDBOX if left_behind else None,
        contradictions=tuple(case.against),
        notes=(*case.against, *case.notes, *root.troubles[:2]),
    )
    waits = container is not None or case.clues.cni_chain is not None
    settled = (culprit.confidence == "high" and not case.unlisted(container)) if waits else True
    return Answer(culprit, settled, _cluster_ips(case, root, container) if served.gone else ())


def _maker(case: Case, root: Root) -> str | None:
    """The container the rule was made for."""
    said, chain = case.clues.container, case.clues.cni_chain
    if said:
        case.source("rule-comment")
    if chain is None:
        return said
    if said and case.clues.network is not None and cni_chain(case.clues.network, said) == chain:
        case.source("chain-hash")
        return said
    hashed = cni.of_chain(root, chain)
    if hashed:
        case.source("chain-hash")
        if said and said not in hashed:
            case.against.append(
                f"the rule's comment names container {said[:12]}, its chain is of {hashed[0][:12]}"
            )
        return said if said in hashed else hashed[0]
    if said:
        case.against.append(f"chain {chain} is not that of the container its rule's comment names")
    return said


def _holder(case: Case, root: Root) -> str | None:
    """The container that has the address now."""
    address = case.clues.address
    if address is None:
        return None
    leased = cni.leased(root, address)
    if leased:
        case.source("lease")
        if len(set(leased)) > 1:
            case.against.append(f"{address} is leased to {len(set(leased))} containers")
        return leased[0]
    if root.names(cni.NETWORKS):
        return None  # host-local gives the addresses here, and it did not give this one
    cached = cni.of_address(root, address)
    return cached.container if cached else None


def _identify(case: Case, root: Root, container: str) -> None:
    """The pod of a container, by the CNI cache, by its runtime's files, and by its runtime when that answers."""
    cached, sandbox = cni.cached(root, container), oci.sandbox(root, container)
    address, listed = case.clues.address, case.listed(container)
    if cached is not None:
        case.source("cni-cache")
        case.pod = cached.pod
        if address is not None and cached.addresses and address not in cached.addresses:
            case.against.append(f"the CNI cache does not give {address} to container {container[:12]}")
    if sandbox is not None:
        case.tasks = sandbox.tasks
        if sandbox.pod is not None:
            case.source("containerd")
            if case.pod is not None and case.pod != sandbox.pod:
                case.against.append(f"the CNI cache says {case.pod.path}, containerd says {sandbox.pod.path}")
            case.pod = sandbox.pod  # it runs; the cache may be of another life
    if listed is not None and listed.pod is not None:
        case.source("cri")
        if case.pod is not None and case.pod != listed.pod:
            case.against.append(f"others say {case.pod.path}, the CRI says {listed.pod.path}")
        case.pod, case.labels = listed.pod, listed.labels
    if case.pod is not None and pods.log_directory(root, case.pod):
        case.source("pod-logs")


def _by_namespace(case: Case, root: Root) -> str | None:
    """The pod by its processes' network namespace; its container, when the cgroup says it."""
    assert case.clues.address is not None
    found = pods.with_address(root, case.clues.address)
    if not isinstance(found, pods.Process):
        return None
    case.source("netns")
    case.pod = pods.by_uid(root, found.uid)
    case.source(*["pod-logs"] if case.pod else [])
    return found.container


def _confidence(case: Case, confirmed: bool) -> str:
    if case.against:
        return "low"
    if case.pod is not None:
        rule = {"rule-comment", "chain-hash"} & set(case.sources)
        files = {"lease", "cni-cache", "containerd", "cri", "netns"} & set(case.sources)
        return "high" if len(files) + bool(rule) >= 2 else "medium"
    if case.clues.service is not None:
        found = certainty(case.clues)
        return "high" if confirmed and found == "medium" else found
    return "medium" if len(case.sources) > 1 else "low"


def _forwards(case: Case, root: Root, container: str | None, finding: Finding) -> str | None:
    port = (finding.destination or "").rpartition(":")[2]
    for each in _forwarders(case, root, container):
        if str(each.port) == port:
            address = each.addresses[0]
            return f"[{address}]:{each.to}" if ":" in address else f"{address}:{each.to}"
    return None


def _cluster_ips(case: Case, root: Root, container: str | None) -> tuple[str, ...]:
    return tuple(address for each in _forwarders(case, root, container) for address in each.addresses)


def _forwarders(case: Case, root: Root, container: str | None) -> list[oci.Forwarder]:
    """Only a ServiceLB pod's containers are looked for: that reads every task's configuration."""
    if container is None or case.tasks is None or case.pod is None or pods.svclb(case.pod.name) is None:
        return []
    return oci.forwarders(root, container, case.tasks)
