"""iptables-legacy tables. Asking for one by getsockopt creates it and registers its hooks, so look here
first.
"""

from __future__ import annotations

from pathlib import Path

from k3swatch.errors import NotPermitted, SourceError

# Of the calling thread's network namespace; each lists the tables that exist, one a line.
_NAMES = {"ip": "/proc/thread-self/net/ip_tables_names", "ip6": "/proc/thread-self/net/ip6_tables_names"}


def legacy_table_names() -> tuple[str, ...]:
    """The tables that exist, as `ip nat`, `ip6 filter`; empty where iptables-legacy was never used."""
    found: list[str] = []
    for family, path in _NAMES.items():
        try:
            names = Path(path).read_text(encoding="ascii", errors="backslashreplace")
        except FileNotFoundError:
            continue  # no ip_tables in this kernel
        except PermissionError as error:
            raise NotPermitted(f"{path}: {error.strerror}", hint="run it as root") from error
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        found += [f"{family} {name}" for name in names.split()]
    return tuple(found)
