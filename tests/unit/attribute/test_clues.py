"""What rules say of themselves; the hashes are those of real chains."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from k3swatch.attribute.clues import address_of, certainty, clues, cni_chain, container_id, named, services
from k3swatch.demo.kubernetes import CNI_DN, CONTAINER, KUBE_EXT, KUBE_SVC
from k3swatch.model.finding import Culprit, Finding

NFT = "default/evil/tcp/api"


def test_portmap(portmap: Finding) -> None:
    found = clues(portmap)
    assert (found.network, found.container, found.cni_chain) == ("cbr0", CONTAINER, CNI_DN)
    assert str(found.address) == "10.42.0.244"
    assert cni_chain("cbr0", CONTAINER) == CNI_DN
    assert found.service is None


def test_portmap_of_the_nftables_backend(make: Callable[..., Finding], rule: Callable[..., object]) -> None:
    found = clues(make(rule("hostports", CONTAINER, "cni_hostport")))
    assert (found.container, found.network, found.cni_chain) == (CONTAINER, None, None)
    assert clues(make(rule("hostports", "../../etc", "cni_hostport"))).container is None


@pytest.mark.parametrize(
    "comment", ["dnat name: ", 'dnat name: "a"', 'dnat name: "x" id: "../y"', "dnat name: x id: "]
)
def test_a_comment_that_is_no_container(
    comment: str, make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    assert clues(make(rule("CNI-HOSTPORT-DNAT", comment))).container is None


def test_kube_proxy_names_its_service_and_the_hash_agrees(
    make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    entry = rule("KUBE-SERVICES", "default/kubeapi-loadbalancer:https loadbalancer IP")
    real = make(entry, rule(KUBE_EXT), rule(KUBE_SVC), to="192.168.1.200:6443")
    forged = make(entry, rule("KUBE-EXT-AAAAAAAAAAAAAAAA"), to="192.168.1.200:6443")
    assert (clues(real).service, certainty(clues(real))) == ("default/kubeapi-loadbalancer", "medium")
    assert (clues(forged).service, certainty(clues(forged))) == ("default/kubeapi-loadbalancer", "low")
    assert services([real, forged]) == {"default/kubeapi-loadbalancer"}


@pytest.mark.parametrize(
    ("chain", "service", "hashed"),
    [
        # kubernetes pkg/proxy/nftables/proxier_test.go: the hash of ns1/svc1/tcp/p80
        ("service-ULMVA6XW-ns1/svc1/tcp/p80", "ns1/svc1", True),
        ("external-ULMVA6XW-ns1/svc1/tcp/p80", "ns1/svc1", True),
        ("external-ULMVA6XW-default/evil/tcp/api", "default/evil", False),
        ("external-x", None, False),
        ("service-ULMVA6XW-ns1/svc1", None, False),
        ("endpoint-AAAAAAAA-default/evil/tcp/api__10.42.0.21/6443", "default/evil", False),
    ],
)
def test_kube_proxy_in_nftables_mode(
    chain: str, service: str | None, hashed: bool, make: Callable[..., Finding], rule: Callable[..., object]
) -> None:
    found = clues(make(rule(chain, table="kube-proxy")))
    assert (found.service, found.service_hashed) == (service, hashed)


def test_the_alert_can_name_the_service_at_once(
    make: Callable[..., Finding], rule: Callable[..., object], portmap: Finding
) -> None:
    finding = make(rule("KUBE-SERVICES", "default/a:b external IP"), to="192.0.2.1:1")
    culprit = named(finding).culprit
    assert culprit == Culprit(service="default/a", confidence="low", sources=("kube-proxy",))
    assert named(portmap) is portmap


def test_addresses() -> None:
    assert str(address_of("[fd00::5]:6443")) == "fd00::5"
    assert address_of(None) is None
    assert address_of("nonsense:1") is None


@pytest.mark.parametrize("text", ["", "a/b", "..", ".", "-x", "a" * 129, "a\n", "ä"])
def test_what_is_no_container_id(text: str) -> None:
    assert container_id(text) is None
