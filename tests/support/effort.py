"""Bounds that hold on a busy machine: what a claim is about is work, so work is measured, not the clock on the wall."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def effort(seconds: float) -> Iterator[None]:
    """The block takes less than so much CPU time of this thread, the kernel's for it included. Waiting is free."""
    began = time.thread_time()
    yield
    spent = time.thread_time() - began
    assert spent < seconds, f"{spent:.3f} s of CPU time, less than {seconds} s was to be enough"
