"""The probe on stock kernels, by each attachment: loaded by their verifiers, exact on real connections.

tests/netns/test_probe.py itself runs in the guest, with fewer connections; so what counts as exact is what it says.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from vm.conftest import EVERY
from vm.guest import Guest

MANY = 40
TEST_SECONDS = 3000  # of all that one command runs in the guest; 100 on an idle machine
# The rest is about the maps and the daemon's side of them: the same whatever told the probe.
ALL_OUTCOMES = (
    "delivered_without_conntrack",
    "delivered_with_conntrack and accept",
    "who_has_a_delivered_connection",
    "given_to_a_socket_on_another_port and True and 192",
    "given_to_a_socket_on_another_port and False and fd00",
    "from_outside_to_a_pod",
    "from_the_host_itself_to_a_pod",
    "redirect",
    f"to_a_dead_pod and {MANY}",
    f"diverted_and_then_dropped_by_a_filter and {MANY}",
    f"dropped_at_the_door and True and {MANY}",
    "ipv6",
    "udp",
    "the_same_source_port_again_and_again",
    "what_is_not_ours_is_not_counted",
)
DIVERSIONS = (
    "given_to_a_socket_on_another_port and True and 192",
    "from_outside_to_a_pod",
    "from_the_host_itself_to_a_pod",
    f"diverted_and_then_dropped_by_a_filter and {MANY}",
    "udp",
)

# of IPVS: all of its ways by its own function on one kernel, and what is otherwise seen by tracepoints on the other
USUAL = ("masq", "kube-proxy", "(routed and not fine)")
VIRTUAL = {
    ("trixie", "fentry"): (),
    ("trixie", "tracepoint"): USUAL,
    ("bookworm", "kprobe"): USUAL,
    ("bookworm", "tracepoint"): (*USUAL, "ip6", "fwmark", "nobody", "behind-dnat"),
}


def run(guest: Guest, arguments: str, environment: str = "") -> str:
    """pytest in the guest; what it said, on one line each, when all passed."""
    command = f"{environment} K3SWATCH_TIERS=netns,vm PYTHONPATH=/opt/pytest"
    command += (
        f" python3 -m pytest -q --tb=short -p no:cacheprovider --timeout=1200 --durations=6 {arguments}"
    )
    said: str = guest.sh(f"cd /opt/k3swatch; {command}", timeout=TEST_SECONDS)
    print(said)  # what took how long: `make test-vm ARGS=-rP`
    return said


def passed(output: str) -> int:
    """How many tests passed, out of pytest's last line: `12 passed, 17 deselected in 100.00s`."""
    summary = output.strip().splitlines()[-1].replace(",", "").split()
    assert summary[1] == "passed", output
    return int(summary[0])


@pytest.mark.parametrize(
    ("attach", "tests"), [("fentry", ALL_OUTCOMES), ("kprobe", DIVERSIONS), ("tracepoint", DIVERSIONS)]
)
def test_real_connections(checkout: Guest, attach: str, tests: tuple[str, ...]) -> None:
    checkout.sh("modprobe nf_nat")
    if checkout.image.suite == "bookworm" and not EVERY:
        tests = DIVERSIONS
    chosen = " or ".join(f"({name})" for name in tests)
    output = run(
        checkout,
        f"tests/netns/test_probe.py -k '{chosen}'",
        f"K3SWATCH_ATTACH={attach} K3SWATCH_MANY={MANY} K3SWATCH_ONE_PROBE=1",
    )
    assert passed(output) == len(tests)


def test_the_modules_come_and_go(checkout: Guest) -> None:
    every = EVERY or checkout.image.suite == "trixie"
    chosen = "" if every else " -k 'not virtual_servers'"
    assert passed(run(checkout, f"tests/vm/inside/modules.py{chosen}")) == (6 if every else 3)


@pytest.mark.only("bookworm")
def test_sockets_take_connections(checkout: Guest) -> None:
    """A BPF program gives them away; another program's socket is the nearer one: told by the daemon, then confirmed."""
    output = run(
        checkout,
        "tests/netns/test_taken.py -k 'sk_lookup_gives and confined or confirms_whose'",
        "K3SWATCH_PATIENCE=120",
    )
    assert passed(output) == 2


@pytest.mark.parametrize(
    "attach",
    [
        pytest.param("fentry", marks=pytest.mark.only("trixie")),
        pytest.param("kprobe", marks=pytest.mark.only("bookworm")),
        "tracepoint",
    ],
)
def test_virtual_servers(checkout: Guest, attach: str) -> None:
    """Nobody is loaded by being watched; then IPVS takes the port, in all ways that it has, and each is seen."""
    checkout.sh(
        "cd /opt/k3swatch; python3 -m k3swatch.cli check || test $? -lt 64; ! grep -q ip_vs /proc/modules"
    )
    some = () if EVERY else VIRTUAL[checkout.image.suite, attach]
    output = run(
        checkout,
        "tests/vm/inside/virtual.py" + (f" -k '{' or '.join(some)}'" if some else ""),
        f"K3SWATCH_ATTACH={attach} K3SWATCH_PATIENCE=3",
    )
    assert passed(output) == len(some or list((Path(__file__).parent / "ipvs").glob("*.case")))
