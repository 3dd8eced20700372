"""The container runtime, asked: is this sandbox known and running, whose is it, and which labels did the pod get?

ListPodSandbox of the CRI (kubernetes cri-api, pkg/apis/runtime/v1/api.proto), for one id. The kubelet copies all
labels of a pod onto its sandbox (pkg/kubelet/kuberuntime/labels.go): so ServiceLB's name their Service, and the labels
that controllers put on what they made name the owner. The only source that is asked, not read; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k3swatch.attribute.cni import Pod
from k3swatch.attribute.grpc import unary
from k3swatch.attribute.root import Root
from k3swatch.attribute.wire import delimited, fields, label, messages, text
from k3swatch.clock import Clock, SystemClock
from k3swatch.errors import DecodeError, NotPermitted, SourceError, Unsupported

# K3s and RKE2 bring their own containerd; a distribution's; CRI-O; MicroK8s'; k0s'
SOCKETS = (
    "/run/k3s/containerd/containerd.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/k0s/containerd.sock",
)
SECONDS = 0.3  # for one question, all sockets, where it is asked again later
SILENT = 10.0  # seconds that a runtime is not asked again when it did not answer
LABELS = 64
METHOD = "/runtime.v1.RuntimeService/ListPodSandbox"


@dataclass(frozen=True, slots=True)
class Listed:
    """A sandbox as its runtime has it. `ready`: it runs."""

    pod: Pod | None
    labels: Mapping[str, str] = field(default_factory=dict)
    ready: bool = True


class Cri:
    """The runtimes of this host. Remembers which did not answer, to spare the wait; one thread at a time."""

    def __init__(self, clock: Clock | None = None, seconds: float | None = None) -> None:
        """`seconds` a question may take; default: SECONDS."""
        self._clock = clock or SystemClock()
        self._seconds = seconds or SECONDS
        self._silent: dict[str, float] = {}  # until when a socket is left alone

    def sandbox(self, root: Root, container: str) -> Listed | bool | None:
        """The sandbox with this id. False: a runtime answers, and none that does has it. None: none can be asked."""
        until = self._clock.monotonic() + self._seconds
        answered = failed = False
        for path in SOCKETS:
            if self._silent.get(path, 0.0) > self._clock.monotonic():
                failed = True
                continue
            try:
                found = self._ask(root, path, container, until)
            except (SourceError, DecodeError) as error:
                self._silent[path] = self._clock.monotonic() + SILENT
                if not isinstance(
                    error, NotPermitted | Unsupported
                ):  # as it is set up: no news in every alert
                    root.say(f"{path}: {error}")
                failed = True
                continue
            if isinstance(found, Listed):
                return found
            answered = answered or found is not None
        return False if answered and not failed else None

    def _ask(self, root: Root, path: str, container: str, until: float) -> Listed | bool | None:
        connection = root.connect(path, self._seconds)
        if connection is None:
            return None
        with connection:
            request = delimited(1, delimited(1, container.encode()))  # PodSandboxFilter{id}
            answer = unary(connection, METHOD, request, lambda: until - self._clock.monotonic())
        for number, item in messages(answer):
            if number == 1 and (found := _listed(item, container)) is not None:
                return found
        return False


def owner(pod: Pod, labels: Mapping[str, str]) -> str | None:
    """`DaemonSet/svclb-x`: what made the pod, by the labels that Kubernetes' controllers put on theirs.

    The name of the pod must agree with them: labels are also written by hand.
    """
    base, _, suffix = pod.name.rpartition("-")
    if labels.get("statefulset.kubernetes.io/pod-name") == pod.name and suffix.isdecimal():
        return f"StatefulSet/{base}"
    template = labels.get("pod-template-hash")
    if template and base.endswith(f"-{template}"):
        return f"Deployment/{base.removesuffix(f'-{template}')}"
    if base and "controller-revision-hash" in labels and "pod-template-generation" in labels:
        return f"DaemonSet/{base}"
    job = labels.get("batch.kubernetes.io/job-name") or labels.get("job-name")
    return f"Job/{job}" if job and base == job else None


def _listed(item: bytes, container: str) -> Listed | None:
    """A PodSandbox message; None for another sandbox than was asked for."""
    labels: dict[str, str] = {}
    pod, ready, same = None, True, False
    for number, value in fields(item):
        if isinstance(value, int):
            ready = ready and not (number == 3 and value)  # PodSandboxState: 0 is SANDBOX_READY
        elif number == 1:
            same = value == container.encode()
        elif number == 2:  # PodSandboxMetadata{name, uid, namespace}
            meta = dict(messages(value))
            name, namespace = text(meta.get(1, b"")), text(meta.get(3, b""))
            pod = Pod(namespace, name, text(meta.get(2, b""), 64)) if name and namespace else None
        elif number == 5 and len(labels) < LABELS:
            labels.update(label(value))
    return Listed(pod, labels, ready) if same else None
