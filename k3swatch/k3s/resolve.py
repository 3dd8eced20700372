"""The ports that are protected: those the operator wrote down, and those of the K3s that is here."""

from __future__ import annotations

from dataclasses import dataclass

from k3swatch.attribute.root import Root
from k3swatch.clock import Clock
from k3swatch.config import Config
from k3swatch.config.settings import MAX_PORTS
from k3swatch.k3s import ports
from k3swatch.k3s.find import Found, find, signature
from k3swatch.model.port import ProtectedPort

SECONDS = 2.0  # for looking through the processes


@dataclass(frozen=True, slots=True)
class Resolved:
    """`ports` in force; `found` is the K3s they are of, None when none was looked for or there is none."""

    ports: tuple[ProtectedPort, ...]
    found: Found | None = None
    signature: object = None


def resolve(config: Config, directory: str, clock: Clock | None = None) -> Resolved | None:
    """Look for K3s below `directory` if the configuration wants it; None when that took too long. Never raises."""
    if not config.k3s.auto:
        return Resolved(config.ports)
    with Root(directory, clock, SECONDS) as root:
        found = find(root)
        seen = signature(root, found)
        spent = root.spent
    return None if spent else Resolved(together(config, found), found, seen)


def moved(config: Config, before: Resolved, directory: str, clock: Clock | None = None) -> bool:
    """Whether K3s is another process than it was."""
    if not config.k3s.auto:
        return False
    with Root(directory, clock) as root:
        return signature(root, before.found) != before.signature and not root.spent


def together(config: Config, found: Found | None) -> tuple[ProtectedPort, ...]:
    """What the operator wrote wins: K3s's ports are added where neither port nor name is taken."""
    if found is None:
        return config.ports
    own = ports.of(found.settings, found.listener)
    wanted = [each for each in own if not config.k3s.only or each.name in config.k3s.only]
    given = list(config.ports) if config.ports_given else []
    for each in wanted:
        if all(each.spec != other.spec and each.name != other.name for other in given):
            given.append(each)
    return tuple(given[:MAX_PORTS]) or config.ports
