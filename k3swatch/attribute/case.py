"""What is gathered about one finding on the way to an answer, and the questions that are asked more than once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k3swatch.attribute import oci
from k3swatch.attribute.clues import Clues
from k3swatch.attribute.cni import Pod
from k3swatch.attribute.cri import Cri, Listed
from k3swatch.attribute.root import Root


@dataclass(slots=True)
class Case:
    """One finding's. `against` are contradictions between sources: any makes the answer `low`."""

    clues: Clues
    root: Root
    cri: Cri | None = None
    port: int | None = None  # that is protected
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    pod: Pod | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  # of the pod, by the CRI
    tasks: str | None = None  # containerd's directory with the sandbox
    _listed: dict[str, Listed | bool | None] = field(default_factory=dict)
    _running: dict[str, bool | None] = field(default_factory=dict)

    def source(self, *names: str) -> None:
        """These said so."""
        self.sources += [name for name in names if name not in self.sources]

    def listed(self, container: str) -> Listed | None:
        """The sandbox as its runtime tells it, when one answers and has it."""
        found = self._ask(container)
        return found if isinstance(found, Listed) else None

    def unlisted(self, container: str | None) -> bool:
        """Whether a runtime answers and has no such sandbox: one that is being made is listed when it has started."""
        return container is not None and self._ask(container) is False

    def running(self, container: str) -> bool | None:
        """Whether the container lives: by its runtime's files, and by its runtime when that answers.

        One of them that says it does is enough; where they disagree, that is said.
        """
        if container not in self._running:
            self._running[container] = self._lives(container)
        return self._running[container]

    def _lives(self, container: str) -> bool | None:
        task, listed = oci.running(self.root, container), self._ask(container)
        known = listed.ready if isinstance(listed, Listed) else listed
        if task is not None and known is not None and task is not known:
            there, missing = ("its files", "the CRI") if task else ("the CRI", "its files")
            self.against.append(
                f"container {container[:12]} runs by {there} of the runtime, not by {missing}"
            )
        if task or known:
            return True
        return False if task is False or known is False else None

    def _ask(self, container: str) -> Listed | bool | None:
        if container not in self._listed:
            self._listed[container] = self.cri.sandbox(self.root, container) if self.cri is not None else None
        return self._listed[container]
