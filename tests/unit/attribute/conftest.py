"""A node's files in a temporary directory, and the finding they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k3swatch.attribute.root import Root
from k3swatch.demo.kubernetes import CNI_DN, CONTAINER
from k3swatch.demo.node import Node
from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.words import Family, Mechanism, State, Vantage


def step(chain: str, comment: str | None = None, table: str = "nat", family: str = "ip") -> PathStep:
    """One rule of a path."""
    return PathStep(family, table, chain, 7, "a rule", comment)


def diverted(*path: PathStep, to: str = "10.42.0.244:6443") -> Finding:
    """A diversion to the incident's pod by these rules."""
    return Finding(State.DIVERTED, Mechanism.DNAT, Vantage.LOCAL, Family.IP, ("127.0.0.1",), to, path=path)


@pytest.fixture
def make() -> Callable[..., Finding]:
    """`make(step(...), to=...)`: a finding."""
    return diverted


@pytest.fixture
def rule() -> Callable[..., PathStep]:
    """`rule(chain, comment)`: one rule of a path."""
    return step


@pytest.fixture
def portmap() -> Finding:
    """The diversion by portmap, as the demo's real plugin makes it."""
    comment = f'dnat name: "cbr0" id: "{CONTAINER}"'
    return diverted(step("CNI-HOSTPORT-DNAT", comment), step(CNI_DN))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """The node while the pod runs: every file is there."""
    made = Node(tmp_path / "node")
    made.service_created()
    made.leased()
    made.cached()
    made.started()
    return made


@pytest.fixture
def root(node: Node) -> Iterator[Root]:
    """One look at it, with all the time that a busy machine may want."""
    with Root(str(node.directory), seconds=20.0) as opened:
        yield opened
