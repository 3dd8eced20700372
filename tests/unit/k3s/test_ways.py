"""Which addresses are dialled while a port of the API is taken: those that are left alone, and no others."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from k3swatch.k3s.settings import Settings
from k3swatch.k3s.ways import MOST, candidates, serves_api
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.port import Listener, ProtectedPort
from k3swatch.model.words import Family, Mechanism, State, Vantage

API = ProtectedPort("k3s-api", 6443)
OWN = ProtectedPort("k3s-apiserver", 6444)
ADDRESSES = ("127.0.0.1", "192.168.1.233", "10.42.0.1", "::1", "fd00:1::233", "fe80::1")
JUDGED = tuple((vantage, address) for vantage in Vantage for address in ADDRESSES)
KUBECONFIG = "/var/lib/rancher/k3s/server/cred/admin.kubeconfig"


def taken(*addresses: str, vantage: Vantage = Vantage.LOCAL, shadowed: bool = False) -> Finding:
    return Finding(
        State.DIVERTED, Mechanism.DNAT, vantage, Family.IP, addresses, "10.42.0.244:6443", shadowed=shadowed
    )


def urls(settings: Settings, *verdicts: PortVerdict, cluster: bool = True) -> list[str]:
    return [each.url for each in candidates(settings, verdicts, cluster)]


def verdict(*findings: Finding, port: ProtectedPort = API) -> PortVerdict:
    return PortVerdict(port, findings, JUDGED)


def test_the_incident() -> None:
    seen = verdict(taken("127.0.0.1", "192.168.1.233", "10.42.0.1"))
    assert urls(Settings(), seen) == [
        "https://127.0.0.1:6444",
        "https://10.43.0.1:443",
        "https://[fd00:1::233]:6443",
        "https://[::1]:6443",
    ]
    assert candidates(Settings(), [seen], True)[0].kubeconfig == KUBECONFIG


def test_kube_apiservers_own_port_is_not_dialled_when_it_is_taken_too() -> None:
    own = PortVerdict(OWN, (taken("127.0.0.1"),), ((Vantage.LOCAL, "127.0.0.1"),))
    assert "https://127.0.0.1:6444" not in urls(Settings(), verdict(taken("127.0.0.1")), own)


def test_what_is_taken_from_others_or_only_would_be_is_dialled() -> None:
    seen = verdict(taken("192.168.1.233", vantage=Vantage.EXTERNAL), taken("127.0.0.1", shadowed=True))
    found = urls(Settings(), seen)
    assert {"https://192.168.1.233:6443", "https://127.0.0.1:6443"} <= set(found)
    assert len(found) <= MOST


def test_what_is_unknown_is_not_dialled() -> None:
    """It might be a connection to the thief, counted as one."""
    unknown = replace(taken(), state=State.UNKNOWN)  # no address named: all of them
    assert urls(Settings(), verdict(unknown)) == ["https://127.0.0.1:6444", "https://10.43.0.1:443"]


def test_cluster_addresses_only_where_they_are_translated() -> None:
    assert urls(Settings(), verdict(taken(*ADDRESSES)), cluster=False) == ["https://127.0.0.1:6444"]
    both = (ipaddress.ip_network("10.50.0.0/16"), ipaddress.ip_network("fd43::/112"))
    found = urls(Settings(service_networks=both), verdict(taken(*ADDRESSES)))
    assert found[1:] == ["https://10.50.0.1:443", "https://[fd43::1]:443"]


def test_another_port_has_another_kubeconfig() -> None:
    """After a change of https-listen-port admin.kubeconfig still says 6444 (k3s.md, 0.4): it is not promised."""
    (own, *_) = candidates(Settings(https_port=7443), [], False)
    assert (own.url, own.kubeconfig) == ("https://127.0.0.1:7444", None)


def test_an_agents_way_is_its_balancer_and_rke2s_the_cluster() -> None:
    agent = Settings(server=False, apiserver=False, lb_port=6500)
    assert urls(agent) == ["https://127.0.0.1:6500", "https://10.43.0.1:443"]
    assert urls(Settings(program="rke2")) == ["https://10.43.0.1:443"]


def test_the_owner_is_known_where_a_listener_is_demanded_and_nothing_speaks_against_it() -> None:
    """With the CA masked, that is what verifies: the rules deliver, and the socket is K3s's."""
    k3s = Listener(unit="k3s.service")
    api = PortVerdict(replace(API, listener=k3s), (taken("127.0.0.1"),), JUDGED)
    own = PortVerdict(replace(OWN, listener=k3s), (), ((Vantage.LOCAL, "127.0.0.1"),))
    owners = {each.url: each.owner for each in candidates(Settings(), [api, own], True)}
    assert owners == {
        "https://127.0.0.1:6444": "k3s.service",
        "https://10.43.0.1:443": None,
        "https://192.168.1.233:6443": "k3s.service",
        "https://[fd00:1::233]:6443": "k3s.service",
        "https://[::1]:6443": "k3s.service",
    }
    assert {each.owner for each in candidates(Settings(), [verdict(taken("127.0.0.1"))], True)} == {None}


def test_which_ports_serve_the_api() -> None:
    assert serves_api(API)
    assert serves_api(ProtectedPort("mine", 6443))
    assert serves_api(ProtectedPort("k3s-api", 7443))
    assert not serves_api(ProtectedPort("kubelet", 10250))
