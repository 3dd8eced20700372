"""The configuration files of a K3s or RKE2: config.yaml, then config.yaml.d/*.yaml by name.

A module of its own because of what it imports: `k3swatch check` on a host without such a file must start fast.
"""

from __future__ import annotations

from collections.abc import Iterator

from k3swatch.attribute.root import Root
from k3swatch.config.document import Problems, Value, compose
from k3swatch.errors import ConfigError

SIZE, MOST = 64 << 10, 32  # bytes of one file, files in the directory


def documents(root: Root, path: str, troubles: list[str]) -> Iterator[dict[str, object]]:
    """What is in them, one after the other; one that is no YAML is named in `troubles` and left out."""
    names = sorted(name for name in root.names(f"{path}.d") if name.endswith((".yaml", ".yml")))
    for file in (path, *(f"{path}.d/{name}" for name in names[:MOST])):
        text = root.text(file, SIZE)
        if text is None:
            continue
        try:
            tree = _plain(compose(text, file, Problems()))
        except ConfigError as error:
            troubles.append(error.problems[0])
            continue
        if isinstance(tree, dict):
            yield tree


def _plain(value: Value) -> object:
    if isinstance(value.data, dict):
        return {key: _plain(each) for key, each in value.data.items()}
    return [_plain(each) for each in value.data] if isinstance(value.data, list) else value.data
