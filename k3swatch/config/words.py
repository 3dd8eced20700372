"""Texts -> values. Each function returns the value or raises ValueError that says what is wrong with it."""

from __future__ import annotations

import ipaddress
import string
from datetime import datetime
from urllib.parse import urlsplit

from k3swatch.config.settings import ListenAddress
from k3swatch.model.port import Network, ProtectedPort
from k3swatch.model.words import Protocol

_LABEL = frozenset(string.ascii_letters + string.digits + "._-")


def label(text: str) -> str:
    """A name that is also a metric label and a journal field: letters, digits, `.`, `_`, `-`; at most 63."""
    if len(text) > 63 or not _LABEL.issuperset(text):
        raise ValueError("want at most 63 letters, digits, '.', '_' or '-'")
    return text


def network(text: str) -> Network:
    """An address or a CIDR whose host bits are zero."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        wide = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text} is neither an address nor a CIDR") from None
    raise ValueError(f"{text} has host bits set, did you mean {wide}?")


def listen(text: str) -> ListenAddress:
    """`127.0.0.1:10643` or `[::1]:10643`; port 0 lets the kernel choose (tests)."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text}: want ADDRESS:PORT, as in 127.0.0.1:10643 or [::1]:10643")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f"{host} is not an address; use 0.0.0.0 or [::] for all") from None
    if bracketed != (address.version == 6):
        raise ValueError(f"{text}: IPv6 addresses, and only those, go in brackets: [::1]:10643")
    return ListenAddress(str(address), _number(port, 0))


def url(text: str) -> str:
    """An http or https base URL without query; a trailing slash is dropped."""
    try:
        parts = urlsplit(text)
        wrong_port = parts.port == 0
    except ValueError:
        raise ValueError(f"{text} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or wrong_port:
        raise ValueError(f"{text}: want http://HOST[:PORT] or https://HOST[:PORT]")
    if parts.query or parts.fragment or " " in text:
        raise ValueError(f"{text}: want only scheme, host, port and path")
    return text.rstrip("/")


def absolute(text: str) -> str:
    """An absolute path."""
    if not text.startswith("/"):
        raise ValueError(f"{text} is not an absolute path")
    return text


def socket_path(text: str) -> str:
    """An absolute path that fits in sun_path (108 bytes with its NUL, `uapi/linux/un.h`)."""
    if len(absolute(text).encode()) > 107:
        raise ValueError("longer than 107 bytes, the most a Unix socket can be named")
    return text


def pod(text: str) -> str:
    """`namespace/name-glob`."""
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise ValueError(f"{text}: want NAMESPACE/NAME, where NAME may have * and ?")
    return text


def port_spec(text: str) -> ProtectedPort:
    """`tcp/6443` or `6443`, as the command line writes a port; on every address of this host."""
    protocol, slash, number = text.partition("/")
    if not slash and text.isascii() and text.isdigit():
        protocol, number = Protocol.TCP, text
    elif protocol not in tuple(Protocol) or not slash:
        raise ValueError(f"{text}: want tcp/PORT or udp/PORT")
    port = _number(number, 1)
    return ProtectedPort(f"{protocol}-{port}", port, Protocol(protocol))


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def since(text: str, now: float) -> float:
    """`90s`, `30m`, `2h`, `1d`, `1w` ago; `2026-11-23`, `2026-11-23T07:12` (local): seconds since the epoch."""
    number, unit = text[:-1], text[-1:]
    if unit in _SECONDS and number.isascii() and number.isdigit() and len(number) <= 9:
        return max(0.0, now - int(number) * _SECONDS[unit])
    try:
        at = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text}: want 2h, 1d or a date, as in 2026-11-23 or 2026-11-23T07:12") from None
    if at > now:
        raise ValueError(f"{text} has not been yet")
    return max(0.0, at)


def _number(text: str, low: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and low <= int(text) <= 65535):
        raise ValueError(f"port {text or '(none)'} is not in {low}..65535")
    return int(text)
