"""Whether br_netfilter has every bridge of this network namespace show its frames to the hooks of IP
(net.bridge.bridge-nf-call-iptables, -ip6tables). Follows `net/bridge/br_netfilter_hooks.c`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from k3swatch.errors import SourceError

_SETTINGS: Final = {"ip": "iptables", "ip6": "ip6tables"}  # by the family whose hooks are called


def bridge_calls() -> dict[str, str]:
    """The settings as they read, `0` or `1`, by family: `ip`, `ip6`. Empty where the module is not loaded."""
    found: dict[str, str] = {}
    for family, name in _SETTINGS.items():
        path = Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}")
        try:
            found[family] = path.read_text(encoding="ascii", errors="replace").strip()[:8]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
    return found
