"""Many cases, in as many labs as there are processors; and what they came to.

A lab is a set of namespaces that this process makes and deletes; a worker process enters them. What a worker cannot
agree with it tries once more, without haste: a busy machine is no disagreement. Then it is shrunk, where that is
wanted, and handed over.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.queues import Queue

from fuzz import case as casefile
from fuzz.compare import BLOCKED, DELIVERED, DIVERTED, MAYBE, Verdict, compare, is_delivered
from fuzz.generate import case
from fuzz.rig import Rig
from fuzz.shrink import PATIENCE, judged, shrink
from k3swatch.demo.lab import wired
from k3swatch.demo.netns import Namespace
from k3swatch.demo.said import NOBODY
from k3swatch.errors import K3swatchError

TOGETHER = 10  # cases that a worker is given at once
MOST_SHRUNK = 3  # disagreements of one kind that a worker shrinks: the others are told by their seed
MOST_TOLD = 20
RATE = 0.05  # of `maybe`, on rulesets made only of what we claim to understand


@dataclass
class Tally:
    """What became of some cases. `disagreements`: one text each, and the case file that shows it (may be empty)."""

    rulesets: int = 0
    unloadable: int = 0
    understood: int = 0  # connections to rulesets with nothing in them that is beyond knowing
    words: Counter[str] = field(default_factory=Counter)  # connections by what was said of them
    ends: Counter[str] = field(default_factory=Counter)  # and by what became of them
    maybe: Counter[str] = field(default_factory=Counter)  # by what was beyond knowing
    disagreements: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Put another's to this one's."""
        self.rulesets += other.rulesets
        self.unloadable += other.unloadable
        self.understood += other.understood
        for mine, others in (
            (self.words, other.words),
            (self.ends, other.ends),
            (self.maybe, other.maybe),
        ):
            mine.update(others)
        self.disagreements += other.disagreements

    @property
    def connections(self) -> int:
        """How many were made."""
        return self.words.total()

    @property
    def rate(self) -> float:
        """The share of `maybe` on rulesets made only of what we claim to understand."""
        return self.maybe[""] / max(self.understood, 1)

    def text(self) -> str:
        """In a few lines."""
        ends = ", ".join(f"{self.ends[end]} {end}" for end in (DELIVERED, DIVERTED, "unanswered"))
        words = ", ".join(f"{self.words[word]} {word}" for word in (DELIVERED, DIVERTED, BLOCKED, MAYBE))
        others = ", ".join(f"{count} with {what}" for what, count in sorted(self.maybe.items()) if what)
        return (
            f"{self.rulesets} rulesets, {self.connections} connections: {ends}\n"
            f"said of them: {words}; {len(self.disagreements)} disagreements\n"
            f"maybe: {self.maybe['']} of {self.understood} where all is understood ({self.rate:.1%})"
            + (f"; elsewhere {others}" if others else "")
            + (f"; {self.unloadable} rulesets could not be loaded" if self.unloadable else "")
        )


_rig: Rig


def _begin(labs: Queue[dict[str, str]]) -> None:
    """In a worker: take one of the labs."""
    global _rig
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to all; whoever began ends us
    _rig = Rig({name: Namespace(full) for name, full in labs.get().items()})


def _work(seeds: Sequence[str], shrinking: bool) -> Tally:
    """In a worker: these cases."""
    tally = Tally()
    for seed in seeds:
        one(_rig, seed, tally, shrinking)
    return tally


def one(rig: Rig, seed: str, tally: Tally, shrinking: bool) -> None:
    """The case of one seed, into `tally`."""
    made = case(seed)
    try:
        rig.load(made.ruleset)
    except K3swatchError:
        tally.unloadable += 1
        return
    try:
        verdicts = compare(rig, made.dials, rig.watch(made.dials))
    except (LookupError, TypeError, ValueError, AssertionError):  # whatever the rules are, there is an answer
        tally.disagreements.append((f"seed {seed}: {traceback.format_exc(limit=-3)}", ""))
        return
    if any(verdict.complaint for verdict in verdicts):  # a busy machine? once more, without haste
        rig.load(made.ruleset)
        verdicts = compare(rig, made.dials, rig.watch(made.dials, PATIENCE))
    beyond = "+".join(sorted(made.ruleset.beyond))
    tally.rulesets += 1
    tally.understood += 0 if beyond else len(verdicts)
    for verdict in verdicts:
        tally.words[verdict.said.word] += 1
        tally.ends[_end(verdict)] += 1
        if verdict.said.word == MAYBE:
            tally.maybe[beyond] += 1
    wrong = [verdict for verdict in verdicts if verdict.complaint]
    if not wrong:
        return
    text, file = f"seed {seed}: " + "\n    ".join(map(str, wrong)), ""
    if shrinking and len(tally.disagreements) < MOST_SHRUNK:
        smallest, verdict = shrink(rig, made.ruleset, wrong[0])
        verdict = judged(rig, smallest, verdict.dial) or verdict
        file = casefile.text(rig, seed, smallest, verdict)
    tally.disagreements.append((text, file))


def _end(verdict: Verdict) -> str:
    where = verdict.seen.answer.where
    if where in NOBODY:
        return "unanswered"
    return DELIVERED if is_delivered(where, verdict.dial.port) else DIVERTED


def campaign(seeds: Iterable[str], shrinking: bool = False, labs: int = 0) -> Generator[Tally, None, None]:
    """Run the cases of all seeds; yields what each handful came to, as they come.

    Leaving it early (close, an exception, Ctrl-C) stops the workers and deletes the labs.
    """
    context = multiprocessing.get_context("spawn")
    labs = labs or len(os.sched_getaffinity(0))
    todo = iter(seeds)
    with ExitStack() as stack:
        queue: Queue[dict[str, str]] = context.Queue()
        for _ in range(labs):
            spaces = stack.enter_context(wired())
            queue.put({name: space.name for name, space in spaces.items()})
        pool = ProcessPoolExecutor(labs, context, _begin, (queue,))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        pending: set[Future[Tally]] = set()
        while True:
            while len(pending) < labs + 1 and (some := list(islice(todo, TOGETHER))):
                pending.add(pool.submit(_work, some, shrinking))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
