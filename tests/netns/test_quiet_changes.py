"""What changes without a word from the kernel is noticed when it is asked for: readers of queues, sysctls."""

from __future__ import annotations

import sys
from pathlib import Path

from k3swatch.clock import SystemClock
from k3swatch.demo.netns import namespaces
from k3swatch.live.host import HostReader
from k3swatch.model.port import ProtectedPort

PORTS = [ProtectedPort("api", 6443)]
READER = str(Path(__file__).resolve().parents[1] / "support" / "queuereader.py")


def test_a_reader_of_a_queue_comes_and_goes(root: None) -> None:
    with namespaces("queues") as spaces, spaces["queues"].inside():
        space, reader = spaces["queues"], HostReader(SystemClock())
        assert reader.read(PORTS).queues == ()
        assert not reader.moved(PORTS)
        space.run(sys.executable, READER, "7", "accept")
        assert reader.moved(PORTS)
        (queue,) = reader.read(PORTS).queues or ()
        assert queue.number == 7
        assert Path(sys.executable).resolve().name in queue.reader
        assert not reader.moved(PORTS)
        space.run("nft", "add", "table", "ip", "gone")  # with the next change of the ruleset it ends
        for _ in range(100):
            if reader.moved(PORTS):
                break
            space.run("sleep", "0.05")
        assert reader.read(PORTS).queues == ()


def test_sysctls_are_read_and_their_change_is_noticed(root: None) -> None:
    with namespaces("sysctls") as spaces, spaces["sysctls"].inside():
        space, reader = spaces["sysctls"], HostReader(SystemClock())
        space.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
        space.ip(
            "link add eth0.5 type veth peer name p",
            "address add 10.5.0.1/24 dev eth0.5",
            "link set eth0.5 up",
        )
        assert reader.read(PORTS).sysctls.of("eth0.5", "rp_filter") == 0
        assert not reader.moved(PORTS)
        Path("/proc/sys/net/ipv4/conf/eth0.5/rp_filter").write_text("1")
        assert reader.moved(PORTS)
        assert reader.read(PORTS).sysctls.of("eth0.5", "rp_filter") == 1
        assert not reader.moved(PORTS)
