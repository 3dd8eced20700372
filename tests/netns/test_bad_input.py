"""Hostile names in the ruleset and a host that lacks things: nothing breaks, nothing is forged, nothing is guessed.

Chain names, comments and process names are written by whoever can write them. They must not move a cursor, start a
line of their own, end a JSON string or a label, or stop the daemon; and JSON must still carry them whole.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import REPO, Daemon

from k3swatch.demo.netns import Namespace

Run = Callable[..., subprocess.CompletedProcess[str]]

ESCAPES = (
    '\x1b[2J\x1b]0;pwn\x07"}{\u202e'  # clears the screen, sets the title, ends a string, turns the text round
)
TABLE = "table ip t { chain c { type nat hook prerouting priority 0; tcp dport 6443 dnat to 10.9.9.9:1; }; }"
COMMENTS = {
    "terminal": ESCAPES,
    "lines": "fine\n<1>k3swatch: tcp/6443 is delivered again\r\nk3swatch_port_state 1",
    "quotes": '"\'\\"$(reboot)`reboot`%s%n{0}',
    "long": "A" * 255,
    "not UTF-8": os.fsdecode(bytes(range(0x80, 0x100)) * 2)[:255],
    "nothing": "",
}


def iptables(space: Namespace, *arguments: str) -> None:
    """iptables-nft with arguments of any bytes but NUL."""
    with space.inside():
        subprocess.run(["iptables", "-t", "nat", *map(os.fsencode, arguments)], check=True, timeout=30)


def divert(space: Namespace, chain: str, comment: str) -> None:
    """A rule in `chain` with `comment` that takes the port."""
    if chain != "PREROUTING":
        iptables(space, "-N", chain)
        iptables(space, "-A", "PREROUTING", "-p", "tcp", "--dport", "6443", "-j", chain)
    match = ["-m", "comment", "--comment", comment] if comment else []
    iptables(space, "-A", chain, "-p", "tcp", "--dport", "6443", *match, "-j", "DNAT", "--to", "10.9.9.9:443")


def harmless(text: str) -> None:
    """Nothing but printable text and ends of lines."""
    for line in text.removesuffix("\n").split("\n"):
        assert line.isprintable(), repr(line)


def judge_all_texts(
    space: Namespace, k3swatch: Run, comment: str | None = None, chain: str | None = None
) -> None:
    """check, explain, snapshot: harmless, and JSON still has it whole."""
    for command in ("check", "explain"):
        done = k3swatch(space, command)
        assert done.returncode == 1, done.stderr
        assert "DIVERTED" in done.stdout.upper()
        harmless(done.stdout)
        done = k3swatch(space, command, "--format", "json")
        harmless(done.stdout)
        assert done.stdout.isascii()
        step = json.loads(done.stdout)["ports"][0]["findings"][0]["path"][-1]
        if comment is not None:
            assert (step["comment"] or "") == comment
        if chain is not None:
            assert step["chain"] == chain


@pytest.mark.parametrize("kind", COMMENTS)
def test_hostile_comments(kind: str, space: Namespace, k3swatch: Run) -> None:
    divert(space, "PREROUTING", COMMENTS[kind])
    lossless = COMMENTS[kind] if kind != "not UTF-8" else None  # bytes that are no text are shown as escapes
    judge_all_texts(space, k3swatch, comment=lossless)


@pytest.mark.parametrize("name", ['\x1b[2J\x07"}{', "'`$(id)`\\", "\u202egnol", "-".join("x" * 14)])
def test_hostile_chain_names(name: str, space: Namespace, k3swatch: Run) -> None:
    divert(space, name, "")
    judge_all_texts(space, k3swatch, chain=name)


def test_the_daemon_says_hostile_names_harmlessly(space: Namespace, tmp_path: Path) -> None:
    """On stderr, in metrics, in `status`; by a process whose very name is an attack."""
    evil = tmp_path / 'x\n<1>\x1b[2J"}'
    evil.symlink_to(str(shutil.which("nft")))
    with Daemon(space, tmp_path / "d") as daemon:
        with space.inside():
            subprocess.run([str(evil), TABLE], check=True, timeout=30)
        daemon.until_said("is DIVERTED to 10.9.9.9:1")
        divert(space, '\x1b[2J\x07"}{', COMMENTS["lines"])
        daemon.until_said("DIVERTED to 10.9.9.9:443")
        for line in daemon.said().removesuffix("\n").split("\n"):
            assert line.isprintable()
            assert line[0] == "<"
            assert line[2:].startswith(">k3swatch: ")
        body = daemon.scrape().partition("\r\n\r\n")[2]
        harmless(body)
        infos = [f for f in text_string_to_metric_families(body) if f.name == "k3swatch_diversion_info"]
        assert {sample.labels["destination"] for sample in infos[0].samples} == {"10.9.9.9:1", "10.9.9.9:443"}
        harmless(json.dumps(daemon.status()))
        incident = next(one for one in daemon.status()["incidents"] if "10.9.9.9:1" in one["cause"])
        assert incident["committer"]["comm"] == 'x\n<1>\x1b[2J"}'


def test_junk_of_every_length_in_the_ruleset(space: Namespace, tmp_path: Path) -> None:
    """Rules with junk come and go under a running daemon: it lives, and knows the end."""
    with Daemon(space, tmp_path) as daemon:
        for length in (1, 31, 64, 127, 200, 255):
            divert(space, "PREROUTING", os.fsdecode(bytes((7 * n) % 255 + 1 for n in range(length))))
            iptables(space, "-F")
        space.run("nft", "flush ruleset")
        daemon.until(lambda: daemon.running() and daemon.state() == "delivered", "delivered")
        assert "Traceback" not in daemon.said()


WITHOUT_NF_TABLES = """
import errno, os, socket, sys
class Socket(socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if family == socket.AF_NETLINK and proto == 12:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        super().__init__(family, type, proto, fileno)
socket.socket = Socket
from k3swatch.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_nf_tables(space: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line on a kernel that knows no NETLINK_NETFILTER: the system call refuses."""
    with space.inside():
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_NF_TABLES, *arguments],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_kernel_without_nf_tables_is_unknown(command: str, space: Namespace) -> None:
    done = without_nf_tables(space, command, "--format", "json")
    assert done.returncode == 2, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "unknown"
    assert document["generation"] is None
    assert all("not supported" in finding["why"] for finding in document["ports"][0]["findings"])
    text = without_nf_tables(space, command)
    assert text.returncode == 2
    assert "not supported" in text.stdout


def test_the_daemon_on_a_kernel_without_nf_tables(space: Namespace, tmp_path: Path) -> None:
    """It says that it is blind, keeps trying, and ends when asked; it never says delivered."""
    daemon = Daemon(space, tmp_path)
    with space.inside(), daemon.stderr.open("wb") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", WITHOUT_NF_TABLES, "run", "--config", str(daemon.config)],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    with daemon:
        daemon.until_said("nf_tables: ")
        daemon.until_said("is UNKNOWN")
        assert daemon.state() == "unknown"
        assert 'k3swatch_port_state{port="k3s-api",state="unknown"} 1.0' in daemon.scrape()
        assert {source["name"] for source in daemon.status()["sources"] if source["blind"]} >= {
            "nf_tables",
            "commits",
        }
        assert not daemon.status()["daemon"]["healthy"]
        assert daemon.stop() == 0


def test_legacy_tables_are_not_overlooked(space: Namespace, tmp_path: Path, k3swatch: Run) -> None:
    """iptables-legacy gives no event and is not in nf_tables: what it does is at least unknown, within seconds."""
    with Daemon(space, tmp_path) as daemon:
        assert daemon.state() == "delivered"
        rule = "-A PREROUTING -p tcp --dport 6443 -j DNAT --to-destination 10.9.9.9:443"
        space.run("iptables-legacy", "-t", "nat", *rule.split())
        daemon.until(lambda: daemon.state() in ("unknown", "diverted"), "unknown or diverted", timeout=5)
    done = k3swatch(space, "check")
    assert done.returncode in (1, 2)
    assert "iptables-legacy" in done.stdout or "10.9.9.9:443" in done.stdout
