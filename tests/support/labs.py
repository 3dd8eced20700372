"""Several labs at once, each trying one case after the other: most of a trial is waiting for who does not answer."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

from support.cases import Case

from k3swatch.demo.lab import Lab, lab

T = TypeVar("T")
LABS = 8
# what `nft flush ruleset` does not take back. A legacy table stays for ever, empty or not
_STAYS = re.compile(r"-legacy\b|^(ip (addr|link|route|rule)|tc)\b", re.MULTILINE)


def stays(case: Case) -> bool:
    """Whether a case leaves more behind than rules: the next one gets a lab of its own."""
    return bool(_STAYS.search(case.commands))


class Labs(Generic[T]):
    """Tries all `cases` with `attempt`, which gets a lab without rules; the answers come one by one, as futures.

    `furnish` adds to a new lab what the trials need beside it, for as long as the lab lives, and returns the trial.
    """

    def __init__(
        self,
        cases: Iterable[Case],
        furnish: Callable[[Lab, ExitStack], Callable[[Case], T]],
        labs: int = LABS,
    ) -> None:
        self.trials: dict[Case, Future[T]] = {}
        self._queue: SimpleQueue[Case] = SimpleQueue()
        for case in sorted(set(cases), key=lambda case: (stays(case), case.path)):
            self.trials[case] = Future()
            self._queue.put(case)
        self._furnish = furnish
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(min(labs, len(self.trials)))]

    def _work(self) -> None:
        """One lab after the other, until no case is left."""
        while not self._ended.is_set() and not self._queue.empty():
            with ExitStack() as stack:
                try:
                    space = stack.enter_context(lab())
                    attempt = self._furnish(space, stack)
                except BaseException as error:  # noqa: BLE001  it belongs to whoever waits for the next case
                    self._refuse(error)
                    continue
                self._use(space, attempt)

    def _use(self, space: Lab, attempt: Callable[[Case], T]) -> None:
        """Case after case, until one leaves something behind."""
        while not self._ended.is_set():
            try:
                case = self._queue.get_nowait()
            except Empty:
                return
            try:
                space.reset()
                space.host.run("ipset", "destroy", check=False)
                self.trials[case].set_result(attempt(case))
            except BaseException as error:  # noqa: BLE001  it belongs to who waits for this case
                self.trials[case].set_exception(error)
                return
            if stays(case):
                return

    def _refuse(self, error: BaseException) -> None:
        with suppress(Empty):
            self.trials[self._queue.get_nowait()].set_exception(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
