"""Sets of integers as ranges, compared with sets of integers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from k3swatch.evaluate.ranges import Ranges, intersect, normal, subtract, union

some = st.sets(st.integers(0, 60))


def ranges(numbers: set[int]) -> Ranges:
    return normal([(number, number) for number in numbers])


def numbers(found: Ranges) -> set[int]:
    """What they hold; they must be sorted, disjoint and not empty."""
    flat = [edge for pair in found for edge in pair]
    assert flat == sorted(flat)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(found))
    return {number for low, high in found for number in range(low, high + 1)}


@given(some, some)
def test_as_sets_do(one: set[int], other: set[int]) -> None:
    assert numbers(ranges(one)) == one
    assert numbers(union(ranges(one), ranges(other))) == one | other
    assert numbers(intersect(ranges(one), ranges(other))) == one & other
    assert numbers(subtract(ranges(one), ranges(other))) == one - other


def test_words() -> None:
    assert subtract(((0, 9),), ((3, 4),)) == ((0, 2), (5, 9))
    assert subtract(((0, 9),), ((0, 3), (9, 20))) == ((4, 8),)
    assert intersect(((0, 2), (5, 9)), ((2, 6),)) == ((2, 2), (5, 6))
