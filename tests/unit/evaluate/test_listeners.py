"""Which listening socket gets a connection, whose it is, and what is said when that is somebody else's."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from support.build import TableRuleset, dnat, dport, node

from k3swatch.evaluate import judge
from k3swatch.evaluate.processes import rightful, unit
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.port import Holder, Listener, ListeningSocket, ProtectedPort
from k3swatch.model.ruleset import PREROUTING
from k3swatch.model.words import Evidence, Mechanism, Protocol, State, Vantage

K3S = Holder(10, "/var/lib/rancher/k3s/data/0c21/bin/k3s")
THIEF = Holder(66, "/usr/bin/python3.11")
ETH0 = 2
ANYBODY, OURS = Listener(), Listener(unit="k3s.service")


def socket(address: str, holder: Holder | None = K3S, **options: Any) -> ListeningSocket:
    """A listener on 6443, k3s's in k3s.service, anybody else's in a session."""
    found = ListeningSocket(
        Protocol.TCP,
        ipaddress.ip_address(address),
        6443,
        inode=holder.pid if holder else 1,
        cgroup=100 if holder is K3S else 200,
        cgroup_path="/system.slice/k3s.service" if holder is K3S else "/user.slice/session-3.scope",
        holders=(holder,) if holder else (),
    )
    return replace(found, **options)


def on(
    *sockets: ListeningSocket, listener: Listener = ANYBODY, ruleset: TableRuleset | None = None
) -> PortVerdict:
    host = replace(node(), sockets=sockets)
    return judge(ruleset or TableRuleset(), host, [ProtectedPort("k3s-api", 6443, listener=listener)])[0]


def by_way(verdict: PortVerdict) -> dict[tuple[str, str], Finding]:
    return {(f.vantage, address): f for f in verdict.findings for address in f.addresses}


OURS = Listener(unit="k3s.service")


def test_one_owner_is_no_finding_whoever_it_is() -> None:
    for holder in (K3S, THIEF, None):
        verdict = on(socket("::", holder))
        assert (verdict.state, verdict.findings) == (State.DELIVERED, ())


def test_one_program_with_many_sockets_is_no_finding() -> None:
    workers = [socket("0.0.0.0", Holder(10 + number, K3S.exe), cgroup=100) for number in range(3)]
    workers = [replace(worker, cgroup_path="/system.slice/k3s.service") for worker in workers]
    assert on(*workers, socket("::", v6only=True)).findings == ()


def test_a_more_specific_bind_of_another_program_may_divert() -> None:
    verdict = on(socket("::"), socket("192.168.1.233", THIEF))
    found = by_way(verdict)
    assert verdict.state is State.DIVERTED
    taken = found[Vantage.EXTERNAL, "192.168.1.233"]
    assert taken == found[Vantage.LOCAL, "192.168.1.233"] or taken.state is State.DIVERTED
    assert (taken.mechanism, taken.certain) == (Mechanism.SOCKET, False)
    assert taken.evidence == frozenset({Evidence.LISTENER})
    assert taken.path[-1].chain == "192.168.1.233:6443"
    assert taken.path[-1].rule == "/usr/bin/python3.11 (pid 66) in session-3.scope"
    assert "more specific bind" in (taken.why or "")
    # nobody is taken for the owner: the other addresses are not said to be fine
    assert found[Vantage.EXTERNAL, "10.42.0.1"].state is State.UNKNOWN
    assert len({f.cause for f in verdict.findings if f.family == "ip" and f.state is State.DIVERTED}) == 1


def test_with_the_listener_configured_the_same_is_certain_and_only_there() -> None:
    verdict = on(socket("::"), socket("192.168.1.233", THIEF), listener=OURS)
    assert {(f.vantage, f.addresses, f.state, f.certain) for f in verdict.findings} == {
        (vantage, ("192.168.1.233",), State.DIVERTED, True) for vantage in Vantage
    }


def test_two_programs_on_different_addresses_are_unknown() -> None:
    verdict = on(socket("0.0.0.0"), socket("::", THIEF, v6only=True))
    assert verdict.state is State.UNKNOWN
    assert {f.state for f in verdict.findings} == {State.UNKNOWN}
    assert on(socket("0.0.0.0"), socket("::", THIEF, v6only=True), listener=OURS).state is State.DIVERTED


def test_a_shared_port_diverts_a_share() -> None:
    both = (socket("::"), socket("::", THIEF))
    (finding, *_) = on(*both).findings
    assert (finding.state, finding.certain) == (State.DIVERTED, False)
    assert "SO_REUSEPORT" in (finding.why or "")
    for finding in on(*both, listener=OURS).findings:
        assert (finding.state, finding.certain) == (State.DIVERTED, True)
        assert finding.conditions == ("a share of the connections, SO_REUSEPORT",)


def test_groups_that_compete_are_not_certain() -> None:
    """Which the kernel asks first depends on the order of a list that nobody can see."""
    for finding in on(socket("::"), socket("0.0.0.0", THIEF), listener=OURS).findings:
        assert (finding.family, finding.state, finding.certain) == ("ip", State.DIVERTED, False)


def test_bound_to_an_interface() -> None:
    """A packet from the host itself to an address of its own arrives on the interface that has the address."""
    verdict = on(socket("::"), socket("0.0.0.0", THIEF, interface=ETH0), listener=OURS)
    found = by_way(verdict)
    assert found[Vantage.EXTERNAL, "192.168.1.233"].conditions == ("on interface eth0",)
    assert found[Vantage.EXTERNAL, "10.42.0.1"].conditions == ("on interface eth0",)
    assert found[Vantage.LOCAL, "192.168.1.233"].conditions == ()
    assert set(found) == {(Vantage.EXTERNAL, "192.168.1.233"), (Vantage.EXTERNAL, "10.42.0.1"),
                          (Vantage.LOCAL, "192.168.1.233")}  # fmt: skip


def test_an_address_nobody_listens_on_is_told_and_no_alarm() -> None:
    verdict = on(socket("192.168.1.233"))
    assert verdict.state is State.DELIVERED
    assert not verdict.unserved
    assert {f.state for f in verdict.findings} == {State.UNSERVED}
    assert all(f.restriction and f.mechanism is Mechanism.NONE for f in verdict.findings)
    assert (Vantage.LOCAL, "127.0.0.1") in by_way(verdict)
    assert (Vantage.EXTERNAL, "192.168.1.233") not in by_way(verdict)


@pytest.mark.parametrize("address", ["203.0.113.9", "fd00:1::9"])
def test_a_socket_on_no_protected_address_serves_nothing(address: str) -> None:
    verdict = on(socket(address))
    assert (verdict.state, verdict.unserved, verdict.findings) == (State.UNSERVED, True, ())


def test_v6only_and_mapped_addresses() -> None:
    assert {f.family for f in on(socket("::", v6only=True)).findings} == {"ip"}
    assert {f.family for f in on(socket("0.0.0.0")).findings} == {"ip6"}
    found = by_way(on(socket("::"), socket("::ffff:192.168.1.233", THIEF), listener=OURS))
    assert set(found) == {(vantage, "192.168.1.233") for vantage in Vantage}


def test_a_wrong_program_alone_is_certain() -> None:
    for listener in (
        OURS,
        Listener(exe=("/usr/local/bin/k3s",)),
        Listener(("/usr/local/bin/k3s",), "k3s.service"),
    ):
        verdict = on(socket("::", THIEF), listener=listener)
        assert verdict.state is State.DIVERTED
        assert all(f.certain and not f.conditions for f in verdict.findings)
        assert len({address for f in verdict.findings for address in f.addresses}) == 5
        assert on(socket("::"), listener=listener).findings == ()


def test_who_cannot_be_told_is_unknown_only_where_it_is_asked() -> None:
    hidden = socket("::", None, cgroup=0, cgroup_path=None)
    assert on(hidden).state is State.DELIVERED
    (why,) = {f.why for f in on(hidden, listener=OURS).findings}
    assert "cannot be told" in (why or "")
    assert on(hidden, replace(hidden, address=ipaddress.ip_address("192.168.1.233"))).state is State.UNKNOWN
    # the unit is enough where executables are hidden
    assert (
        on(socket("::", holders=()), listener=Listener(("/usr/local/bin/k3s",), "k3s.service")).findings == ()
    )


def test_what_a_rule_sends_elsewhere_asks_no_socket() -> None:
    ruleset = TableRuleset()
    ruleset.base("nat", "PREROUTING", PREROUTING, [*dport(6443), *dnat("10.42.0.244", 6443)])
    verdict = on(socket("192.168.1.233", THIEF), listener=OURS, ruleset=ruleset)
    socketed = [f for f in verdict.findings if f.mechanism is Mechanism.SOCKET]
    assert {(f.vantage, f.shadowed) for f in socketed} == {(Vantage.EXTERNAL, True), (Vantage.LOCAL, False)}
    assert not [f for f in verdict.findings if f.state is State.UNSERVED and f.vantage is Vantage.EXTERNAL
                and f.family == "ip"]  # fmt: skip


def test_units_as_systemd_reads_them() -> None:
    assert unit("/system.slice/k3s.service") == "k3s.service"
    assert unit("/system.slice/k3s.service/init") == "k3s.service"
    assert unit("/user.slice/user-1000.slice/session-3.scope") == "session-3.scope"
    assert unit("/kubepods/besteffort/pod12/34") is None
    assert unit("/") is None


def test_a_restarted_container_of_a_pod_is_the_same_program() -> None:
    pods = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{}.scope"

    def container(pod: str, name: str, number: int) -> ListeningSocket:
        path = pods.format(pod, name)
        return socket("::", Holder(number, "/usr/local/bin/kube-apiserver"), cgroup=number, cgroup_path=path)

    assert on(container("a", "1", 1), container("a", "2", 2)).findings == ()
    assert on(container("a", "1", 1), container("b", "2", 2)).state is State.DIVERTED


def test_an_upgraded_executable_is_still_it() -> None:
    gone = socket("::", Holder(1, "/opt/k3s (deleted)"), cgroup_path=None, cgroup=0)
    assert rightful(gone, Listener(("/opt/k3s",))) is True
    assert rightful(gone, Listener(("/opt/*",))) is True
    assert rightful(gone, Listener(("/opt/k3",))) is False
