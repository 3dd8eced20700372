"""What people use today, each as the one line they would type: exit status 0 means that it raises the alarm.

A look is taken while the rules are there; `conntrack -E` listens while everybody connects. None of them knows k3swatch.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from k3swatch.demo.lab import Lab
from k3swatch.demo.netns import Namespace

# any rule that asks for 6443, in itself or in an anonymous set, and translates or takes the packet
JQ = r"""
[.nftables[] | .rule? // empty | .expr
 | select([.. | scalars] | any(. == 6443 or . == "6443"))
 | select([.[] | keys[]] | any(. == "dnat" or . == "redirect" or . == "tproxy"))] | length > 0
"""
# conntrack prints src dst sport dport as dialled, then src dst sport dport of the reply, which must come from there
AWK = r"""{ n = 0; for (i = 1; i <= NF; i++) { split($i, kv, "=")
  if (kv[1] == "dst" && !d) d = kv[2]; if (kv[1] == "dport" && !dp) dp = kv[2]
  if (kv[1] == "src" && ++n == 2) s = kv[2]; if (kv[1] == "sport" && n == 2) sp = kv[2] }
  if (s != d || sp != dp) alarm = 1; d = dp = "" } END { exit !alarm }"""


@dataclass(frozen=True)
class Look:
    """A tool, what a person types (shown in docs), and the shell that decides."""

    name: str
    typed: str
    shell: str


LOOKS = (
    Look("nft list | grep", "nft list ruleset | grep 6443", "nft list ruleset | grep -q 6443"),
    Look(
        "nft -j | jq",
        "nft -j list ruleset | jq: rules with 6443 and dnat, redirect or tproxy",
        f"nft -j list ruleset | jq -e '{JQ}'",
    ),
    Look(
        "iptables-save | grep",
        "iptables-save, ip6tables-save and both -legacy-save | grep 6443",
        "{ iptables-save; ip6tables-save; iptables-legacy-save; ip6tables-legacy-save; } 2>/dev/null | grep -q 6443",
    ),
    Look(
        "ss -ltnp",
        "ss -ltnp 'sport = :6443': another process than the owner's, or none",
        'listeners=$(ss -Hltnp \'sport = :6443\'); [ -z "$listeners" ] || echo "$listeners" | grep -qv pid=$OWNER,',
    ),
)
CONNTRACK = Look("conntrack -E", "conntrack -E -p tcp --orig-port-dst 6443: a reply from somewhere else", AWK)
TOOLS = (*LOOKS, CONNTRACK)


def alarms(space: Namespace) -> dict[str, bool]:
    """Which of `LOOKS` raise the alarm in this host, now."""
    return {look.name: _alarms(space, look.shell) for look in LOOKS}


def _alarms(space: Namespace, shell: str, text: str = "") -> bool:
    with space.inside():
        done = subprocess.run(
            ["sh", "-c", shell],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "OWNER": str(os.getpid())},
        )
    return done.returncode == 0


@contextmanager
def watching(lab: Lab) -> Iterator[dict[str, bool]]:
    """`conntrack -E` while the block runs; afterwards the dict says whether it raised the alarm."""
    found: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(prefix="k3w-") as directory:
        output = Path(directory, "events")
        with lab.host.inside(), output.open("wb") as file:
            command = ["conntrack", "-E", "-e", "NEW", "-p", "tcp", "--orig-port-dst", "6443"]
            watcher = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.1)  # conntrack does not say when it listens
            yield found
        finally:
            watcher.terminate()
            watcher.wait()
            text = output.read_text()
            found[CONNTRACK.name] = bool(text) and _alarms(lab.host, f"awk '{AWK}'", text)
