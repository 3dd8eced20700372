"""Tables, chains, rules and sets as values, and the three questions the evaluator asks of a ruleset.

Live, snapshot and test rulesets all answer the same `Ruleset` protocol; only the chains that a packet reaches are
ever read or decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from k3swatch.model.expr import Expr, Verdict

# enum nft hook numbers, `uapi/linux/netfilter.h` (NF_INET_*)
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)

# enum nft_set_flags
SET_ANONYMOUS, SET_CONSTANT, SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_EVAL = 1, 2, 4, 8, 16, 32
SET_OBJECT, SET_CONCAT = 64, 128

TABLE_DORMANT = 1  # enum nft_table_flags

GUARD_FAMILY, GUARD_TABLE = "inet", "k3swatch_guard"  # what `k3swatch guard on` makes

LEGACY = "legacy"  # prefix of the family of iptables-legacy tables: "legacy ip"


@dataclass(frozen=True, slots=True)
class ChainRef:
    """Where a chain is: family as nft writes it (ip, ip6, inet, netdev, bridge, arp)."""

    family: str
    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that hangs in a hook. `order` is its position in the dump (table creation order, see facts)."""

    ref: ChainRef
    type: str  # filter, nat, route
    hook: int
    priority: int
    policy: int  # Code.ACCEPT or Code.DROP
    order: int
    handle: int = 0
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `exprs` are decoded when asked for through Ruleset.expressions: `raw` is NFTA_RULE_EXPRESSIONS."""

    ref: ChainRef
    handle: int
    raw: bytes
    comment: str | None = None  # native comment (userdata TLV 0); an xt comment is in the expressions
    # What the first match asks, when it is a plain equality on the destination address: the evaluator skips the
    # rule without decoding it when the packet's destination is another. None: must be decoded.
    daddr: bytes | None = None

    def __hash__(self) -> int:
        """Of what tells most rules apart: a look asks for it very often."""
        return hash((self.handle, self.raw))


@dataclass(frozen=True, slots=True)
class SetInfo:
    """A set's or map's shape. `fields` are the byte lengths of the concatenated key parts (unpadded), one if plain."""

    family: str
    table: str
    name: str
    flags: int
    key_length: int
    key_type: int = 0
    data_type: int = 0
    data_length: int = 0
    fields: tuple[int, ...] = ()
    timeout: int = 0

    @property
    def is_map(self) -> bool:
        """Whether elements carry data or verdicts."""
        return bool(self.flags & SET_MAP)


@dataclass(frozen=True, slots=True)
class Element:
    """One set element: inclusive `low`..`high` keys (equal for a single one; padded to 4 bytes a field as the
    kernel has it); for maps the data or the verdict. `catchall`: matches whatever no other element does."""

    low: bytes
    high: bytes
    data: bytes | None = None
    verdict: Verdict | None = None
    catchall: bool = False
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to one set lookup that hit; data or verdict for maps."""

    data: bytes | None = None
    verdict: Verdict | None = None


class Ruleset(Protocol):
    """What the evaluator asks. Every method may raise SourceError or DecodeError: what could not be read is unknown.

    `Interrupted` passes through the evaluator: the answer would mix two generations, so the caller starts again.
    """

    @property
    def generation(self) -> int | None:
        """The nf_tables generation id all answers belong to; None when it is not known (a hand-made snapshot)."""
        ...

    def base_chains(self, hook: int, nfproto: int) -> Sequence[BaseChain]:
        """Base chains of tables that see this family (2 ip, 10 ip6: the family's own and inet), in dump order.

        Dormant tables are left out. iptables-legacy tables answer too, with family `legacy ip` / `legacy ip6`.
        """
        ...

    def rules(self, ref: ChainRef) -> Sequence[Rule]:
        """The rules of one chain, in order. An unknown chain raises DecodeError."""
        ...

    def expressions(self, rule: Rule) -> Sequence[Expr]:
        """The decoded expressions of a rule; never raises: what does not fit is an Opaque."""
        ...

    def set_info(self, family: str, table: str, name: str) -> SetInfo:
        """The shape of one set."""
        ...

    def lookup(self, info: SetInfo, key: bytes) -> Found | None:
        """Ask for one key (padded, as in the register file); None when it is not in the set."""
        ...

    def elements(self, info: SetInfo, limit: int) -> Sequence[Element] | None:
        """All elements, for keys that are not fully known; None when there are more than `limit`."""
        ...
