"""`explain` on snapshots of real rulesets: the text a person reads, and that it fits their screen.

The snapshots were taken by `k3swatch snapshot` in a namespace with a K3s server's addresses and listener, after
`iptables-restore` of what the CNI plugin portmap and kube-proxy had made: `hostport` is a LoadBalancer Service's
pod with hostPort 6443, `hostport-and-loadbalancer` the same when the Service also got the node's own address.
`same-priority` is tests/netns/cases/nft-tied-filters.case.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from k3swatch import cli

DATA = Path(__file__).parent / "data"
SNAPSHOTS = sorted(path.name.removesuffix(".snapshot.json") for path in DATA.glob("*.snapshot.json"))
STATUS = {"delivered": 0, "hostport": 1, "hostport-and-loadbalancer": 1, "same-priority": 2}
PAGE = DATA.parents[2] / "docs" / "explain.md"


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_explain_says_what_it_said(
    name: str, capsys: pytest.CaptureFixture[str], update_golden: bool
) -> None:
    status = cli.main(["explain", "tcp/6443", "--snapshot", str(DATA / f"{name}.snapshot.json")])
    said = capsys.readouterr().out
    expected = DATA / f"{name}.explain.txt"
    if update_golden:
        expected.write_text(said)
    assert said == expected.read_text()
    assert status == STATUS[name]


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_explain_fits_a_terminal(name: str) -> None:
    lines = (DATA / f"{name}.explain.txt").read_text().splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def explained(name: str, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    cli.main(["explain", "--format", "json", "--snapshot", str(DATA / f"{name}.snapshot.json"), *options])
    port: dict[str, object] = json.loads(capsys.readouterr().out)["ports"][0]
    return port


@pytest.mark.parametrize(
    ("options", "destinations"),
    [
        (["--to", "127.0.0.1"], {"10.42.0.244:6443"}),
        (["--to", "fd00:1::233"], set()),
        (["--from", "10.42.0.9", "--to", "192.168.1.233"], {"192.168.1.200:6443", "10.42.0.244:6443"}),
        (["--vantage", "local", "--to", "10.42.0.1"], {"10.42.0.244:6443"}),
        (["--from", "fd00:1::50"], set()),
    ],
)
def test_explain_narrowed(
    options: list[str], destinations: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    port = explained("hostport-and-loadbalancer", capsys, *options)
    findings = port["findings"]
    assert isinstance(findings, list)
    assert {finding["destination"] for finding in findings} == destinations
    assert port["judged"]
    if "--vantage" in options:
        assert {finding["vantage"] for finding in findings} == {"local"}
    if "--from" in options:
        assert {finding["vantage"] for finding in findings} <= {"external"}


def test_the_waiting_cause_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Removing the LoadBalancer's rule alone would hand the port to the hostPort: that must be visible."""
    port = explained("hostport-and-loadbalancer", capsys, "--to", "192.168.1.233", "--vantage", "external")
    findings = port["findings"]
    assert isinstance(findings, list)
    assert [(finding["destination"], finding["shadowed"]) for finding in findings] == [
        ("192.168.1.200:6443", False),
        ("10.42.0.244:6443", True),
    ]


def shown() -> list[tuple[str, str, str]]:
    """What docs/explain.md shows: arguments, output, and the snapshot that it names below."""
    block = r"```text\n\$ k3swatch (explain .*)\n((?:.*\n)*?)```\n<!-- (\S+) -->"
    return re.findall(block, PAGE.read_text())


def test_the_page_on_explain_shows_what_it_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PAGE.parents[1])
    assert len(shown()) == PAGE.read_text().count("```text") == 4
    for arguments, output, snapshot in shown():
        cli.main([*arguments.split(), "--snapshot", snapshot])
        assert capsys.readouterr().out == output


def test_the_page_quotes_lines_that_are_there() -> None:
    """The table that goes through the first output line by line."""
    output = shown()[0][1]
    quoted = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(quoted) > 8
    for line in quoted:
        assert re.search(".*".join(map(re.escape, line.split("…"))), output), line
