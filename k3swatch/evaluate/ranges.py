"""Sets of integers as sorted, disjoint, inclusive ranges. Addresses, ports, interface indexes and yes/no all fit.

>>> subtract(((0, 9),), ((3, 4),))
((0, 2), (5, 9))
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter

Ranges = tuple[tuple[int, int], ...]

EMPTY: Ranges = ()


def normal(pairs: list[tuple[int, int]]) -> Ranges:
    """Sort, and join what overlaps or touches."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(pairs):
        if result and low <= result[-1][1] + 1:
            if high > result[-1][1]:
                result[-1] = (result[-1][0], high)
        else:
            result.append((low, high))
    return tuple(result)


def union(one: Ranges, other: Ranges) -> Ranges:
    """What is in either."""
    return normal([*one, *other])


def intersect(one: Ranges, other: Ranges) -> Ranges:
    """What is in both."""
    few, many = (one, other) if len(one) <= len(other) else (other, one)
    result: list[tuple[int, int]] = []
    for low, high in few:
        start, end = _touched(many, low, high)
        result.extend((max(low, left), min(high, right)) for left, right in many[start:end])
    return tuple(result)


def subtract(one: Ranges, other: Ranges) -> Ranges:
    """What is in `one` and not in `other`."""
    for low, high in other:
        start, end = _touched(one, low, high)
        if start < end:
            first, last = one[start][0], one[end - 1][1]
            before = ((first, low - 1),) if first < low else ()
            after = ((high + 1, last),) if high < last else ()
            one = one[:start] + before + after + one[end:]
    return one


def _touched(ranges: Ranges, low: int, high: int) -> tuple[int, int]:
    """The slice of those that share something with low..high: a block list has thousands of them, and cuts few."""
    return bisect_left(ranges, low, key=itemgetter(1)), bisect_right(ranges, high, key=itemgetter(0))


def size(ranges: Ranges) -> int:
    """How many integers."""
    return sum(high - low + 1 for low, high in ranges)


def contains(ranges: Ranges, value: int) -> bool:
    """Whether `value` is one of them."""
    return any(low <= value <= high for low, high in ranges)
