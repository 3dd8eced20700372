"""A nf_tables source of a few messages: stands where NftablesSource stands, and answers as the kernel would."""

from __future__ import annotations

from support.wire import be32, be64, name, nft, nla

BASE = nla(4, be32(1, 0) + be32(2, -100)) + name(7, "nat")


class FakeNftables:
    """One table `ip t` with a base chain `pre`, a chain `empty` and a set `s`; a commit is `generation += 1`."""

    def __init__(self, generation: int = 0x1_0007) -> None:
        self.number = generation
        self.asked: list[str] = []
        self.members: dict[bytes | None, bytes] = {}  # key -> more attributes of its element
        self.set_flags = 0
        self.commit_before: str = ""  # the question before which a commit slips in

    def _message(self, kind: int, *attributes: bytes) -> bytes:
        return nft(kind, 2, *attributes, generation=self.number)

    def _hear(self, question: str) -> None:
        self.asked.append(question)
        if self.commit_before == question:
            self.number += 1

    def generation(self) -> bytes:
        self._hear("generation")
        return nft(15, 0, be32(1, self.number), generation=self.number)

    def tables(self) -> list[bytes]:
        self._hear("tables")
        return [self._message(0, name(1, "t"))]

    def chains(self) -> list[bytes]:
        self._hear("chains")
        pre = name(1, "t") + name(3, "pre") + be64(2, 1)
        empty = name(1, "t") + name(3, "empty") + be64(2, 2)
        return [self._message(3, pre, BASE), self._message(3, empty)]

    def chain(self, family: str, table: str, chain: str) -> bytes | None:
        self._hear("chain")
        known = (family, table) == ("ip", "t") and chain in ("pre", "empty")
        return self._message(3, name(1, table), name(3, chain)) if known else None

    def rules(self, family: str, table: str, chain: str) -> list[bytes]:
        self._hear("rules")
        if chain != "pre":
            return []
        return [self._message(6, name(1, table), name(2, chain), be64(3, h), nla(4, b"")) for h in (1, 2)]

    def set(self, family: str, table: str, name_: str) -> bytes | None:
        self._hear("set")
        if name_ != "s":
            return None
        return self._message(9, name(1, table), name(2, name_), be32(3, self.set_flags), be32(5, 2))

    def sets(self) -> list[bytes]:
        self._hear("sets")
        return [message for message in [self.set("ip", "t", "s")] if message]

    def _elements(self, keys: list[bytes | None]) -> bytes:
        raw = b"".join(
            nla(1, (be32(3, 2) if key is None else nla(1, nla(1, key))) + self.members[key]) for key in keys
        )
        return self._message(12, name(1, "t"), name(2, "s"), nla(3, raw))

    def get_element(self, family: str, table: str, name_: str, key: bytes | None) -> bytes | None:
        self._hear("get_element")
        return self._elements([key]) if key in self.members else None

    def elements(self, family: str, table: str, name_: str, longest: int = 1 << 28) -> list[bytes] | None:
        self._hear("elements")
        found = [self._elements([key]) for key in self.members]
        return found if sum(map(len, found)) <= longest else None
