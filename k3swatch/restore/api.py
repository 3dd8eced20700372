"""Steps that talk to Kubernetes: the object behind the rules, and what it left. Names that cannot be its are not used.

Names come from files and rule comments. One that is no RFC 1123 name is never put in a command: the step says what to
look for instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from k3swatch.model.finding import Culprit, Finding, Orphan
from k3swatch.model.plan import Step, StepKind
from k3swatch.model.port import ProtectedPort
from k3swatch.model.way import Answer, Way
from k3swatch.restore.kinds import Cause, serviced
from k3swatch.restore.quote import command, named

CLUSTER_API = "https://10.43.0.1:443"  # ClusterIP of Service default/kubernetes, with K3s' own service CIDR
_KIND = re.compile("[A-Za-z]{1,63}")
_LABEL = "svccontroller.k3s.cattle.io"
_NO_EXTERNAL_IPS = '[{"op":"remove","path":"/spec/externalIPs"}]'


def talk(port: ProtectedPort, kubectl: str, kubeconfig: str | None, ways: Sequence[Way] = ()) -> list[Step]:
    """How kubectl reaches the API although its port is taken: by what answered just now, when anything was tried."""
    working = sorted((way for way in ways if way.works), key=lambda way: way.answer is not Answer.VERIFIED)
    if working:
        return [_through(working[0], kubectl)]
    through_service = command(*kubectl.split(), "--server", CLUSTER_API, "get", "nodes")
    if kubeconfig is None or port.port == 6444:
        text = "Reach the API through its Service: connections to it are not to the port that is taken."
        return [Step(StepKind.TALK, text, (through_service,), api=True)]
    lines = (command("export", f"KUBECONFIG={kubeconfig}"), command(*kubectl.split(), "get", "nodes"))
    text = "Reach the API at kube-apiserver's own address, 127.0.0.1:6444, which is not taken"
    return [Step(StepKind.TALK, f"{text} (else: {through_service}).", lines, api=True)]


def _through(way: Way, kubectl: str) -> Step:
    sure = (
        "it was tried just now and is this cluster's"
        if way.answer is Answer.VERIFIED
        else "it answered just now"
    )
    text = f"Reach the API at {way.url}, which is not taken: {sure}."
    if way.kubeconfig is None:
        line = command(*kubectl.split(), "--server", way.url, "get", "nodes")
        return Step(StepKind.TALK, text, (line,), api=True)
    lines = (command("export", f"KUBECONFIG={way.kubeconfig}"), command(*kubectl.split(), "get", "nodes"))
    return Step(StepKind.TALK, text, lines, api=True)


def steps(cause: Cause, findings: Sequence[Finding], port: ProtectedPort, kubectl: str) -> list[Step]:
    """The object behind the rules, and what remains of it."""
    who = culprit(findings)
    service = named(who.service)
    tool = kubectl.split()
    if cause is Cause.ORPHAN:
        return [_orphan(who, tool)]
    if cause is Cause.HOST_PORT:
        return [_host_port(who, port, tool)]
    if cause is Cause.IPVS or service is None:
        text = (
            f"Find the Service that wants port {port.port}, or this host's address, and delete or change it."
        )
        listing = f"{command(*tool, 'get', 'services', '-A', '-o', 'wide')} | grep -w {port.port}"
        found = [Step(StepKind.CAUSE, text, (listing,), api=True)]
    else:
        found = [_service(cause, service, port, tool)]
    if cause in (Cause.SERVICE, Cause.PROXIED) or serviced(who):
        found.append(_daemon_set(who, tool))
    return found


def pod(findings: Sequence[Finding], crictl: str) -> list[Step]:
    """The sandbox that portmap's rules are of, ended on this host: containerd then lets portmap remove its chain."""
    who = culprit(findings)
    if who.orphan is Orphan.SANDBOX:
        return []
    if who.container is None or ":" in who.container or who.pod is None:  # docker's and podman's are named so
        return []
    tool = crictl.split()
    line = f"{command(*tool, 'stopp', who.container)} && {command(*tool, 'rmp', who.container)}"
    text = "End the pod on this host: this host's kubelet may be cut off from the API by the very port."
    return [Step(StepKind.POD, text, (line,), when="it is still there half a minute later")]


def culprit(findings: Sequence[Finding]) -> Culprit:
    """Who is behind a cause, as far as any of its findings knows."""
    known = [each.culprit for each in findings if each.culprit is not None]
    return next((each for each in known if each.receiver), known[0] if known else Culprit())


def _service(cause: Cause, service: tuple[str, str], port: ProtectedPort, tool: list[str]) -> Step:
    namespace, name = service
    if cause is Cause.EXTERNAL_IP:
        line = command(
            *tool, "-n", namespace, "patch", "service", name, "--type=json", "-p", _NO_EXTERNAL_IPS
        )
        text = f"Take this host's address out of the externalIPs of Service {namespace}/{name}."
        return Step(StepKind.CAUSE, text, (line,), api=True)
    if cause is Cause.NODE_PORT:
        line = command(*tool, "-n", namespace, "edit", "service", name)
        text = f"Give Service {namespace}/{name} another nodePort than {port.port}."
        return Step(StepKind.CAUSE, text, (line,), api=True)
    line = command(*tool, "-n", namespace, "delete", "service", name)
    text = f"Delete Service {namespace}/{name}, or give it another port (kubectl edit): it wants {port.port}."
    return Step(StepKind.CAUSE, text, (line,), api=True)


def _daemon_set(who: Culprit, tool: list[str]) -> Step:
    """ServiceLB's DaemonSet has no owner reference: it goes only if the cloud controller saw the Service go."""
    namespace = (who.pod or "kube-system/").partition("/")[0]
    service = named(who.service)
    owner = (
        named(f"{namespace}/{who.owner.removeprefix('DaemonSet/')}") if serviced(who) and who.owner else None
    )
    namespace = owner[0] if owner else "kube-system"
    label = f"{_LABEL}/svcname" + (f"={service[1]}" if service else "")
    lines = [command(*tool, "-n", namespace, "get", "daemonsets", "-l", label)]
    if owner:
        lines.append(command(*tool, "-n", namespace, "delete", "daemonset", owner[1]))
    text = "Its DaemonSet svclb-… must go with it. It is an orphan when it does not: delete it."
    return Step(StepKind.CHECK, text, tuple(lines), api=True)


def _orphan(who: Culprit, tool: list[str]) -> Step:
    namespace = (who.pod or "kube-system/").partition("/")[0]
    owner = named(f"{namespace}/{(who.owner or '').removeprefix('DaemonSet/')}")
    if owner is None:
        line = command(*tool, "-n", "kube-system", "get", "daemonsets", "-l", f"{_LABEL}/svcname")
        return Step(
            StepKind.CAUSE, "Find the DaemonSet whose Service is gone, and delete it.", (line,), api=True
        )
    line = command(*tool, "-n", owner[0], "delete", "daemonset", owner[1])
    text = (
        f"Delete DaemonSet {owner[0]}/{owner[1]}: an orphan, its Service is gone, and it makes the pod again."
    )
    return Step(StepKind.CAUSE, text, (line,), api=True)


def _host_port(who: Culprit, port: ProtectedPort, tool: list[str]) -> Step:
    pod = named(who.pod)
    if pod is None:
        text = f"Find the pod with hostPort {port.port} and change what makes it."
        line = f"{command(*tool, 'get', 'pods', '-A', '-o', 'yaml')} | grep -n 'hostPort: {port.port}'"
        return Step(StepKind.CAUSE, text, (line,), api=True)
    kind, _, owner = (who.owner or "").partition("/")
    target = named(f"{pod[0]}/{owner}")
    if target is None or not _KIND.fullmatch(kind):
        line = command(*tool, "-n", pod[0], "describe", "pod", pod[1])
        text = f"Pod {pod[0]}/{pod[1]} has hostPort {port.port}: change what makes it (`Controlled By`)."
        return Step(StepKind.CAUSE, text, (line,), api=True)
    line = command(*tool, "-n", pod[0], "edit", kind.lower(), target[1])
    text = f"Take hostPort {port.port} out of {kind} {pod[0]}/{target[1]}."
    return Step(StepKind.CAUSE, text, (line,), api=True)
