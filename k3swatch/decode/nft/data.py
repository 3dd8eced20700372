"""What expressions are made of: registers, NFTA_DATA_VALUE and NFTA_DATA_VERDICT.

NFTA_DATA_VALUE     binary, at most 64 bytes
NFTA_DATA_VERDICT
    NFTA_VERDICT_CODE    be32, enum nft_verdicts
    NFTA_VERDICT_CHAIN   name, for jump and goto
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Code, Verdict

_VALUE, _VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2


def register(attributes: Attributes, kind: int) -> int:
    """A register as the kernel numbers it: 0 verdict, 1..4 of 16 bytes, 8..23 of 4 bytes."""
    number = attributes.be32(kind)
    if not (0 <= number <= 4 or 8 <= number <= 23):
        raise DecodeError(f"{attributes.where}: no register {number}")
    return number


def register_or_none(attributes: Attributes, kind: int) -> int | None:
    """A register that may be left out."""
    return register(attributes, kind) if kind in attributes else None


def data(attributes: Attributes, kind: int) -> tuple[bytes, Verdict | None]:
    """A nested NFTA_DATA: the value, or empty bytes and the verdict."""
    nested = attributes.nested(kind, f"data {kind}", known=2)
    if _VERDICT in nested:
        verdict = nested.nested(_VERDICT, "verdict")
        code = verdict.be32(_VERDICT_CODE)
        code -= (code & 0x80000000) << 1  # signed
        if code in (Code.JUMP, Code.GOTO):
            return b"", Verdict(code, verdict.text(_VERDICT_CHAIN))
        return b"", Verdict(code)
    return nested.raw(_VALUE), None


def value(attributes: Attributes, kind: int) -> bytes:
    """A nested NFTA_DATA that must be a value."""
    constant, verdict = data(attributes, kind)
    if verdict is not None:
        raise DecodeError(f"{attributes.where}: attribute {kind} is a verdict, want a value")
    return constant
