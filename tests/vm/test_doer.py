"""The doer's probe on stock kernels: who committed, listeners, and iptables-legacy, which only they let us watch.

tests/netns/test_doer.py and tests/netns/test_wakes.py themselves run in the guest. Here `iptables-legacy` must be among
what wakes the daemon: by fexit on both kernels.
"""

from __future__ import annotations

from vm.guest import Guest
from vm.test_probe import passed, run

COMMITS = 20
SEEN = """
import sys
sys.path.insert(0, "/opt/k3swatch")
from k3swatch.live.flows import open_flow_watch
doer = open_flow_watch().doer
print(doer.sees, *doer.wakes, *doer.refused, sep="|")
"""


def test_executions_listeners_and_legacy_tables(checkout: Guest) -> None:
    checkout.sh("modprobe nf_nat; modprobe iptable_nat")
    assert checkout.sh(f"python3 -c '{SEEN}'").strip() == "exec|listeners|iptables-legacy"
    chosen = "tests/netns/test_doer.py tests/netns/test_wakes.py"
    assert passed(run(checkout, chosen, f"K3SWATCH_COMMITS={COMMITS} K3SWATCH_AT_ONCE=10")) == 13
