"""Take a support case: everything of a network namespace that decides, as the kernel sent it, in one
document.

    {"schema": 1, "kind": "k3swatch-snapshot", "taken_at": 1732345678.9,
     "kernel": "6.1.0", "byte_order": "little", "generation": 42,
     "nf_tables": {"tables": [], "chains": [], "rules": [], "sets": [], "elements": []},
     "legacy": ["ip6 nat"], "xtables": [{"family": "ip", "table": "nat", "info": [], "entries": []}],
     "host": {"name": "node1", "addresses": [], "links": [], "tcp": [], "udp": [], "unreadable": [],
              "routes": [], "rules": [], "ipvs": [], "bridge": {"ip": "1", "ip6": "1"}, "queues": [],
              "sysctls": [], "partial": false, "beside": {}}}

Every message (and every iptables-legacy table, under xtables) is base64 of what the kernel sent, so nothing
is lost that this version does not understand. `legacy` names the legacy tables that could not be read.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterable
from typing import Any, Final

from k3swatch.decode.chain import decode_chain
from k3swatch.decode.generation import decode_newgen
from k3swatch.decode.sets import decode_set
from k3swatch.errors import Interrupted, SourceError
from k3swatch.live import beside
from k3swatch.live.host import decode_host, read_raw_host
from k3swatch.live.legacy import read_legacy
from k3swatch.sources.nftables import NftablesSource

SCHEMA: Final = 1
KIND: Final = "k3swatch-snapshot"
LARGEST: Final = 256 << 20  # bytes of all messages
_TRIES = 10

Document = dict[str, Any]


def capture(source: NftablesSource, taken_at: float) -> Document:
    """Everything of this network namespace at one generation; `taken_at` in seconds since the epoch.

    Raises what NftablesSource does, and SourceError when it is too large or never holds still.
    """
    for _ in range(_TRIES):
        try:
            generation = decode_newgen(source.generation()).id
            parts = _read(source)
            legacy, unread = read_legacy()
            if decode_newgen(source.generation()).id != generation:
                continue
        except Interrupted:
            continue
        host = read_raw_host()
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "taken_at": taken_at,
            "kernel": os.uname().release,
            "byte_order": sys.byteorder,
            "generation": generation,
            "legacy": unread,
            "xtables": [
                {
                    "family": blob.family,
                    "table": blob.table,
                    "info": _encode([blob.info]),
                    "entries": _encode([blob.entries]),
                }
                for blob in legacy
            ],
            "nf_tables": {part: _encode(messages) for part, messages in parts.items()},
            "host": {
                "name": host.name,
                "addresses": _encode(host.addresses),
                "links": _encode(host.links),
                "tcp": _encode(host.tcp),
                "udp": _encode(host.udp),
                "routes": _encode(host.routes),
                "rules": _encode(host.rules),
                "ipvs": _encode(host.ipvs),
                "bridge": host.bridge,
                "queues": _encode(host.queues),
                "sysctls": _encode(host.sysctls),
                "partial": host.partial,
                "unreadable": list(host.unreadable),
                "beside": beside.read(decode_host(host)),
            },
        }
    raise SourceError(f"nf_tables: changed in each of {_TRIES} attempts to read it", hint="try again")


def _encode(messages: Iterable[bytes] | None) -> list[str] | None:
    return None if messages is None else [base64.b64encode(message).decode("ascii") for message in messages]


def _read(source: NftablesSource) -> dict[str, list[bytes]]:
    """All messages, rules chain by chain and elements set by set: a dump of everything would hardly ever
    finish.
    """
    parts = {"tables": source.tables(), "chains": source.chains(), "sets": source.sets()}
    rules: list[bytes] = []
    elements: list[bytes] = []
    size = sum(len(message) for messages in parts.values() for message in messages)
    for raw in parts["chains"]:
        ref, _ = decode_chain(raw)
        found = source.rules(ref.family, ref.table, ref.chain)
        size = _grown(size, found)
        rules += found
    for raw in parts["sets"]:
        info = decode_set(raw)
        inside = source.elements(info.family, info.table, info.name, LARGEST)
        if inside is None:
            raise SourceError(f"nf_tables: set {info.name} has more than {LARGEST >> 20} MB of elements")
        size = _grown(size, inside)
        elements += inside
    return {**parts, "rules": rules, "elements": elements}


def _grown(size: int, messages: Iterable[bytes]) -> int:
    size += sum(map(len, messages))
    if size > LARGEST:
        raise SourceError(f"nf_tables: more than {LARGEST >> 20} MB of rules and elements")
    return size
