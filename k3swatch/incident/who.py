"""What has been learned about who: kept apart from the findings, which are made anew at every look. Pure.

Attribution comes later than the alert: the pod's files are written milliseconds after the rule. What it learns is
remembered by `subject` and put on every finding it is about, now and at the next looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from k3swatch.model.finding import Culprit, Finding, Observation
from k3swatch.model.process import Process
from k3swatch.model.ruleset import LEGACY
from k3swatch.model.words import UNRULED, Mechanism

REMEMBERED = 1024  # subjects

Subject = tuple[str | None, ...]


def subject(finding: Finding) -> Subject:
    """What a receiver is looked up by: the destination, and whose rule sends there. The handle may change."""
    step = finding.rule
    where = (step.family, step.table, step.chain, step.comment) if step else (None,) * 4
    return (finding.destination, *where)


def fuller(old: Culprit | None, new: Culprit) -> Culprit:
    """What to believe after another look: one that found less of the same pod takes nothing back."""
    if old is None or not old.receiver:
        return new
    if not new.receiver:
        return old
    if new.pod == old.pod if new.pod else new.container == old.container:
        return replace(
            new,
            pod=new.pod or old.pod,
            owner=new.owner or old.owner,
            service=_longer(old.service, new.service),
            container=new.container or old.container,
            forwards=new.forwards or old.forwards,
        )
    return new


def _longer(old: str | None, new: str | None) -> str | None:
    """`default/kubeapi` rather than the bare name that a pod's own name tells."""
    if old and new and "/" not in new and old.endswith(f"/{new}"):
        return old
    return new or old


class Known:
    """Culprits by subject, the oldest forgotten first."""

    def __init__(self) -> None:
        self._known: dict[Subject, Culprit] = {}

    def learn(self, about: Subject, culprit: Culprit) -> None:
        """What one look found out; `process` is not part of it (each incident has its own)."""
        self._known[about] = replace(
            fuller(self._known.pop(about, None), culprit), process=None, committed=None
        )
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def told(self, finding: Finding) -> Finding:
        """The finding with its receiver, when that is known."""
        culprit = self._known.get(subject(finding))
        return finding if culprit is None else replace(finding, culprit=culprit)


def doer_of(findings: Sequence[Finding], doers: Sequence[Process]) -> Process | None:
    """Which of those who committed brought this about: the only one, or the only one whose command line names the
    destination, or else the chain, of the deciding rule. Where nobody can tell: one of them, and it says so."""
    if len(doers) < 2 or not findings:
        return doers[0] if doers else None
    step = findings[0].rule
    for name in (findings[0].destination, step.chain if step else None):
        named = [one for one in doers if name and any(name in argument for argument in one.arguments)]
        if len(named) == 1:
            return replace(named[0], only=True)
    return next((one for one in doers if one.sources), doers[0])


@dataclass(frozen=True, slots=True)
class Behind:
    """What may have brought findings about: when (None: not known), pid and comm, and all who may have been it."""

    at: float | None = None
    named: tuple[int, str] | None = None
    doers: tuple[Process, ...] = ()


def behind(findings: Sequence[Finding], seen: Observation | None) -> Behind:
    """What of all that happened since the last look can have brought these findings about: a listener is no commit,
    and iptables-legacy's tables are replaced by other means than nf_tables'."""
    if seen is None:
        return Behind()
    ruled = [finding for finding in findings if finding.mechanism not in UNRULED]
    if not ruled:
        steps = (finding.rule for finding in findings if finding.mechanism is Mechanism.SOCKET)
        inodes = {step.handle for step in steps if step is not None}
        return Behind(doers=tuple(who for inode, who in seen.listened if inode in inodes)[:1])
    if all(finding.rule is not None and finding.rule.family.startswith(LEGACY) for finding in ruled):
        mine = [each for each in seen.replaced if any(finding.family is each[0] for finding in ruled)]
        doers = tuple(who for _, _, who in mine)
        named = {(who.pid, who.comm) for who in doers}
        return Behind(
            min((at for _, at, _ in mine), default=None), named.pop() if len(named) == 1 else None, doers
        )
    return Behind(seen.committed_at, seen.committer, seen.doers)


def committer(process: Process | None) -> Culprit | None:
    """A culprit of whom no more is known than that this process committed."""
    return None if process is None else Culprit(process=process.words, committed=process)


def committed_by(finding: Finding, by: Culprit | None) -> Finding:
    """The finding with who committed its rule, which is all that is taken from `by`."""
    if by is None:
        return finding
    culprit = replace(finding.culprit or Culprit(), process=by.process, committed=by.committed)
    return finding if culprit == finding.culprit else replace(finding, culprit=culprit)


def committer_of(findings: tuple[Finding, ...]) -> Culprit | None:
    """Who committed, as an incident's findings have it (those of an older version in words only)."""
    return next((each.culprit for each in findings if each.culprit and each.culprit.process), None)
