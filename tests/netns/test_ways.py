"""Which paths to the API the daemon says still work, against who really answers there."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.daemon import Daemon

from k3swatch.demo import kubernetes as k8s
from k3swatch.demo.apiserver import ApiServer, who_answers
from k3swatch.demo.lab import API, API_6444, HOST, HOST6, Lab, lab
from k3swatch.demo.netns import run

KUBECONFIG = "/var/lib/rancher/k3s/server/cred/admin.kubeconfig"
OWN = "https://127.0.0.1:6444"
SERVERS = {API, API_6444}


@pytest.fixture
def k3s() -> Iterator[Lab]:
    """A lab with kube-proxy's rules, which know the Service `kubernetes`."""
    with lab(k8s.CLUSTER_IP) as made:
        k8s.kube_proxy(made.host)
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Path:
    made = tmp_path / "node"
    made.mkdir()
    return made


@pytest.fixture
def daemon(k3s: Lab, node: Path, tmp_path: Path) -> Iterator[Daemon]:
    """Not started yet."""
    made = Daemon(k3s.host, tmp_path / "k")
    made.arguments = ["--root", str(node)]
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


def authority(node: Path, certificate: str) -> None:
    file = node / "var/lib/rancher/k3s/server/tls/server-ca.crt"
    file.parent.mkdir(parents=True)
    file.write_text(certificate)


def shown(k3s: Lab) -> str:
    """The certificate of the lab's servers: it is its own CA."""
    with k3s.host.inside():
        return ssl.get_server_certificate(("127.0.0.1", 6444))


def take(k3s: Lab) -> None:
    k8s.portmap_add(k3s.host, k3s.pod)
    k8s.kube_ext_on(k3s.host)


def ways(daemon: Daemon) -> list[dict[str, Any]]:
    return list(daemon.status()["incidents"][0]["ways"])


def answers(k3s: Lab, url: str) -> str:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return who_answers(k3s.host, parts.hostname, parts.port)


def test_what_is_said_to_work_works_and_is_the_api(daemon: Daemon, k3s: Lab, node: Path) -> None:
    authority(node, shown(k3s))
    daemon.start()
    take(k3s)
    found = f"kubectl works through {OWN} (KUBECONFIG={KUBECONFIG}), https://10.43.0.1:443, https://[{HOST6}]:6443"
    daemon.until_said(found)
    told = ways(daemon)
    assert {way["answer"] for way in told} == {"verified"}
    assert {way["issuer"] for way in told} == {"k3swatch-lab"}
    for way in told:
        assert answers(k3s, way["url"]) in SERVERS, way
    urls = [way["url"] for way in told]
    for taken in (f"https://{HOST}:6443", "https://127.0.0.1:6443"):
        assert taken not in urls
        assert answers(k3s, taken) not in SERVERS
    alarm = next(line for line in daemon.said().splitlines() if "is DIVERTED" in line)
    assert daemon.said().index(alarm) < daemon.said().index(found)  # the alarm did not wait


def test_its_own_connections_confirm_nothing(daemon: Daemon, k3s: Lab, node: Path) -> None:
    authority(node, shown(k3s))
    daemon.start()
    take(k3s)
    daemon.until_said("kubectl works through")
    daemon.until(lambda: all(one["ways"] for one in daemon.status()["incidents"]), "every incident has them")
    status = daemon.status()
    assert [one["connections"] for one in status["incidents"]] == [0] * len(status["incidents"])
    assert "this is real" not in daemon.said()
    diverted = [row for row in status["connections"] if row["outcome"] == "diverted" and row["connections"]]
    assert diverted == []


def test_where_the_ca_may_not_be_read_it_is_said_who_issued_the_certificate(daemon: Daemon, k3s: Lab) -> None:
    """As the unit has it."""
    daemon.start()
    take(k3s)
    daemon.until_said(f"the API answers at {OWN} (KUBECONFIG=")
    daemon.until_said("with a certificate issued by k3swatch-lab, not checked: its CA may not be read")
    assert "kubectl works" not in daemon.said()


def test_where_the_ca_may_not_be_read_the_owner_of_the_socket_verifies(daemon: Daemon, k3s: Lab) -> None:
    listener = {"exe": [os.path.realpath(sys.executable)]}  # the lab's servers are threads of this process
    own = {"name": "k3s-apiserver", "port": 6444, "addresses": ["127.0.0.1"], "listener": listener}
    daemon.configure(ports=[{"name": "k3s-api", "port": 6443, "listener": listener}, own])
    daemon.start()
    take(k3s)
    daemon.until_said(f"kubectl works through {OWN} (KUBECONFIG={KUBECONFIG}), https://[{HOST6}]:6443")
    answer = {way["url"]: way["answer"] for way in ways(daemon)}
    assert answer["https://10.43.0.1:443"] == "answers"  # translated to who knows whom
    assert answer[OWN] == "verified"


def test_another_clusters_certificate_is_no_way(daemon: Daemon, k3s: Lab, node: Path) -> None:
    authority(node, _authority_of_nobody())
    daemon.start()
    take(k3s)
    daemon.until_said("no way to the API was found: ")
    daemon.until_said(f"{OWN} is another cluster's (issuer k3swatch-lab)")


def test_nothing_is_dialled_while_nothing_is_taken(daemon: Daemon, k3s: Lab) -> None:
    daemon.start()
    status = daemon.status()
    assert [row for row in status["connections"] if row["connections"]] == []
    assert status["incidents"] == []


def test_a_server_that_says_nothing_costs_a_moment(daemon: Daemon, k3s: Lab, node: Path) -> None:
    """A listener that accepts and is silent."""
    with k3s.host.inside():
        silent = socket.create_server(("127.0.0.1", 16444))
    k3s.host.shell("iptables -t nat -A OUTPUT -d 127.0.0.1 -p tcp --dport 6444 -j DNAT --to 127.0.0.1:16444")
    with silent:
        daemon.start()
        take(k3s)
        daemon.until_said("the API answers at https://10.43.0.1:443, https://[")
        (own,) = [way for way in ways(daemon) if way["url"] == OWN]
    assert (own["answer"], own["why"]) == ("silent", "no answer")


def _authority_of_nobody() -> str:
    made = "-nodes -days 2 -subj /CN=nobody -keyout /dev/null"
    text = run(f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 {made}".split())
    return text[text.index("-----BEGIN CERTIFICATE") :]


def test_an_incident_of_another_port_dials_nobody(k3s: Lab, daemon: Daemon) -> None:
    daemon.configure(ports=[{"name": "ssh", "port": 22}])
    with ApiServer(k3s.host, "SSH", 22):
        daemon.start()
        k3s.host.shell("iptables -t nat -A PREROUTING -p tcp --dport 22 -j REDIRECT --to-ports 8443")
        daemon.until_said("tcp/22 (ssh) is DIVERTED")
        assert ways(daemon) == []
