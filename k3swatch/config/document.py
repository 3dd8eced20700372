"""A YAML file as a tree of plain values that remember their line.

Only what SafeLoader knows; no anchors or aliases (nobody needs them here, and they are how a small file
becomes a big one), bounded size and depth. Repeated keys are an error, not "the last one wins".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from k3swatch.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 16


@dataclass(slots=True)
class Problems:
    """What is wrong with a file, each with its line and key path."""

    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, key: str, text: str) -> None:
        """One problem at `line`, about `key` (empty: the file as a whole)."""
        self.found.append((line, (f"{key}: {text}" if key else text)[:300]))

    def lines(self, path: str) -> list[str]:
        """All of them as `file:line: key: what`, by line."""
        return [f"{path}:{line}: {text}" for line, text in sorted(self.found, key=lambda found: found[0])]


@dataclass(frozen=True, slots=True)
class Value:
    """One YAML value and the line it starts in."""

    data: str | int | float | bool | list[Value] | dict[str, Value] | None
    line: int  # 1 is the first line of the file

    @property
    def kind(self) -> str:
        """What it is, in the words of an error message."""
        if self.data is None:
            return "nothing"
        if isinstance(self.data, bool):
            return "true or false"
        if isinstance(self.data, int | float):
            return "a number"
        if isinstance(self.data, str):
            return "text"
        return "a list" if isinstance(self.data, list) else "a mapping"


def read(path: str) -> str:
    """The text of the file at `path`. Raises ConfigError when it cannot be read, is too big or not UTF-8."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"], path) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError([f"{path}: bigger than {MAX_BYTES} bytes"], path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8"], path) from error


def compose(text: str, path: str, problems: Problems) -> Value:
    """The tree of one YAML document; an empty file is an empty mapping.

    Repeated keys go to `problems`; raises ConfigError where there is no tree, that is on bad syntax.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return Value({}, 1) if node is None else _value(loader, node, "", problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError([f"{where}: {error.problem or error.context}"], path) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{path}:{line}: a character YAML does not allow"], path) from error
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not supported", event.start_mark
            )
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH}", event.start_mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _value(loader: _Loader, node: yaml.Node, key: str, problems: Problems) -> Value:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Value] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.add(at, key, "a key must be a word")
                continue
            name = key_node.value
            child = f"{key}.{name}" if key else name
            if name in entries:
                problems.add(at, child, f"given twice, first in line {entries[name].line}")
                continue
            entries[name] = _value(loader, value_node, child, problems)
        return Value(entries, line)
    if isinstance(node, yaml.SequenceNode):
        items = [_value(loader, item, f"{key}[{i}]", problems) for i, item in enumerate(node.value)]
        return Value(items, line)
    try:
        data = loader.construct_object(node)
    except (ValueError, OverflowError):
        data = node.value
    return Value(data if isinstance(data, str | int | float | bool | None) else node.value, line)
