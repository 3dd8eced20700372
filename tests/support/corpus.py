"""The corpus: rulesets as real programs wrote them, loaded by the real tools, and what k3swatch says of each.

`NAME.iptables`, `NAME.ip6tables` and `NAME.nft` are loaded together into a namespace like a K3s node. `k3swatch
snapshot` of that is NAME.snapshot.json; NAME.verdict.txt is what the evaluator makes of it, for people to review.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.evaluate import judge
from k3swatch.model.finding import PortVerdict
from k3swatch.model.port import Host, ProtectedPort
from k3swatch.model.ruleset import Ruleset
from k3swatch.view.check import finding_line

CORPUS = Path(__file__).parents[1] / "golden" / "corpus"
NAMES = sorted(
    {path.name.split(".")[0] for path in CORPUS.glob("*.*tables")} | {p.stem for p in CORPUS.glob("*.nft")}
)
TOOLS = {
    ".iptables": ("iptables-restore",),
    ".ip6tables": ("ip6tables-restore",),
    ".nft": ("nft", "-f", "-"),
}
API = ProtectedPort("k3s-api", 6443)


@contextmanager
def node() -> Iterator[Namespace]:
    """A namespace with the addresses of the nodes the corpus comes from."""
    with namespaces("node") as spaces:
        space = spaces["node"]
        space.ip(
            "link set lo up",
            "link add eth0 type veth peer name far0",
            "link add cni0 type veth peer name far1",
            "addr add 192.168.1.233/24 dev eth0",
            "addr add 192.168.56.10/24 dev eth0",
            "addr add fd00:1::233/64 dev eth0 nodad",
            "addr add 10.42.0.1/24 dev cni0",
            *(f"link set {name} addrgenmode none" for name in ("eth0", "far0", "cni0", "far1")),
            *(f"link set {name} up" for name in ("eth0", "far0", "cni0", "far1")),
            "route add default via 192.168.1.1",
            "route add default via fd00:1::1",
        )
        # as kubelet and portmap set them on every node; the corpus does not have them
        space.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, ipv4__conf__all__route_localnet=1)
        yield space


def load(space: Namespace, name: str) -> None:
    """Replace the namespace's rules by a corpus ruleset."""
    space.run("nft", "flush", "ruleset")
    for suffix, tool in TOOLS.items():
        path = CORPUS / f"{name}{suffix}"
        if path.exists():
            space.run(*tool, stdin=path.read_text())


def verdict_text(ruleset: Ruleset, host: Host) -> str:
    """The verdict with every path, one rule a line. Nobody listens in the corpus' namespaces: that is left out."""
    verdict: PortVerdict = judge(ruleset, host, [API])[0]
    lines = []
    for finding in verdict.findings:
        lines.append(finding_line(finding))
        lines += [
            f"    {step.family} {step.table} {step.chain} # {step.handle}: {step.rule}"
            + (f"   ({step.comment})" if step.comment else "")
            for step in finding.path
        ]
    return "\n".join(lines or ["delivered"]) + "\n"
