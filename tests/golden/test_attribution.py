"""Who takes the port, on rulesets and node files as real programs wrote them.

`data/who/seed.snapshot.json` was taken by `k3swatch snapshot` after `iptables-restore` of the reproduced incident;
`data/who/node` is that node's file system: libcni's cache, host-local's lease, containerd's tasks, the kubelet's log
directory, and a datastore in kine's schema. `data/who/corpus.txt` is what the rulesets of `corpus/` say of themselves,
without any file, and with those of that node.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from support.corpus import API, CORPUS, NAMES
from support.cri import Runtime, sandbox, speaks

from k3swatch import cli
from k3swatch.attribute import cri
from k3swatch.daemon.attribution import attributed
from k3swatch.evaluate import judge
from k3swatch.live.snapshot import SnapshotRuleset
from k3swatch.model.finding import Observation
from k3swatch.view.who import sure, taken_by

WHO = Path(__file__).parent / "data" / "who"
NODE = WHO / "node"
POD = "kube-system/svclb-kubeapi-loadbalancer-8e92d16f-htf6q"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A copy: reading must leave it as it is, and that is compared."""
    copy = tmp_path / "node"
    shutil.copytree(NODE, copy)
    return copy


def explain(root: Path, *options: str) -> int:
    return cli.main(["explain", *options, "--snapshot", str(WHO / "seed.snapshot.json"), "--root", str(root)])


def test_the_seed_incident_fits_a_terminal_and_names_pod_and_service(
    node: Path, capsys: pytest.CaptureFixture[str], update_golden: bool
) -> None:
    assert explain(node) == 1
    said = capsys.readouterr().out
    expected = WHO / "seed.explain.txt"
    if update_golden:
        expected.write_text(said)
    assert said == expected.read_text()
    lines = said.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert f"  taken by: pod {POD}" in lines


def test_the_seed_incident_as_json(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(node, "--format", "json")
    findings = json.loads(capsys.readouterr().out)["ports"][0]["findings"]
    by_destination = {finding["destination"]: finding["culprit"] for finding in findings}
    assert by_destination["10.42.0.244:6443"] == {
        "pod": POD,
        "owner": "DaemonSet/svclb-kubeapi-loadbalancer-8e92d16f",
        "service": "default/kubeapi-loadbalancer",
        "container": "ede57a0f3a31adbc22b399a422eb850e748b56cbc000aeb769a2f766b68696a0",
        "process": None,
        "committed": None,
        "confidence": "high",
        "sources": ["rule-comment", "chain-hash", "lease", "cni-cache", "containerd", "pod-logs", "kine"],
        "forwards": "10.43.49.200:6443",
        "left_behind": False,
        "orphan": None,
        "contradictions": [],
        "notes": [],
    }
    other = by_destination["192.168.1.200:6443"]
    assert (other["pod"], other["service"], other["confidence"]) == (
        None,
        "default/kubeapi-loadbalancer",
        "high",
    )
    assert other["sources"] == ["kube-proxy", "chain-hash", "kine"]


def test_without_a_datastore_the_runtime_says_the_service(
    node: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent, or a server with etcd. `data/who/cri-pods.json` is what that node's containerd answered."""
    monkeypatch.setattr(cri, "SECONDS", 5.0)
    (pod,) = json.loads((WHO / "cri-pods.json").read_text())["pods"]
    meta = pod["metadata"]
    listed = sandbox(pod["id"], meta["name"], meta["uid"], meta["namespace"], pod["labels"])
    with tempfile.TemporaryDirectory(prefix="k3w-") as short:  # a socket's path must be
        root = Path(short, "node")
        shutil.copytree(node, root)
        (root / "var/lib/rancher/k3s/server/db/state.db").unlink()
        explain(root, "--format", "json")
        alone = json.loads(capsys.readouterr().out)["ports"][0]["findings"]
        runtime = Runtime(root, speaks(listed))
        try:
            explain(root, "--format", "json")
        finally:
            runtime.close()
    asked = json.loads(capsys.readouterr().out)["ports"][0]["findings"]
    for findings, source, not_from in ((alone, "kube-proxy", "cri"), (asked, "cri", "kube-proxy")):
        who = next(each["culprit"] for each in findings if each["destination"] == "10.42.0.244:6443")
        assert (who["pod"], who["owner"]) == (POD, "DaemonSet/svclb-kubeapi-loadbalancer-8e92d16f")
        assert (who["service"], who["confidence"]) == ("default/kubeapi-loadbalancer", "high")
        assert source in who["sources"]  # by a rule of the same Service; by its label
        assert not_from not in who["sources"]
        assert who["contradictions"] == []


def test_reading_changes_nothing(node: Path) -> None:
    def tree(root: Path) -> dict[str, bytes | None]:
        return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}

    explain(node)
    assert tree(node) == tree(NODE)


def test_without_root_a_snapshot_is_not_explained_by_this_hosts_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["explain", "--snapshot", str(WHO / "seed.snapshot.json")])
    said = capsys.readouterr().out
    assert POD not in said
    assert "taken by: Service default/kubeapi-loadbalancer [medium: kube-proxy" in said


def test_what_every_ruleset_of_the_corpus_says(node: Path, update_golden: bool) -> None:
    lines = []
    for name in NAMES:
        snapshot = SnapshotRuleset.load(str(CORPUS / f"{name}.snapshot.json"))
        observation = Observation(judge(snapshot, snapshot.host(), [API]), snapshot.generation)
        for files, root in (("rules alone", None), ("with files", str(node))):
            seen = attributed(observation, root, snapshot)
            said = {
                f"{each.destination} in {each.rule.chain}: {taken_by(each.culprit)} {sure(each.culprit)}"
                + "".join(f"\n    {note}" for note in each.culprit.notes)
                for each in seen.verdicts[0].findings
                if each.culprit is not None and each.rule is not None
            }
            lines += [f"{name}, {files}: {one}" for one in sorted(said)]
    text = "\n".join(lines) + "\n"
    expected = WHO / "corpus.txt"
    if update_golden:
        expected.write_text(text)
    assert text == expected.read_text()
