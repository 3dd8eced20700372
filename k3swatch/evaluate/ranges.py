"""Sets of integers as sorted, disjoint, inclusive ranges. Addresses, ports, interface indexes and yes/no all fit.

>>> subtract(((0, 9),), ((3, 4),))
((0, 2), (5, 9))
"""

from __future__ import annotations

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
    result: list[tuple[int, int]] = []
    left = right = 0
    while left < len(one) and right < len(other):
        low = max(one[left][0], other[right][0])
        high = min(one[left][1], other[right][1])
        if low <= high:
            result.append((low, high))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return tuple(result)


def subtract(one: Ranges, other: Ranges) -> Ranges:
    """What is in `one` and not in `other`."""
    result: list[tuple[int, int]] = []
    for start, end in one:
        low = start
        for cut_low, cut_high in other:
            if cut_high < low or cut_low > end:
                continue
            if cut_low > low:
                result.append((low, cut_low - 1))
            low = cut_high + 1
            if low > end:
                break
        if low <= end:
            result.append((low, end))
    return tuple(result)


def size(ranges: Ranges) -> int:
    """How many integers."""
    return sum(high - low + 1 for low, high in ranges)


def contains(ranges: Ranges, value: int) -> bool:
    """Whether `value` is one of them."""
    return any(low <= value <= high for low, high in ranges)
