"""Ways to the API and incidents: told once by one of them, known to all, told again when something else works."""

from __future__ import annotations

from dataclasses import replace

from k3swatch.incident.engine import Engine
from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.incident import Change
from k3swatch.model.port import ProtectedPort
from k3swatch.model.way import Answer, Way
from k3swatch.model.words import Family, Mechanism, State, Vantage
from k3swatch.sinks.codec import decode, encode
from k3swatch.sinks.fields import of_transition
from k3swatch.view.message import description, message

PORT, SSH = ProtectedPort("k3s-api", 6443), ProtectedPort("ssh", 22)
STEP = PathStep("ip", "nat", "CNI-DN-1", 15, "tcp dport 6443 dnat to 10.42.0.5:6443")
FINDING = Finding(
    State.DIVERTED, Mechanism.DNAT, Vantage.LOCAL, Family.IP, ("127.0.0.1",), "10.42.0.5:6443", path=(STEP,)
)
OTHER = replace(FINDING, path=(replace(STEP, chain="KUBE-EXT-1"),))
OWN = Way("https://127.0.0.1:6444", Answer.VERIFIED, "/x/admin.kubeconfig", "k3s-server-ca@1")
SILENT = Way("https://10.43.0.1:443", Answer.SILENT, why="refused")
NAMES = {"k3s-api"}


def engine(*findings: Finding) -> Engine:
    made = Engine()
    made.observe(Observation((PortVerdict(PORT, findings), PortVerdict(SSH, findings)), 1), 1.0)
    return made


def test_told_once_by_the_oldest_and_known_to_all_of_these_ports() -> None:
    it = engine(FINDING, OTHER)
    (told,) = it.ways(NAMES, (OWN, SILENT), 1.5)
    assert told.change is Change.CHANGED
    assert message(told) == (
        "tcp/6443 (k3s-api) is still DIVERTED to 10.42.0.5:6443; "
        "kubectl works through https://127.0.0.1:6444 (KUBECONFIG=/x/admin.kubeconfig)"
    )
    assert [one.ways for one in it.incidents if one.port == "k3s-api"] == [(OWN, SILENT)] * 2
    assert [one.ways for one in it.incidents if one.port == "ssh"] == [(), ()]
    assert it.ways(NAMES, (OWN, replace(SILENT, why="no answer")), 61.0) == []  # the same works


def test_told_again_when_something_else_works() -> None:
    it = engine(FINDING)
    it.ways(NAMES, (OWN,), 1.5)
    (worse,) = it.ways(NAMES, (replace(OWN, answer=Answer.SILENT, why="refused"),), 61.0)
    assert message(worse).endswith("no way to the API was found: https://127.0.0.1:6444 refused")
    (better,) = it.ways(NAMES, (OWN,), 121.0)
    assert "kubectl works" in message(better)


def test_none_at_all_is_told() -> None:
    (told,) = engine(FINDING).ways(NAMES, (SILENT,), 1.5)
    assert "no way to the API was found" in message(told)


def test_nothing_is_open() -> None:
    assert engine().ways(NAMES, (OWN,), 1.5) == []


def test_it_stays_when_the_rules_are_looked_at_again_and_is_stored() -> None:
    it = engine(FINDING)
    it.ways(NAMES, (OWN, SILENT), 1.5)
    verdicts = (PortVerdict(PORT, (replace(FINDING, addresses=("127.0.0.1", "192.0.2.1")),)),)
    (changed, *_) = it.observe(Observation(verdicts, 2), 2.0)
    assert changed.incident.ways == (OWN, SILENT)
    assert "kubectl works" not in message(changed)  # this change is about something else
    assert decode(encode(changed.incident)) == changed.incident
    assert Engine([changed.incident]).incidents[0].ways == (OWN, SILENT)


def test_the_alert_and_the_journal_have_them() -> None:
    (told,) = engine(FINDING).ways(NAMES, (OWN, SILENT), 1.5)
    assert description(told.incident).endswith(
        "Kubectl works through https://127.0.0.1:6444 (KUBECONFIG=/x/admin.kubeconfig)."
    )
    fields = of_transition(told)
    assert [value for name, value in fields if name == "K3SWATCH_WAY"] == [
        "https://127.0.0.1:6444 KUBECONFIG=/x/admin.kubeconfig"
    ]
    assert sum(name == "K3SWATCH_WAYS" for name, _ in fields) == 1
