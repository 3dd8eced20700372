"""How a port is given back to its owner: steps for a person, and what of them can be done on this host alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from k3swatch.model.finding import PortVerdict
from k3swatch.model.flow import Flow
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import State, Vantage


class StepKind(StrEnum):
    """What a step is for; in the order in which they are taken."""

    TALK = "talk"  # a way to the API that works
    CAUSE = "cause"  # what makes the rules: gone first, or it makes them again
    CHECK = "check"  # that nothing of it was left in the API
    POD = "pod"  # what still runs on this host
    RULES = "rules"  # what is in the kernel and goes with nobody
    FLOWS = "flows"  # connections that are still where the rules once sent them
    PROVE = "prove"  # who answers


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `commands` are lines for a POSIX shell, all names quoted; `when` says under what condition."""

    kind: StepKind
    text: str
    commands: tuple[str, ...] = ()
    when: str | None = None
    api: bool = False  # talks to the Kubernetes API


@dataclass(frozen=True, slots=True)
class Removal:
    """One rule, or (`key`) one element of a named set `chain`, without which the port is not taken any more.

    `raw` is the rule's expressions as they were judged; `back` is who puts it in again, and when; `wide`: it takes more
    than the port. All text may be hostile.
    """

    family: str
    table: str
    chain: str
    handle: int
    text: str
    raw: bytes = b""
    key: bytes | None = None
    back: str | None = None
    wide: bool = False
    spelled: str | None = None  # the key as nft writes it, where it can be written


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that takes the port and is not taken away here, and why."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything there is to do about one port; no steps when it is not taken."""

    port: ProtectedPort
    state: State
    steps: tuple[Step, ...] = ()
    removals: tuple[Removal, ...] = ()
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Guard:
    """How the guard of a port is. `before` are nat chains that come before it, or at the same priority; `foreign` is
    what in its table is not ours. All text may be hostile.
    """

    port: ProtectedPort
    on: bool
    priority: int | None
    before: tuple[str, ...]
    foreign: str | None
    verdict: PortVerdict


class Answer(StrEnum):
    """What became of a connection from this host."""

    HERE = "answered by a socket of this host"
    ELSEWHERE = "answered, but not by a socket of this host"
    REFUSED = "refused: nobody listens"
    NONE = "no answer"


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: the `file` it can be undone with (None: nothing was removed), what, and how it is now.

    `ended` are connections that were stuck, `unended` says why they could not be looked at; `left` is the plan for what
    still takes the port; `answers` are who answers on each address.
    """

    file: str | None
    removed: tuple[Removal, ...]
    ended: tuple[Flow, ...]
    unended: str | None
    after: PortVerdict
    left: Plan
    answers: tuple[tuple[str, Answer], ...]

    @property
    def answered(self) -> bool:
        """Whether nobody else answers; where nobody listens, a connection may be refused."""
        silent = {
            address
            for finding in self.after.findings
            if finding.state is State.UNSERVED and finding.vantage is Vantage.LOCAL
            for address in finding.addresses
        }
        return all(
            answer is Answer.HERE
            or (answer is not Answer.ELSEWHERE and (self.after.unserved or address in silent))
            for address, answer in self.answers
        )
