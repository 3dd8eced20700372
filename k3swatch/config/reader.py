"""A cursor over the tree of a configuration file that collects every problem instead of stopping at one.

Getters return the value, or None when it is wrong; what was wrong is in `problems`, each with line and key
path. Nothing raises, so one run reports all.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from k3swatch.config.document import Problems, Value

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reader:
    """One value at one key path."""

    value: Value
    key: str
    problems: Problems

    def fail(self, text: str) -> None:
        """Note a problem with this value."""
        self.problems.add(self.value.line, self.key, text)

    def child(self, name: str) -> Reader | None:
        """The reader of key `name`; None when it is absent (or this is no mapping, which `keys` reports)."""
        data = self.value.data
        if not isinstance(data, dict) or name not in data:
            return None
        return Reader(data[name], f"{self.key}.{name}" if self.key else name, self.problems)

    def keys(self, known: Iterable[str]) -> bool:
        """Whether this is a mapping; keys not in `known` are problems, told with the nearest known one."""
        data = self.value.data
        if not isinstance(data, dict):
            self.fail(f"want a mapping, not {self.value.kind}")
            return False
        names = list(known)
        for name, value in data.items():
            if name in names:
                continue
            near = difflib.get_close_matches(name[:64], names, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f", known are: {', '.join(names)}"
            key = f"{self.key}.{name[:64]}" if self.key else name[:64]
            self.problems.add(value.line, key, f"unknown key{hint}")
        return True

    def items(self) -> Iterator[Reader]:
        """One reader for each item of a list."""
        if not isinstance(self.value.data, list):
            self.fail(f"want a list, not {self.value.kind}")
            return
        for index, item in enumerate(self.value.data):
            yield Reader(item, f"{self.key}[{index}]", self.problems)

    def text(self) -> str | None:
        """Text that is not empty and has no control characters."""
        data = self.value.data
        if not isinstance(data, str):
            self.fail(f"want text, not {self.value.kind}")
            return None
        if not data or not data.isprintable():
            self.fail("must not be empty" if not data else "must not contain control characters")
            return None
        return data

    def flag(self) -> bool | None:
        """true or false."""
        if not isinstance(self.value.data, bool):
            self.fail(f"want true or false, not {self.value.kind}")
            return None
        return self.value.data

    def integer(self, low: int, high: int) -> int | None:
        """A whole number in low..high."""
        data = self.value.data
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail(f"want a whole number, not {self.value.kind}")
            return None
        if not low <= data <= high:
            self.fail(f"{data} is not in {low}..{high}")
            return None
        return data

    def choice(self, words: Iterable[str]) -> str | None:
        """One of `words`."""
        options = list(words)
        if self.value.data not in options:
            self.fail(f"want one of {', '.join(options)}")
            return None
        return str(self.value.data)

    def parsed(self, parse: Callable[[str], T]) -> T | None:
        """Text through `parse`, whose ValueError says what is wrong with it."""
        text = self.text()
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.fail(str(error))
            return None
