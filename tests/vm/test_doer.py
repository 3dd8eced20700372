"""The doer's probe on stock kernels: who committed, listeners, and iptables-legacy, which only they let us watch.

tests/netns/test_doer.py and tests/netns/test_wakes.py themselves run in the guest. Here `iptables-legacy` must be among
what wakes the daemon: by fexit on both kernels.
"""

from __future__ import annotations

from vm.conftest import EVERY
from vm.guest import Guest
from vm.test_probe import passed, run

ENVIRONMENT = "K3SWATCH_COMMITS=20 K3SWATCH_AT_ONCE=60 K3SWATCH_PATIENCE=300"
LEGACY = """
import subprocess, sys
sys.path.insert(0, "/opt/k3swatch")
from k3swatch.live.flows import open_flow_watch
doer = open_flow_watch().doer
print(doer.sees, *doer.wakes, *doer.refused, sep="|")
subprocess.run(["iptables-legacy", "-t", "nat", "-N", "MINE"], check=True)
subprocess.run(["iptables-legacy", "-t", "nat", "-S"], check=True, stdout=subprocess.DEVNULL)
subprocess.run(["unshare", "-n", "iptables-legacy", "-t", "nat", "-N", "OTHERS"], check=True)
subprocess.run(["ip6tables-legacy", "-t", "nat", "-N", "MINE"], check=True)
for deed in doer.read():
    record = doer.executed(deed.pid)
    print(deed.did, deed.family, deed.comm, *(record.arguments if record else ()))
"""


def test_iptables_legacy_tables_are_told_of(checkout: Guest) -> None:
    """Changed ones, of this network namespace; listing them is no change."""
    checkout.sh("modprobe nf_nat; modprobe iptable_nat; modprobe ip6table_nat")
    assert checkout.sh(f"python3 -c '{LEGACY}'").splitlines() == [
        "exec|listeners|iptables-legacy",
        "replaced ip iptables-legacy iptables-legacy -t nat -N MINE",
        "replaced ip6 ip6tables-legac ip6tables-legacy -t nat -N MINE",
    ]


def test_executions_listeners_and_legacy_tables(checkout: Guest) -> None:
    """Of the tools that commit, one: what the others do differently is the same on every kernel. And one kernel stands
    for what the record of executions is made of, the other for how the daemon is woken.
    """
    checkout.sh("modprobe nf_nat; modprobe iptable_nat")
    chosen, number = "not tools or (iptables and not restore)", 10
    if not EVERY and checkout.image.suite == "bookworm":
        chosen, number = "hundred or told_at_once", 3
    elif not EVERY:
        chosen, number = f"({chosen}) and not told_at_once and not status_says", 7
    output = run(checkout, f"tests/netns/test_doer.py tests/netns/test_wakes.py -k '{chosen}'", ENVIRONMENT)
    assert passed(output) == number
