"""Which paths to the API work, in words. What a certificate says is written by whoever made it: escaped. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.model.way import Answer, Way
from k3swatch.view.escape import escape

NAME = 80  # characters of one name


def works(ways: Sequence[Way]) -> str:
    """`kubectl works through https://127.0.0.1:6444 (KUBECONFIG=...), https://10.43.0.1:443`; empty: none was tried."""
    if not ways:
        return ""
    verified = [_way(way) for way in ways if way.answer is Answer.VERIFIED]
    if verified:
        return f"kubectl works through {', '.join(verified)}"
    answering = [way for way in ways if way.answer is Answer.ANSWERS]
    if answering:
        issuers = list(dict.fromkeys(escape(way.issuer, NAME) for way in answering if way.issuer))
        by = f" with a certificate issued by {', '.join(issuers[:2])}" if issuers else ""
        return (
            f"the API answers at {', '.join(map(_way, answering))}{by}, not checked: its CA may not be read"
        )
    return f"no way to the API was found: {', '.join(f'{way.url} {_reason(way)}' for way in ways)}"


def _way(way: Way) -> str:
    return way.url + (f" (KUBECONFIG={escape(way.kubeconfig, 2 * NAME)})" if way.kubeconfig else "")


def _reason(way: Way) -> str:
    if way.answer is Answer.STRANGER:
        return f"is another cluster's (issuer {escape(way.issuer or 'unknown', NAME)})"
    return escape(way.why or way.answer, NAME)
