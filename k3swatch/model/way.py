"""Ways to the Kubernetes API while its port is taken: which were tried, and who answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What came of a TLS handshake."""

    VERIFIED = "verified"  # with a certificate of this cluster's CA, or on the socket of the listener that must own it
    ANSWERS = (
        "answers"  # with a certificate that could not be checked: the CA may not be read, or is not known
    )
    STRANGER = "stranger"  # with a certificate of somebody else
    SILENT = "silent"  # refused, no answer, no TLS: `why` says which


@dataclass(frozen=True, slots=True)
class Way:
    """One address that was dialled. `issuer` is what its certificate says, hostile text as all of it."""

    url: str  # https://127.0.0.1:6444
    answer: Answer
    kubeconfig: str | None = None  # that dials just this address
    issuer: str | None = None
    names: tuple[str, ...] = ()  # subject alternative names, the first few
    why: str | None = None

    @property
    def works(self) -> bool:
        """Whether it is worth trying kubectl there."""
        return self.answer in (Answer.VERIFIED, Answer.ANSWERS)
