"""Every error k3swatch raises on purpose. Each is one line that says what and where, plus a hint what to do."""

from __future__ import annotations


class K3swatchError(Exception):
    """Base. `hint` is shown after the message, on its own line."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(K3swatchError):
    """The operator's configuration is wrong: all problems at once, each with key path and line."""

    def __init__(self, problems: list[str], path: str = "") -> None:
        super().__init__("; ".join(problems), hint="see `man k3swatch-config` or docs/configuration.md")
        self.problems = problems
        self.path = path


class UsageError(K3swatchError):
    """The command line asks for something that cannot be meant: exit status 64."""


class DecodeError(K3swatchError):
    """The kernel (or a file) gave bytes that do not fit; the message reads as a path to them."""


class SourceError(K3swatchError):
    """A source cannot be read now: netlink refused, probe not loadable, socket gone."""


class NotPermitted(SourceError):
    """The kernel refuses because of missing privileges (EPERM, EACCES)."""


class Unsupported(SourceError):
    """This kernel lacks what the source needs (no nf_tables, no BTF, ...)."""


class Interrupted(SourceError):
    """The ruleset changed while it was being read (NLM_F_DUMP_INTR or another generation): read again."""
