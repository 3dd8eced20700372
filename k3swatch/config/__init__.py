"""The operator's configuration: a YAML file in, one frozen Config out, or every problem at once.

With no file at all it protects tcp/6443 on every address of this host and works. `yaml` is imported only when
there is a file to read: `k3swatch check` without one must start fast.
"""

from __future__ import annotations

from k3swatch.config.settings import (
    Alertmanager,
    Config,
    Control,
    Journal,
    K3s,
    ListenAddress,
    Metrics,
    StateDirectory,
    Tls,
    defaults,
)

__all__ = [
    "Alertmanager",
    "Config",
    "Control",
    "Journal",
    "K3s",
    "ListenAddress",
    "Metrics",
    "StateDirectory",
    "Tls",
    "defaults",
    "load",
    "parse",
]


def load(path: str | None) -> Config:
    """The configuration in the file at `path`; the defaults when `path` is None.

    Raises ConfigError with all problems, also when the file cannot be read.
    """
    if path is None:
        return defaults()
    from k3swatch.config.document import read

    return parse(read(path), path)


def parse(text: str, path: str = "<text>") -> Config:
    """The configuration in `text`; `path` is only what messages call it. Raises ConfigError."""
    from k3swatch.config.document import Problems, compose
    from k3swatch.config.schema import build

    problems = Problems()
    return build(compose(text, path, problems), path, problems)
