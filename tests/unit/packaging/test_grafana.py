"""The dashboard as Grafana's own model of a dashboard reads it, and its queries as promtool reads them."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[3]
TEXT = (REPO / "packaging/grafana/k3swatch.json").read_text()
DASHBOARD: dict[str, Any] = json.loads(TEXT)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ANNOTATIONS = DASHBOARD["annotations"]["list"]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# of annotations, what belongs to the data source: that of Prometheus reads these
PROMETHEUS_ONLY = {"titleFormat", "textFormat", "step", "useValueForTime"}
VARIABLES = {"$__rate_interval": "5m", "$__range": "6h", "$instance": ".*", "$port": ".*"}


def expressions() -> list[str]:
    """Every query of the dashboard, its variables replaced as Grafana does."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    found += [annotation["expr"] for annotation in ANNOTATIONS]
    for variable, value in VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def lost(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """What the dashboard says and the model does not know, or understands otherwise."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            if key in read:
                yield from lost(value, read[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, pair in enumerate(zip(given, read, strict=True)):
            yield from lost(*pair, f"{path}/{number}")
    elif given != read:
        yield f"{path}: {given!r} became {read!r}"


def through_the_model(dashboard: dict[str, Any]) -> list[str]:
    """Read with Grafana's types (each panel with those of its plugin), write again, compare."""
    pytest.importorskip("grafana_foundation_sdk", reason="make setup")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(dashboard))))
    found = list(lost(dashboard, read))
    return [path for path in found if path.split("/")[-1] not in PROMETHEUS_ONLY]


def test_grafana_knows_every_word_of_it() -> None:
    assert through_the_model(DASHBOARD) == []


@pytest.mark.parametrize("where", ["", "gridPos", "options", "fieldConfig", "targets"])
def test_a_word_that_grafana_does_not_know_is_found(where: str) -> None:
    broken = copy.deepcopy(DASHBOARD)
    panel = next(panel for panel in broken["panels"] if panel["type"] == "timeseries")
    place = panel[where] if where else panel
    place = place[0] if isinstance(place, list) else place
    place["nonsense"] = 1
    assert len(through_the_model(broken)) == 1


def test_every_panel_has_an_id_of_its_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(number, int) and number > 0 for number in ids)


def test_panels_lie_on_the_grid_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height, "a hole"


def test_everything_asks_the_data_source_that_was_chosen() -> None:
    (choice,) = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "datasource"]
    assert (choice["name"], choice["query"]) == ("datasource", "prometheus")
    queries = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    for one in [*PANELS, *ANNOTATIONS, *queries, *(t for panel in PANELS for t in panel["targets"])]:
        assert one["datasource"] == DATASOURCE, one


def test_the_targets_of_a_panel_have_names_of_their_own() -> None:
    for panel in PANELS:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) > 0, panel["title"]
        assert panel["description"], panel["title"]


def test_every_variable_is_defined() -> None:
    defined = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", TEXT)) - {"__rate_interval", "__range", "__all"}
    assert used == defined


def test_promtool_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "queries.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


def test_it_shows_every_metric_that_is_documented_and_no_other() -> None:
    documented = set(
        re.findall(r"^\| `(k3swatch_\w+)`", (REPO / "docs/metrics.md").read_text(), re.MULTILINE)
    )
    used = set(re.findall(r"k3swatch_[a-z_]+", " ".join(expressions())))
    assert {name.removesuffix("_bucket") for name in used} == documented


def test_no_data_does_not_look_like_good_news() -> None:
    """A host that is not scraped has no value: grey and `no data`, not a green zero."""
    for panel in PANELS:
        if panel["type"] == "stat":
            defaults = panel["fieldConfig"]["defaults"]
            base, zero, *_ = defaults["thresholds"]["steps"]
            assert (base["value"], base["color"], zero["value"]) == (None, "text", 0), panel["title"]
            assert defaults["noValue"] == "no data"
            assert "vector(" not in panel["targets"][0]["expr"]
            assert " or " not in panel["targets"][0]["expr"]


def test_every_state_has_its_number_and_its_name() -> None:
    from k3swatch.model.words import State

    (panel,) = [panel for panel in PANELS if panel["type"] == "state-timeline"]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    names = {int(number): shown["text"] for number, shown in mapping["options"].items()}
    assert names == {state.rank: state.value for state in State}
    factors = re.findall(r'state="(\w+)"\} \* (\d)', panel["targets"][0]["expr"])
    assert {int(number): name for name, number in factors} == names
