"""The few fields of Kubernetes objects that are needed, from protobuf's wire format.

Not google.protobuf: it costs the daemon 8 MB for good and wants generated classes, and the bytes come from a file
that may be damaged. What is needed is two wire types and a handful of field numbers (kubernetes api and apimachinery,
`generated.proto`; https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from k3swatch.attribute.cni import name
from k3swatch.errors import DecodeError

MAGIC = b"k8s\0"  # then runtime.Unknown{typeMeta=1, raw=2}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIELDS = 4096  # of one message


@dataclass(frozen=True, slots=True)
class Meta:
    """metav1.ObjectMeta, as far as it matters here."""

    uid: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    owner: tuple[str, str] | None = None  # kind and name of the controller


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of every length-delimited field of one message. DecodeError when it is none."""
    return ((number, value) for number, value in fields(data) if isinstance(value, bytes))


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of every field but those of fixed length: bytes, or the number of a varint. DecodeError."""
    position, count = 0, 0
    while position < len(data):
        key, position = _varint(data, position)
        count += 1
        if count > FIELDS:
            raise DecodeError(f"protobuf: more than {FIELDS} fields")
        wire = key & 7
        if wire == VARINT:
            number, position = _varint(data, position)
            yield key >> 3, number
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        elif wire == BYTES:
            length, position = _varint(data, position)
            if length > len(data) - position:
                raise DecodeError(f"protobuf: {length} bytes at {position}, {len(data) - position} are left")
            yield key >> 3, data[position : position + length]
            position += length
        else:
            raise DecodeError(f"protobuf: wire type {wire} at {position}")


def metadata(value: bytes) -> Meta:
    """The ObjectMeta of a stored object: field 1 of Service, Pod and DaemonSet alike. DecodeError when it has none."""
    if not value.startswith(MAGIC):
        raise DecodeError("no Kubernetes protobuf")
    raw = dict(messages(value[len(MAGIC) :])).get(2, b"")
    uid, labels, owner = None, {}, None
    for number, content in messages(dict(messages(raw)).get(1, b"")):
        if number == 5:
            uid = text(content)
        elif number == 11:
            labels.update(label(content))
        elif number == 13 and owner is None:  # OwnerReference{kind=1, name=3}
            entry = dict(messages(content))
            kind, called = text(entry.get(1, b"")), text(entry.get(3, b""))
            owner = (kind, called) if kind and called else None
    return Meta(uid, labels, owner)


def label(content: bytes) -> dict[str, str]:
    """One entry of a map<string, string>; empty when key or value is."""
    entry = dict(messages(content))
    key, value = text(entry.get(1, b"")), text(entry.get(2, b""))
    return {key: value} if key and value else {}


def text(content: bytes, limit: int = 253) -> str | None:
    """A string field, when it may be a name."""
    return name(content.decode(errors="backslashreplace"), limit)


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited field, as `messages` reads it."""
    length, rest = bytearray(), len(content)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | BYTES, *length, rest]) + content


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise DecodeError("protobuf: cut in a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise DecodeError(f"protobuf: a number of more than 10 bytes at {position}")
