"""The probe and the modules nf_nat and ip_vs, which on a stock kernel come when they are first needed. Run in the guest
by pytest.

The protected port is 7443 on the guest's own loopback; `hammer` serves there, and on 7444, where the rule sends it.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k3swatch.live.flow_probe import ProbeWatch
from k3swatch.live.flows import open_flow_watch
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach

NF_NAT, IP_VS = Path("/sys/module/nf_nat"), Path("/sys/module/ip_vs")
MODULES = ("nft_redir", "nft_nat", "nft_chain_nat", "nf_nat")
LOOPBACK = ipaddress.ip_address("127.0.0.1")
MANY = 100

Dial = Callable[[], None]


def sh(script: str) -> str:
    return subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True).stdout


def redirect() -> None:
    """NAT comes into being: the module is loaded by this."""
    sh(
        "nft 'table ip t { chain out { type nat hook output priority -100; tcp dport 7443 redirect to :7444; }; }'"
    )
    assert NF_NAT.exists()


def unload() -> None:
    """The last NAT rule goes, and the module with it."""
    sh(f"nft flush ruleset; for module in {' '.join(MODULES)}; do modprobe -r $module; done")
    assert not NF_NAT.exists()


def balance() -> None:
    """A virtual server comes into being: the module is loaded by this."""
    sh("ipvsadm -A -t 127.0.0.1:7443 -s rr; ipvsadm -a -t 127.0.0.1:7443 -r 127.0.0.1:7444 -m")
    assert IP_VS.exists()


def unload_balancer() -> None:
    """The last virtual server goes, and the module with it."""
    sh("ipvsadm -C; modprobe -r ip_vs_rr; modprobe -r ip_vs 2>/dev/null || true")
    assert not IP_VS.exists()


@pytest.fixture(scope="module")
def dial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dial]:
    """Makes MANY connections to 7443; servers are up as long as the module's tests."""
    hammer = tmp_path_factory.mktemp("hammer") / "hammer"
    source = Path(__file__).parents[3] / "bench" / "hammer.c"
    subprocess.run(["gcc", "-O2", "-o", hammer, source], check=True)
    servers = [
        subprocess.Popen([hammer, "serve", "127.0.0.1", port], stdout=subprocess.PIPE, text=True)
        for port in ("7443", "7444")
    ]
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def dial() -> None:
        made = sh(f"{hammer} dial 127.0.0.1 7443 {MANY} 0").split()
        assert made[:2] == [str(MANY), "0"]

    yield dial
    for server in servers:
        server.kill()
        server.communicate()


def watching(attach: Attach | None) -> ProbeWatch:
    watch = open_flow_watch(attach)
    assert isinstance(watch, ProbeWatch), watch.refused
    watch.protect([ProtectedPort("api", 7443)], [LOOPBACK])
    return watch


def counts(watch: ProbeWatch) -> dict[str, int]:
    return {row.outcome.value: row.connections for row in watch.counts() if row.connections}


def test_loaded_later_unloaded_and_loaded_again(dial: Dial) -> None:
    """Before the first rule there is nothing to attach to; the tracepoints tell all the same."""
    assert not NF_NAT.exists()
    watch = watching(None)
    assert watch.attach is Attach.TRACEPOINT
    assert [line.partition(":")[0] for line in watch.refused] == ["fentry", "kprobe"]
    dial()
    assert counts(watch) == {"delivered": MANY}
    redirect()
    dial()
    assert counts(watch) == {"delivered": MANY, "diverted": MANY}
    unload()
    dial()
    assert counts(watch) == {"delivered": 2 * MANY, "diverted": MANY}
    redirect()
    dial()
    assert counts(watch) == {"delivered": 2 * MANY, "diverted": 2 * MANY}
    assert watch.alive()
    assert not any(watch.lost().values())
    watch.close()
    unload()


def test_a_kprobe_dies_with_its_module(dial: Dial) -> None:
    """Nothing is missed, as the tracepoints are there as well; but it is said, so that the daemon starts afresh."""
    sh("modprobe nf_nat")
    watch = watching(Attach.KPROBE)
    redirect()
    dial()
    unload()
    assert watch.alive()
    redirect()
    dial()
    assert counts(watch) == {"diverted": 2 * MANY}
    assert not watch.alive()
    watch.close()
    unload()


def test_fentry_keeps_its_module(dial: Dial) -> None:
    sh("modprobe nf_nat")
    watch = watching(Attach.FENTRY)
    redirect()
    dial()
    assert counts(watch) == {"diverted": MANY}
    with pytest.raises(subprocess.CalledProcessError):
        unload()
    assert watch.alive()
    watch.close()
    unload()


def test_virtual_servers_that_come_later(dial: Dial) -> None:
    """What they translate is seen by the tracepoint, whenever they come."""
    sh("modprobe nf_nat")
    assert not IP_VS.exists()
    watch = watching(None)
    assert (watch.attach, watch.ipvs, watch.refused) == (Attach.FENTRY, "", ())
    for times in (1, 2):
        balance()
        dial()
        assert counts(watch) == {"diverted": times * MANY}
        unload_balancer()
    assert watch.alive()
    watch.close()


def test_a_kprobe_dies_with_its_virtual_servers(dial: Dial) -> None:
    sh("modprobe -a nf_nat ip_vs")
    watch = watching(Attach.KPROBE)
    assert watch.ipvs == "kprobe"
    balance()
    dial()
    unload_balancer()
    assert watch.alive()
    balance()
    dial()
    assert counts(watch) == {"diverted": 2 * MANY}
    assert not watch.alive()
    watch.close()
    unload_balancer()


def test_fentry_keeps_the_virtual_servers(dial: Dial) -> None:
    sh("modprobe -a nf_nat ip_vs")
    watch = watching(Attach.FENTRY)
    assert watch.ipvs == "fentry"
    balance()
    dial()
    assert counts(watch) == {"diverted": MANY}
    with pytest.raises(AssertionError):
        unload_balancer()
    assert watch.alive()
    watch.close()
    unload_balancer()
