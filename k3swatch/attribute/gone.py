"""Rules that outlive what they were made for: a chain of portmap's whose sandbox does not exist any more.

Two independent sources must agree, of which one is the runtime (no such task, no such sandbox). The other: the address
is leased to another container, or no pod's network namespace has it. A rule comes before its sandbox's task, so nothing
is called gone while its lease or cache file is young.
"""

from __future__ import annotations

from k3swatch.attribute import cni, pods
from k3swatch.attribute.case import Case
from k3swatch.attribute.root import Root

SETTLED = 30.0  # seconds after which a lease or a cache file is no part of a pod that is just being made


def left_behind(case: Case, root: Root, maker: str, holder: str | None, thorough: bool) -> bool:
    """Whether the container the rule was made for is gone. Says what it saw, and who waits behind the rule."""
    if holder is not None and holder != maker:
        note = f"the rule was made for container {maker[:12]}, but {case.clues.address} is leased to {holder[:12]}"
        if case.running(maker) is not False:
            case.against.append(note)
            return False
        why = f"{note}, and the runtime has no {maker[:12]} any more"
    else:
        address = case.clues.address
        if (
            not thorough
            or address is None
            or case.running(maker) is not False
            or not _old(root, maker, str(address))
            or pods.with_address(root, address) is not False
        ):
            return False
        why = f"the runtime has no container {maker[:12]}, and no pod has {address}"
    case.notes.append(f"left behind: {why}")
    if case.port is not None:
        case.notes += [
            f"it stands in the way of pod {live.pod.path}, which has the same host port and runs"
            for live in cni.publishing(root, case.port)
            if live.pod is not None and live.container not in (maker, holder) and case.running(live.container)
        ][:1]
    return True


def _old(root: Root, container: str, address: str) -> bool:
    """Whether the container cannot be one that is just being started: its rule comes before its task."""
    networks = root.names(cni.NETWORKS)
    ages = [root.age(f"{cni.NETWORKS}/{network}/{address}") for network in networks[:64]]
    cached = cni.cached(root, container)
    ages += [root.age(f"{cni.RESULTS}/{cached.file}")] if cached else []
    known = [age for age in ages if age is not None]
    # no lease although host-local gives the addresses: it was given back
    return min(known) > SETTLED if known else bool(networks)
