"""JSON against its schema, text against hostile names: nothing that came from outside reaches a terminal raw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k3swatch.errors import DecodeError
from k3swatch.model.finding import Culprit, Finding, Observation, PathStep, PortVerdict
from k3swatch.model.incident import Incident
from k3swatch.model.port import ProtectedPort
from k3swatch.model.process import Parent, Process
from k3swatch.model.words import Attach, Evidence, Family, Mechanism, State, Vantage
from k3swatch.view import check, document, explain, status

HOSTILE = "\x1b[2J\n\r\x00\u202etxt.exe\udcff" + "A" * 300 + '"}{'
STEP = PathStep(
    "ip", "nat", "CNI-DN-8e53e6ce9e633f6853fe9", 15, "tcp dport 6443 dnat to 10.42.0.244:6443", "c", 12
)
FINDING = Finding(
    State.DIVERTED,
    Mechanism.DNAT,
    Vantage.EXTERNAL,
    Family.IP,
    ("192.168.1.233",),
    "10.42.0.244:6443",
    conditions=("from 10.42.0.0/24",),
    evidence=frozenset({Evidence.RULE, Evidence.FLOW}),
    path=(PathStep("ip", "nat", "PREROUTING", 9, "jump CNI-HOSTPORT-DNAT"), STEP),
    culprit=Culprit(pod="kube-system/svclb-x", confidence="high", sources=("CNI cache",)),
)
PORT = ProtectedPort("k3s-api", 6443)


def observation(*findings: Finding, **others: Any) -> Observation:
    judged = ((Vantage.EXTERNAL, "192.168.1.233"), (Vantage.LOCAL, "127.0.0.1"), (Vantage.LOCAL, "::1"))
    verdict = PortVerdict(PORT, findings, judged, unserved=others.pop("unserved", False))
    return Observation((verdict,), others.pop("generation", 42), "node1", **others)


HOSTILE_STEP = PathStep("ip", HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE, 1)
UNKNOWN = Finding(State.UNKNOWN, Mechanism.NONE, Vantage.LOCAL, Family.IP6, (), certain=False, why="no idea")
PROCESS = Process(
    7,
    HOSTILE,
    HOSTILE,
    (HOSTILE,),
    True,
    0,
    (Parent(6, HOSTILE, None),),
    HOSTILE,
    HOSTILE,
    HOSTILE,
    ("exec",),
)
CASES = {
    "committed": observation(replace(FINDING, culprit=Culprit(process=PROCESS.words, committed=PROCESS))),
    "diverted": observation(FINDING),
    "delivered": observation(),
    "unserved": observation(unserved=True),
    "unread": observation(UNKNOWN, generation=None, warnings=("nf_tables: gone",)),
    "waits": observation(FINDING, replace(FINDING, shadowed=True, destination="10.42.0.9:443")),
    "blocked": observation(replace(FINDING, state=State.BLOCKED, mechanism=Mechanism.NONE, destination=None)),
    "hostile": observation(
        replace(FINDING, path=(HOSTILE_STEP, HOSTILE_STEP), conditions=(HOSTILE,), why=HOSTILE),
        warnings=(HOSTILE,),
    ),
}


def complaints(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What of JSON Schema docs/check.schema.json uses, no more: a key it does not use is an error here."""
    known = {"$schema", "$id", "$defs", "title", "description"}
    known |= {"type", "required", "properties", "items", "enum", "const", "anyOf", "$ref"}
    assert schema.keys() <= known, f"{at}: schema uses {schema.keys() - known}"
    found: list[str] = []
    if "$ref" in schema:
        found += complaints(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in schema:
        options = [complaints(value, option, root, at) for option in schema["anyOf"]]
        found += [] if any(not option for option in options) else options[-1]
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else types
    python = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "null": type(None),
    }
    if names and not any(
        isinstance(value, python[name]) and not (name == "integer" and isinstance(value, bool))
        for name in names
    ):
        found.append(f"{at}: {value!r} is no {names}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not among {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if isinstance(value, dict):
        found += [f"{at}: no {key}" for key in schema.get("required", ()) if key not in value]
        properties = schema.get("properties", {})
        found += [f"{at}: {key} is not documented" for key in value if properties and key not in properties]
        for key, inner in properties.items():
            if key in value:
                found += complaints(value[key], inner, root, f"{at}.{key}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += complaints(item, schema["items"], root, f"{at}[{index}]")
    return found


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    path = Path(__file__).resolve().parents[3] / "docs" / "check.schema.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("case", CASES)
def test_check_document_keeps_its_schema(case: str, schema: dict[str, Any]) -> None:
    for probe in (None, *Attach):
        text = document.dumps(document.check(CASES[case], probe))
        assert text.isascii()
        assert complaints(json.loads(text), schema, schema) == []


def test_the_schema_check_bites(schema: dict[str, Any]) -> None:
    good = json.loads(document.dumps(document.check(CASES["diverted"])))
    breaks: tuple[Callable[[Any], object], ...] = (
        lambda d: d.update(schema=2),
        lambda d: d.update(generation="42"),
        lambda d: d.update(extra=1),
        lambda d: d.pop("host"),
        lambda d: d["ports"][0]["findings"][0].update(mechanism="magic"),
        lambda d: d["ports"][0]["findings"][0]["path"][0].update(handle=True),
        lambda d: d["ports"][0]["findings"][0]["culprit"].update(pod=3),
    )
    for break_it in breaks:
        bad = json.loads(json.dumps(good))
        break_it(bad)
        assert complaints(bad, schema, schema), break_it


def test_hostile_text_comes_back_whole_from_json() -> None:
    text = document.dumps(document.check(CASES["hostile"]))
    rule = json.loads(text)["ports"][0]["findings"][0]["path"][0]
    assert rule["chain"] == rule["comment"] == HOSTILE


def everything(case: str) -> str:
    """All texts of one case, one after the other."""
    answer = document.check(CASES[case], Attach.NONE)
    finding = CASES[case].verdicts[0].findings
    incidents = (
        [
            document.incident(
                Incident(
                    "0123456789ab",
                    "k3s-api",
                    "tcp/6443",
                    "critical",
                    State.DIVERTED,
                    finding[0].cause,
                    finding,
                    1,
                    1,
                )
            )
        ]
        if finding
        else []
    )
    answer |= {"daemon": {"version": "1", "pid": 1, "uptime_seconds": 3661.0, "healthy": False}}
    answer |= {"incidents": incidents, "refused": [HOSTILE], "lost": {"ring": 3, "count": 0}}
    answer |= {"sources": [{"name": "connections", "blind": True, "why": HOSTILE}]}
    answer |= {"sinks": [{"name": "journald", "failures": 2}]}
    return "\n".join(
        [
            check.text(CASES[case]),
            explain.text(CASES[case]),
            status.text(status.parse(document.dumps(answer).encode())),
        ]
    )


@pytest.mark.parametrize("case", CASES)
def test_nothing_raw_reaches_a_terminal(case: str) -> None:
    for line in everything(case).split("\n"):
        assert line.isprintable(), line
        assert len(line) < 4000


def test_explain_stays_within_the_screen_whatever_comes() -> None:
    assert max(map(len, explain.text(CASES["hostile"]).splitlines())) <= 80


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (
            "diverted",
            [
                "tcp/6443 (k3s-api): diverted (generation 42)",
                "  diverted: external 192.168.1.233 to 10.42.0.244:6443 by dnat only from 10.42.0.0/24 "
                "rule ip nat CNI-DN-8e53e6ce9e633f6853fe9 #15 (seen) taken by pod kube-system/svclb-x [high]",
            ],
        ),
        ("delivered", ["tcp/6443 (k3s-api): delivered (generation 42)"]),
        ("unserved", ["tcp/6443 (k3s-api): unserved (generation 42, nobody listens)"]),
        (
            "unread",
            [
                "tcp/6443 (k3s-api): unknown (unread)",
                "  unknown (not certain): local ip6: no idea",
                "warning: nf_tables: gone",
            ],
        ),
    ],
)
def test_check_says_one_line_a_port_and_one_a_finding(case: str, lines: list[str]) -> None:
    assert check.text(CASES[case]).splitlines() == lines


def test_an_unknown_family_is_not_told_as_unaffected() -> None:
    """::1 is of the family nothing is known about: it must not be listed among the good."""
    text = explain.text(CASES["unread"])
    assert "Unaffected: 192.168.1.233 from outside; 127.0.0.1 from this host" in text
    assert "::1" not in text


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"state": "fine"}', b'{"state": "unknown"', b"\xff"])
def test_an_answer_that_is_none_is_an_error(answer: bytes) -> None:
    with pytest.raises(DecodeError):
        status.parse(answer)
