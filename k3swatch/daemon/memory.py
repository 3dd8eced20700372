"""Gives memory back to the system: reading 40,000 rules leaves glibc with 10 MB that a waiting daemon does not need."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """malloc_trim(3); does nothing with a C library that has none."""
    trim_heap = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim_heap is not None:
        trim_heap(0)
