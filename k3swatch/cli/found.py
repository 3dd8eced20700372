"""The K3s that was found and its ports, in words: for `config check`. What it was told may be hostile: escaped."""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.k3s.resolve import Resolved
from k3swatch.model.port import LOCAL, ProtectedPort
from k3swatch.view.escape import escape


def text(resolved: Resolved, given: Sequence[ProtectedPort]) -> str:
    """One line for who was found, one for each port of theirs. `given`: those that the configuration itself lists."""
    found = resolved.found
    if found is None:
        return "k3s: found no K3s or RKE2 here"
    lines = [f"k3s: found {escape(found.said)}"]
    lines += [f"  {_port(port)}" for port in resolved.ports if port not in given]
    return "\n".join(
        [*lines, *(f"  not understood: {escape(each, 200)}" for each in found.settings.troubles)]
    )


def _port(port: ProtectedPort) -> str:
    where = "" if port.addresses == (LOCAL,) else f" on {', '.join(map(_address, port.addresses))}"
    who = escape(port.listener.unit or ", ".join(port.listener.exe), 200)
    return f"{port.spec} ({port.name}){where}: " + (f"listener {who}" if who else "any listener")


def _address(address: object) -> str:
    return str(address).removesuffix("/32").removesuffix("/128")
