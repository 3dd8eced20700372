"""Routes as the kernel has them: read whole, and missed at once when others refuse."""

from __future__ import annotations

import pytest

from k3swatch.clock import SystemClock
from k3swatch.demo.netns import namespaces
from k3swatch.errors import SourceError
from k3swatch.live.host import HostReader
from k3swatch.model.port import ProtectedPort
from k3swatch.model.routing import RTN_BLACKHOLE, RTN_UNREACHABLE, TO_TABLE

PORTS = [ProtectedPort("api", 6443)]


def test_a_route_that_refuses_is_noticed(root: None) -> None:
    with namespaces("routes") as spaces, spaces["routes"].inside():
        space = spaces["routes"]
        space.ip("link set lo up")
        reader = HostReader(SystemClock())
        reader.read(PORTS)
        assert not reader.moved(PORTS)
        for command, kind in (
            ("ip route add blackhole 10.1.0.0/16", RTN_BLACKHOLE),
            ("ip -6 route add unreachable fd77::/64", RTN_UNREACHABLE),
        ):
            space.shell(command)
            assert reader.moved(PORTS)
            routing = reader.read(PORTS).routing
            assert routing is not None
            assert kind in {route.type for route in routing.routes}
            assert not reader.moved(PORTS)
        space.shell("ip route del blackhole 10.1.0.0/16")
        assert reader.moved(PORTS)


def test_what_cannot_be_read_hides_no_route(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is asked each second fails: sockets, virtual servers, programs and hooks."""

    def fails(*_: object) -> None:
        raise SourceError("not now")

    with namespaces("routes") as spaces, spaces["routes"].inside():
        reader = HostReader(SystemClock())
        reader.read(PORTS)
        monkeypatch.setattr("k3swatch.live.host._listeners", fails)
        monkeypatch.setattr("k3swatch.live.ipvs.read", fails)
        monkeypatch.setattr("k3swatch.live.programs.Programs.moved", fails)
        assert not reader.moved(PORTS)
        spaces["routes"].shell("ip link set lo up; ip route add blackhole 10.1.0.0/16")
        assert reader.moved(PORTS)


def test_policy_rules_are_read(root: None) -> None:
    with namespaces("rules") as spaces, spaces["rules"].inside():
        spaces["rules"].shell("ip rule add pref 7 fwmark 0x64/0xff iif lo ipproto tcp dport 6443 lookup 1000")
        routing = HostReader(SystemClock()).read(PORTS).routing
    assert routing is not None
    (rule,) = [each for each in routing.rules if each.priority == 7]
    assert (rule.action, rule.table, rule.mark, rule.mark_mask) == (TO_TABLE, 1000, 0x64, 0xFF)
    assert (rule.in_interface, rule.protocol, rule.destination_ports) == ("lo", 6, (6443, 6443))
    assert not rule.other
