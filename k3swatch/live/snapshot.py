"""A snapshot (capture.py) answers the same questions as the live ruleset: support cases replay anywhere."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k3swatch.decode.chain import decode_chain
from k3swatch.decode.element import decode_elements, elements_of
from k3swatch.decode.hooks import decode_hooks, seen_by
from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import decode_expressions
from k3swatch.decode.rule import decode_rules
from k3swatch.decode.sets import decode_set
from k3swatch.errors import DecodeError, SourceError
from k3swatch.live import beside
from k3swatch.live.capture import KIND, LARGEST, SCHEMA, Document, capture
from k3swatch.live.host import RawHost, decode_host
from k3swatch.live.legacy import LegacyTables, is_legacy
from k3swatch.live.membership import Members
from k3swatch.model.expr import Expr
from k3swatch.model.port import Host
from k3swatch.model.ruleset import BaseChain, ChainRef, Element, Found, Rule, SetInfo
from k3swatch.sources.xtables import LegacyBlob

__all__ = ["SnapshotRuleset", "capture"]

_PARTS = ("tables", "chains", "rules", "sets", "elements")


class SnapshotRuleset:
    """Implements model.ruleset.Ruleset on a snapshot. Set lookups are done here, as the kernel does them."""

    def __init__(self, document: Document) -> None:
        """DecodeError when the document is not a snapshot of this schema and byte order."""
        _require(document, "schema", int, "snapshot")
        if document["schema"] != SCHEMA or document.get("kind") != KIND:
            hint = f"want kind {KIND!r}, schema {SCHEMA}: take it again with this version"
            raise DecodeError(f"snapshot: kind {document.get('kind')!r}, schema {document['schema']}", hint)
        if document.get("byte_order", sys.byteorder) != sys.byteorder:
            hint = f"replay it on a {document['byte_order']}-endian machine"
            raise DecodeError("snapshot: from a machine of another byte order", hint)
        parts = _require(document, "nf_tables", dict, "snapshot")
        tables, chains, rules, sets, elements = (_messages(parts, part, "nf_tables") for part in _PARTS)
        generation = document.get("generation")
        self._generation = generation if isinstance(generation, int) else None
        self._hooks = decode_hooks(tables, chains)
        self._rules: dict[ChainRef, list[Rule]] = {decode_chain(raw)[0]: [] for raw in chains}
        for rule in decode_rules(rules):
            self._rules.setdefault(rule.ref, []).append(rule)
        self._sets = {(info.family, info.table, info.name): info for info in map(decode_set, sets)}
        self._raw_elements: dict[tuple[str, str, str], list[bytes]] = {}
        for raw in elements:
            self._raw_elements.setdefault(elements_of(raw), []).append(raw)
        self._members: dict[SetInfo, Members] = {}
        host = _require(document, "host", dict, "snapshot")
        self._host, self._beside = _raw_host(host), host.get("beside")
        unread = [str(name) for name in _require(document, "legacy", list, "snapshot")]
        self._legacy = LegacyTables(_legacy_blobs(document.get("xtables", [])), unread)

    @classmethod
    def load(cls, path: str | Path) -> SnapshotRuleset:
        """Read a file; DecodeError when it is no snapshot, SourceError when it cannot be read."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(LARGEST * 2)
            document = json.loads(content)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"{path}: not JSON: {error}", hint="made by `k3swatch snapshot`?") from None
        if not isinstance(document, dict):
            raise DecodeError(f"{path}: not a snapshot", hint="made by `k3swatch snapshot`?")
        return cls(document)

    @property
    def generation(self) -> int | None:
        """The generation it was taken at."""
        return self._generation

    def host(self) -> Host:
        """The host as it was."""
        return beside.put(decode_host(self._host), self._beside)

    def refresh(self) -> None:
        """Nothing: a snapshot does not move."""

    def forget(self) -> None:
        """A snapshot is all there is."""

    def check(self) -> None:
        """Nothing: a snapshot does not move."""

    def chains(self) -> Sequence[ChainRef]:
        """All chains, base or not, in dump order; the live ruleset never asks that much."""
        return list(self._rules)

    def base_chains(self, hook: int, nfproto: int) -> Sequence[BaseChain]:
        """See Ruleset.base_chains."""
        legacy = self._legacy.base_chains(hook, nfproto, len(self._hooks))
        return [*seen_by(self._hooks, hook, nfproto), *legacy]

    def rules(self, ref: ChainRef) -> Sequence[Rule]:
        """See Ruleset.rules."""
        if is_legacy(ref):
            return self._legacy.rules(ref)
        if ref not in self._rules:
            raise DecodeError(f"no chain {ref.family} {ref.table} {ref.chain!r}")
        return self._rules[ref]

    def expressions(self, rule: Rule) -> Sequence[Expr]:
        """See Ruleset.expressions."""
        if is_legacy(rule.ref):
            return self._legacy.expressions(rule)
        return decode_expressions(rule.raw, NFPROTO.get(rule.ref.family, 0))

    def set_info(self, family: str, table: str, name: str) -> SetInfo:
        """See Ruleset.set_info."""
        if (family, table, name) not in self._sets:
            raise DecodeError(f"no set {family} {table} {name!r}")
        return self._sets[family, table, name]

    def lookup(self, info: SetInfo, key: bytes) -> Found | None:
        """See Ruleset.lookup."""
        if len(key) < info.key_length:
            raise DecodeError(f"set {info.name}: key of {len(key)} bytes, want {info.key_length}")
        if info not in self._members:
            self._members[info] = Members(self._elements(info), info)
        return self._members[info].lookup(key[: info.key_length])

    def elements(self, info: SetInfo, limit: int) -> Sequence[Element] | None:
        """See Ruleset.elements."""
        found = self._elements(info)
        return found if len(found) <= limit else None

    def _elements(self, info: SetInfo) -> list[Element]:
        return decode_elements(self._raw_elements.get((info.family, info.table, info.name), ()), info)

    def legacy_tables(self) -> tuple[str, ...]:
        """The iptables-legacy tables there were, as `ip nat`, whose rules are not among these answers."""
        return self._legacy.unread


def _require(document: Document, key: str, kind: type, where: str) -> Any:
    value = document.get(key)
    if not isinstance(value, kind):
        raise DecodeError(f"{where}: {key}: want {kind.__name__}")
    return value


def _messages(document: Document, key: str, where: str) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in _require(document, key, list, where)]
    except (binascii.Error, ValueError, TypeError):
        raise DecodeError(f"{where}: {key}: not base64") from None


def _legacy_blobs(tables: Any) -> list[LegacyBlob]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise DecodeError("snapshot: xtables: want list of tables")
    found: list[LegacyBlob] = []
    for table in tables:
        family, name = _require(table, "family", str, "xtables"), _require(table, "table", str, "xtables")
        if family not in ("ip", "ip6"):
            raise DecodeError(f"xtables: family {family!r}")
        info, entries = (b"".join(_messages(table, key, "xtables")) for key in ("info", "entries"))
        found.append(LegacyBlob(family, name, info, entries))
    return found


def _raw_host(document: Document) -> RawHost:
    def read(key: str) -> list[bytes] | None:
        return None if document.get(key) is None else _messages(document, key, "host")

    unreadable = tuple(str(line) for line in _require(document, "unreadable", list, "host"))
    name = _require(document, "name", str, "host")
    addresses, links, tcp, udp = (read(part) for part in ("addresses", "links", "tcp", "udp"))
    virtual = read("ipvs") if "ipvs" in document else []  # a snapshot from before it was read
    calls = document.get("bridge", {})
    bridge = {str(key): str(value) for key, value in calls.items()} if isinstance(calls, dict) else {}
    partial = document.get("partial") is True
    later = (read("routes"), read("rules"), virtual, bridge, read("queues"), read("sysctls"), partial)
    return RawHost(name, addresses, links, tcp, udp, unreadable, *later)
