"""The file that `restore --apply` writes before it changes anything, and that `--rollback` reads.

    {"schema": 1, "kind": "k3swatch-restore", "port": "tcp/6443", "taken_at": 1732345678.9, "generation": 42,
     "removed": [{"what": "rule", "text": "...", "family": "ip", "table": "nat", "chain": "CNI-DN-...", "handle": 15,
                  "message": "<base64>", "chain_before": [[14, "<digest>"], [15, "<digest>"]],
                  "sets": [{"name": "__set0", "message": "<base64>", "elements": ["<base64>"]}]},
                 {"what": "element", "text": "...", "family": "ip", "table": "kube-proxy", "set": "service-ips",
                  "element": "<base64>"}],
     "snapshot": {}}

`snapshot` is the whole of the ruleset, as `k3swatch snapshot` writes it. The messages are the kernel's own. A file that
is read again is bounded and checked; that it is the right one is up to who names it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from typing import Any, Final

from k3swatch.errors import DecodeError, SourceError
from k3swatch.live.saved import Saved, SavedElement, SavedRule, SavedSet

SCHEMA: Final = 1
KIND: Final = "k3swatch-restore"
LARGEST: Final = 512 << 20

Document = dict[str, Any]


def document(port: str, generation: int, saved: Sequence[Saved], snapshot: Document) -> Document:
    """The file's content."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "port": port,
        "taken_at": snapshot["taken_at"],
        "generation": generation,
        "removed": [_encoded(each) for each in saved],
        "snapshot": snapshot,
    }


def write(directory: str, name: str, content: Document) -> str:
    """Write a new file, for root alone, and see it on the disk; its path. SourceError when that cannot be.

    The directory may belong to the daemon's user: no link in it is followed, and no file overwritten.
    """
    path = os.path.join(directory, name)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        where = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=where), "w", encoding="ascii") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.fsync(where)
        finally:
            os.close(where)
    except OSError as error:
        hint = "nothing was changed; give a directory with -o"
        raise SourceError(f"{path}: {error.strerror}", hint) from error
    return path


def read(path: str) -> tuple[str, list[Saved]]:
    """The port and what was removed. SourceError when it cannot be read, DecodeError when it is no such file."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(LARGEST))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{path}: not JSON: {error}", "made by `k3swatch restore --apply`?") from None
    if not isinstance(content, dict) or (content.get("kind"), content.get("schema")) != (KIND, SCHEMA):
        raise DecodeError(f"{path}: not a file of `k3swatch restore --apply`, or of another version")
    try:
        return str(content["port"]), [_decoded(each) for each in content["removed"]]
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise DecodeError(f"{path}: damaged: {error!r:.120}") from None


def _encoded(saved: Saved) -> Document:
    if isinstance(saved, SavedElement):
        return {
            "what": "element",
            "text": saved.text,
            "family": saved.family,
            "table": saved.table,
            "set": saved.set,
            "element": _text(saved.element),
        }
    return {
        "what": "rule",
        "text": saved.text,
        "family": saved.family,
        "table": saved.table,
        "chain": saved.chain,
        "handle": saved.handle,
        "message": _text(saved.message),
        "chain_before": [list(each) for each in saved.chain_before],
        "sets": [
            {"name": each.name, "message": _text(each.message), "elements": list(map(_text, each.elements))}
            for each in saved.sets
        ],
    }


def _decoded(item: Document) -> Saved:
    head = (str(item["text"]), str(item["family"]), str(item["table"]))
    if item["what"] == "element":
        return SavedElement(*head, str(item["set"]), _bytes(item["element"]))
    if item["what"] != "rule":
        raise ValueError(f"what: {item['what']!r:.40}")
    handle = int(item["handle"])
    before = tuple((int(number), str(content)) for number, content in item["chain_before"])
    if handle not in dict(before):
        raise ValueError(f"rule {handle} is not in its own chain")
    sets = tuple(
        SavedSet(str(each["name"]), _bytes(each["message"]), tuple(map(_bytes, each["elements"])))
        for each in item["sets"]
    )
    return SavedRule(*head, str(item["chain"]), handle, _bytes(item["message"]), before, sets)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
