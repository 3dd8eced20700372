"""What the guard neutralises, over time: told once when it comes and when it goes, whatever rewrites it meanwhile."""

from __future__ import annotations

from dataclasses import replace

from k3swatch.daemon import notices
from k3swatch.incident.engine import Engine
from k3swatch.incident.guarded import MOST, STAYS_AWAY, GuardWatch, What
from k3swatch.model.finding import Finding, Observation, PathStep, PortVerdict
from k3swatch.model.incident import Change
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Family, Mechanism, State, Vantage

PORT = ProtectedPort("k3s-api", 6443)
HELD = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.EXTERNAL,
    Family.IP,
    ("192.168.1.233",),
    "10.42.0.244:6443",
    shadowed=True,
    neutralised=True,
    path=(PathStep("ip", "nat", "CNI-DN-00ae", 5, "tcp dport 6443 dnat to 10.42.0.244:6443"),),
)
ACTING = replace(HELD, shadowed=False, neutralised=False)


def seen(*findings: Finding, generation: int | None = 7) -> Observation:
    return Observation((PortVerdict(PORT, findings),), generation)


def what(watch: GuardWatch, observation: Observation, now: float) -> list[What]:
    return [each.what for each in watch.observe(observation, now)]


def test_it_is_told_once() -> None:
    watch = GuardWatch()
    assert what(watch, seen(HELD, replace(HELD, vantage=Vantage.LOCAL)), 1) == [What.HELD]
    assert what(watch, seen(replace(HELD, path=(replace(HELD.path[0], handle=99),))), 2) == []
    assert what(watch, seen(generation=None), 3) == []
    assert watch.deadline() is None


def test_what_is_written_anew_is_not_gone() -> None:
    watch = GuardWatch()
    watch.observe(seen(HELD), 0)
    assert what(watch, seen(), 10) == []
    assert watch.deadline() == 10 + STAYS_AWAY
    assert watch.tick(10 + STAYS_AWAY - 1) == []
    assert what(watch, seen(HELD), 10 + STAYS_AWAY - 1) == []
    assert watch.deadline() is None


def test_what_stays_away_is_gone() -> None:
    watch = GuardWatch()
    watch.observe(seen(HELD), 0)
    watch.observe(seen(), 10)
    (news,) = watch.tick(10 + STAYS_AWAY)
    assert news.what is What.GONE
    assert watch.tick(100) == []
    assert what(watch, seen(HELD), 200) == [What.HELD]


def test_the_guard_goes_and_the_cause_acts() -> None:
    watch = GuardWatch()
    watch.observe(seen(HELD), 0)
    (news,) = watch.observe(seen(ACTING), 5)
    event = notices.guarded(news)
    assert "the guard does not stand before it any more: dnat to 10.42.0.244:6443" in event.message
    assert dict(event.fields)["K3SWATCH_SEVERITY"] == "warning"
    assert dict(event.fields)["K3SWATCH_STATE"] == "diverted"


def test_thousands_of_causes_are_not_thousands_of_notices() -> None:
    many = [replace(HELD, destination=f"10.0.{n // 250}.{n % 250}:6443") for n in range(1000)]
    assert len(GuardWatch().observe(seen(*many), 0)) == MOST


def test_hostile_text_is_escaped() -> None:
    evil = replace(HELD, path=(replace(HELD.path[0], rule="a\x1b[2J\nb", chain="\u202e"),))
    (news,) = GuardWatch().observe(seen(evil), 0)
    assert notices.guarded(news).message.isprintable()


def test_it_is_no_incident_and_ends_one() -> None:
    engine = Engine()
    assert engine.observe(seen(HELD), 0) == []
    (opened,) = engine.observe(seen(ACTING), 1)
    assert opened.change is Change.OPENED
    (resolved,) = engine.observe(seen(HELD), 2)
    assert resolved.change is Change.RESOLVED
    assert resolved.verdict.state is State.DELIVERED
    assert engine.observe(seen(ACTING), 3)[0].change is Change.OPENED
