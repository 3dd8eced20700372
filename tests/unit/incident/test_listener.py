"""Nobody listens: a notice, a warning when it lasts, a notice when it is over."""

from __future__ import annotations

from k3swatch.incident.listener import ListenerWatch
from k3swatch.model.finding import Observation, PortVerdict
from k3swatch.model.incident import Event
from k3swatch.model.port import ProtectedPort

PORT = ProtectedPort("k3s-api", 6443)


def seen(unserved: bool, generation: int | None = 1) -> Observation:
    return Observation((PortVerdict(PORT, unserved=unserved),), generation)


def severities(events: list[Event]) -> list[str]:
    return [dict(event.fields)["K3SWATCH_SEVERITY"] for event in events]


def test_a_restart_of_k3s_is_two_notices() -> None:
    watch = ListenerWatch()
    assert watch.observe(seen(False), 0) == []
    (gone,) = watch.observe(seen(True), 1)
    assert gone.message == "tcp/6443 (k3s-api): nobody listens"
    assert watch.observe(seen(True), 2) == []
    assert watch.deadline() == 61
    (back,) = watch.observe(seen(False), 21)
    assert back.message == "tcp/6443 (k3s-api): somebody listens again, after 20 s"
    assert watch.deadline() is None
    assert watch.tick(500) == []


def test_lasting_is_a_warning_once() -> None:
    watch = ListenerWatch()
    assert severities(watch.observe(seen(True), 0)) == ["notice"]
    assert watch.tick(59) == []
    assert severities(watch.tick(60)) == ["warning"]
    assert watch.tick(61) == []
    assert watch.deadline() is None
    assert severities(watch.observe(seen(False), 90)) == ["notice"]


def test_an_unreadable_ruleset_says_nothing_about_listeners() -> None:
    watch = ListenerWatch()
    watch.observe(seen(True), 0)
    assert watch.observe(seen(False, generation=None), 10) == []
    assert severities(watch.observe(seen(True), 60)) == ["warning"]


def test_a_clock_step_back_neither_hangs_nor_hurries() -> None:
    watch = ListenerWatch()
    watch.observe(seen(True), 10_000)
    assert watch.tick(6_400) == []
    assert watch.deadline() == 6_460
    assert severities(watch.tick(6_460)) == ["warning"]


def test_a_port_that_is_no_longer_watched_is_forgotten() -> None:
    watch = ListenerWatch()
    watch.observe(seen(True), 0)
    watch.observe(Observation((), 2), 1)
    assert watch.deadline() is None
