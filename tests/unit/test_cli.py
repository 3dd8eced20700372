"""The command line: exit statuses, one-line errors with a hint, what is imported, pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from k3swatch import __version__, cli
from k3swatch.model.words import State

REPO = Path(__file__).resolve().parents[2]
SNAPSHOT = str(REPO / "tests" / "golden" / "data" / "hostport.snapshot.json")
DELIVERED = str(REPO / "tests" / "golden" / "data" / "delivered.snapshot.json")


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    program = ["-c", code] if code else ["-m", "k3swatch.cli", *arguments]
    return subprocess.run(
        [sys.executable, *program], cwd=REPO, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        ([], 64, "the following arguments are required: COMMAND"),
        (["frobnicate"], 64, "invalid choice: 'frobnicate'"),
        (["check", "--format", "xml"], 64, "invalid choice: 'xml'"),
        (["config", "check"], 64, "the following arguments are required: FILE"),
        (["explain", "6443/tcp"], 64, "6443/tcp: want tcp/PORT or udp/PORT"),
        (["explain", "99999"], 64, "port 99999 is not in 1..65535"),
        (["explain", "tcp/99999"], 64, "port 99999 is not in 1..65535"),
        (["explain", "tcp/٣"], 64, "port ٣ is not in 1..65535"),
        (["explain", "--from", "nowhere", "--snapshot", SNAPSHOT], 64, "--from: 'nowhere' does not appear"),
        (["explain", "--to", "10.0.0.1/8", "--snapshot", SNAPSHOT], 64, "--to: 10.0.0.1/8 has host bits set"),
        (
            ["explain", "--from", "::5", "--to", "127.0.0.1", "--snapshot", SNAPSHOT],
            64,
            "nobody can dial that port so",
        ),
        (["explain", "--snapshot", "/absent"], 2, "/absent: No such file or directory"),
        (["explain", "--snapshot", "/etc/hostname"], 2, "/etc/hostname: not JSON"),
        (["check", "--config", "/absent"], 78, "/absent: No such file or directory"),
        (["config", "check", "/absent"], 78, "/absent: No such file or directory"),
        (["run", "--config", "/absent"], 78, "/absent: No such file or directory"),
        (["history", "--since", "soon"], 64, "--since: soon: want 2h, 1d or a date"),
        (["restore"], 64, "which port?"),
        (["restore", "tcp/6443", "--rollback", "/absent"], 64, "--rollback takes a file alone"),
        (["restore", "--rollback", "/absent"], 2, "/absent: No such file or directory"),
        (["restore", "--rollback", "/etc/hostname"], 2, "/etc/hostname: not JSON"),
        (["restore", "--rollback", SNAPSHOT], 2, "not a file of `k3swatch restore --apply`"),
        (["guard", "on"], 64, "the following arguments are required: tcp/6443"),
        (["guard", "in", "tcp/6443"], 64, "invalid choice: 'in'"),
        (["guard", "on", "6443/tcp"], 64, "want tcp/PORT or udp/PORT"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_a_status(
    arguments: list[str], status: int, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        got = cli.main(arguments)
    except SystemExit as leaving:
        got = int(str(leaving.code))
    out, err = capsys.readouterr()
    assert got == status
    assert not out
    first, *rest = err.splitlines()
    assert first.startswith("k3swatch: ")
    assert error in first
    assert all(line.startswith("hint: ") for line in rest)
    assert len(rest) <= 1


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.DELIVERED, 0),
        (State.UNSERVED, 0),
        (State.DIVERTED, 1),
        (State.BLOCKED, 1),
        (State.UNKNOWN, 2),
    ],
)
def test_exit_status_of_each_state(state: State, status: int) -> None:
    assert cli.exit_status(state) == status


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"k3swatch {__version__}\n"


def test_config_check_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("ports:\n  - prot: 1\njournal: 3\n")
    assert cli.main(["config", "check", str(path)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f"k3swatch: {path}:2: ports[0].prot: unknown key, did you mean 'port'?",
        f"k3swatch: {path}:2: ports[0]: `port` is missing",
        f"k3swatch: {path}:3: journal: want a mapping, not a number",
        "hint: see `man k3swatch-config` or docs/configuration.md",
    ]


def test_config_check_says_what_is_protected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("ports: [{port: 22}, {port: 53, protocol: udp}]\n")
    assert cli.main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: good, protects tcp/22, udp/53\n"


def test_a_configured_port_keeps_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("ports: [{port: 6443, name: api}, {port: 22}]\n")
    for spec in ("tcp/6443", "6443", "api"):
        cli.main(["explain", spec, "--config", str(path), "--snapshot", SNAPSHOT])
        assert capsys.readouterr().out.startswith("tcp/6443 (api) on node1 is DIVERTED")


def test_without_a_port_explain_tells_all_that_are_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("ports: [{port: 6443}, {port: 22}]\n")
    arguments = ["explain", "--format", "json", "--config", str(path), "--snapshot", SNAPSHOT]
    assert cli.main(arguments) == 1
    ports = json.loads(capsys.readouterr().out)["ports"]
    assert [(port["port"], port["state"]) for port in ports] == [(6443, "diverted"), (22, "unserved")]


@pytest.mark.parametrize(
    ("allow", "status"),
    [("{destination: 10.42.0.0/16}", 0), ("{destination: 10.99.0.0/16}", 1), ('{comment: "*cbr0*"}', 0)],
)
def test_known_good_diversions_are_good_here_too(
    allow: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"ports: [{{port: 6443, allow: [{allow}]}}]\n")
    assert cli.main(["explain", "--config", str(path), "--snapshot", SNAPSHOT]) == status
    shown, note = (
        capsys.readouterr().out,
        "What the configuration allows is told to nobody; without it the port is ",
    )
    assert "is DIVERTED" in shown  # `explain` hides nothing: who lands where is the question
    assert "every connection through" not in shown
    assert (note + "delivered." in shown) is (status == 0)


def test_the_default_file_is_found_below_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc" / "k3swatch").mkdir(parents=True)
    (tmp_path / "etc" / "k3swatch" / "config.yaml").write_text("ports: [{port: 22, name: ssh}]\n")
    assert cli.main(["explain", "--root", str(tmp_path), "--snapshot", DELIVERED]) == 0
    assert "tcp/22 (ssh)" in capsys.readouterr().out


HEAVY = ("bcc", "prometheus_client", "yaml", "sqlite3", "systemd", "http.server", "asyncio", "ssl")


def test_what_a_look_imports(tmp_path: Path) -> None:
    """`check` runs from cron jobs and liveness probes: it must not load what only the daemon needs, or who has a
    configuration file, or K3s (which is looked for)."""
    done = run(
        code="import sys; from k3swatch import cli; "
        f"cli.main(['explain', '--root', {str(tmp_path)!r}, '--snapshot', {SNAPSHOT!r}]); "
        "assert 'k3swatch.k3s.find' in sys.modules; "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    assert done.stderr.strip() == "[]"


def test_help_imports_next_to_nothing() -> None:
    done = run(
        code="import sys; from k3swatch import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "ours = {'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('k3swatch')}\n"
        "print(sorted(ours), file=sys.stderr)"
    )
    assert done.stderr.strip() == "['k3swatch', 'k3swatch.cli', 'k3swatch.errors']"


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`k3swatch ... | head -1`: nothing on stderr, and not the status that means diverted."""
    script = f"{sys.executable} -m k3swatch.cli explain --format json --snapshot {SNAPSHOT} | true; "
    done = subprocess.run(
        ["bash", "-c", script + "echo ${PIPESTATUS[0]}"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "141"


@pytest.mark.parametrize("arguments", ["explain --snapshot " + SNAPSHOT, "config check /dev/null"])
def test_an_answer_that_cannot_be_written_is_no_answer(arguments: str) -> None:
    """A full disk: one line, and not the status that means diverted."""
    done = run(
        code=f"import sys; from k3swatch import cli; sys.stdout = open('/dev/full', 'w'); "
        f"sys.exit(cli.main({arguments.split()!r}))"
    )
    assert done.returncode == 2
    assert done.stderr == "k3swatch: standard output: No space left on device\n"


def test_standard_output_may_be_closed() -> None:
    command = f"{sys.executable} -m k3swatch.cli explain --snapshot {SNAPSHOT} >&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=REPO, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")  # diverted, as the rules say


def test_a_bug_is_not_taken_for_a_diversion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own status for an exception nobody caught is 1, and 1 means diverted."""
    monkeypatch.setattr("k3swatch.config.load", lambda path: dict[str, object]()["bug"])
    assert cli.main(["check"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "KeyError: 'bug'" in err
    assert "not an answer" in err.splitlines()[-1]


def test_a_terminal_that_knows_no_unicode_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "k3swatch.cli", "explain", "--snapshot", SNAPSHOT],
        cwd=REPO,
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert rb"\u2026" in done.stdout


def test_colour_only_on_a_terminal() -> None:
    assert "\x1b" not in run("explain", "--snapshot", SNAPSHOT).stdout
    for environment, coloured in (
        ("TERM=xterm", True),
        ("TERM=xterm NO_COLOR=1", False),
        ("TERM=dumb", False),
    ):
        done = subprocess.run(
            [
                "script",
                "-qec",
                f"env {environment} {sys.executable} -m k3swatch.cli explain --snapshot {SNAPSHOT}",
                "/dev/null",
            ],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "DIVERTED" in done.stdout
        assert ("\x1b[31;1mDIVERTED\x1b[0m" in done.stdout) is coloured, environment


def test_a_bug_is_shown_whole_and_harmless(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> int:
        raise ValueError("a chain called \x1b[2J")

    monkeypatch.setattr("k3swatch.cli.look.check", broken)
    assert cli.main(["check"]) == cli.UNKNOWN
    first, *_, error, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert error == "ValueError: a chain called \\x1b[2J"
    assert last.startswith("k3swatch: this is a bug in k3swatch, not an answer")
