"""The port taken without a rule: who answers a real connection, beside what `check` says.

The servers are processes of their own (`SERVER`): the owner runs this Python, the taker a copy of it, so that their
executables differ. What `check` says must not contradict a single answer.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import bpfload
from support.daemon import Daemon, python

from k3swatch.demo.lab import HOST, Lab
from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.demo.said import said_about
from k3swatch.sources import procs

SERVER = """
import json, socket, sys
name, address, device, v6only, group = json.loads(sys.argv[1])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = socket.socket(family, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections may linger
if v6only is not None: server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
if group: server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
if device: server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
server.bind((address, 6443))
server.listen(64)
print("listens", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(name.encode())
    connection.close()
"""
OWNER, TAKER, REFUSED = "OWNER", "TAKER", "refused"
ADDRESS, ADDRESS6, OTHER = "192.0.2.1", "fd00::1", "192.0.2.77"
TRIES = 12  # connections: two programs that share a port are both seen, but for one time in 2000


@dataclass(frozen=True)
class Bind:
    """One server: whose, where, SO_BINDTODEVICE, IPV6_V6ONLY, SO_REUSEPORT."""

    name: str
    address: str
    device: str = ""
    v6only: bool | None = None
    group: bool = True


@dataclass(frozen=True)
class Host:
    """The host, a client on its eth0, and the executables of the two."""

    space: Namespace
    client: Namespace
    executables: dict[str, str]

    @contextmanager
    def serving(self, *binds: Bind) -> Iterator[None]:
        """The servers, in this order, until the block ends."""
        with ExitStack() as stack:
            for bind in binds:
                fields = [bind.name, bind.address, bind.device, bind.v6only, bind.group]
                argv = [self.executables[bind.name], "-S", "-c", SERVER, json.dumps(fields)]
                with self.space.inside():
                    server = subprocess.Popen(argv, stdout=subprocess.PIPE, env={"PYTHONHOME": "/usr"})
                stack.enter_context(server)
                stack.callback(server.kill)
                assert server.stdout is not None
                assert server.stdout.readline() == b"listens\n"
            yield

    def answers(self, start: str, address: str) -> set[str]:
        """Who answers."""
        found = set()
        for _ in range(TRIES):
            with (self.space if start == "local" else self.client).inside():
                plain = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            with plain:
                plain.settimeout(2)
                try:
                    plain.connect((address, 6443))
                    found.add(plain.recv(64).decode())
                except ConnectionRefusedError:
                    found.add(REFUSED)
        return found


@pytest.fixture(scope="module")
def host(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    taker = tmp_path_factory.mktemp("taker") / "taker"
    python = os.path.realpath(sys.executable)
    shutil.copy(python, taker)
    with namespaces("one", "client") as spaces:
        one, client = spaces["one"], spaces["client"]
        for space in (one, client):
            space.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        one.ip(
            "link set lo up",
            f"link add eth0 type veth peer name eth0 netns {client.name}",
            f"addr add {ADDRESS}/24 dev eth0",
            f"addr add {OTHER}/24 dev eth0",
            f"addr add {ADDRESS6}/64 dev eth0",
            "link set eth0 up",
        )
        client.ip(
            "link set lo up",
            "addr add 192.0.2.2/24 dev eth0",
            "addr add fd00::2/64 dev eth0",
            "link set eth0 up",
        )
        yield Host(one, client, {OWNER: python, TAKER: str(taker)})


WAYS = [(start, address) for start in ("external", "local") for address in (ADDRESS, OTHER, ADDRESS6)]
WAYS += [("local", "127.0.0.1"), ("local", "::1")]

CASES = {
    "one": [Bind(OWNER, "::", group=False)],
    "one, a socket a family": [Bind(OWNER, "0.0.0.0"), Bind(OWNER, "::", v6only=True)],
    "one, many workers": [Bind(OWNER, "::")] * 3,
    "one, on some addresses": [Bind(OWNER, ADDRESS, group=False), Bind(OWNER, "127.0.0.1", group=False)],
    "a taker alone": [Bind(TAKER, "::", group=False)],
    "more specific": [Bind(OWNER, "::"), Bind(TAKER, ADDRESS)],
    "more specific, mapped": [Bind(OWNER, "::"), Bind(TAKER, f"::ffff:{ADDRESS}")],
    "more specific, ip6": [Bind(OWNER, "::"), Bind(TAKER, ADDRESS6)],
    "less specific": [Bind(OWNER, ADDRESS), Bind(TAKER, "::")],
    "shared": [Bind(OWNER, "::"), Bind(TAKER, "::")],
    "shared, specific": [Bind(OWNER, ADDRESS), Bind(TAKER, ADDRESS)],
    "dual stack and ip": [Bind(OWNER, "::"), Bind(TAKER, "0.0.0.0")],
    "one family each": [Bind(OWNER, "0.0.0.0"), Bind(TAKER, "::", v6only=True)],
    "on an interface": [Bind(OWNER, "::"), Bind(TAKER, "0.0.0.0", device="eth0")],
    "on an interface, dual": [Bind(OWNER, "0.0.0.0"), Bind(TAKER, "::", device="eth0")],
    "on loopback": [Bind(OWNER, "::"), Bind(TAKER, "::", device="lo")],
    "only on an interface": [Bind(OWNER, "::", device="eth0", group=False)],
}
# several groups for one address: the kernel's order cannot be seen
EITHER = {"dual stack and ip", "on an interface", "on an interface, dual", "on loopback"}
NOBODYS = {
    "one",
    "one, a socket a family",
    "one, many workers",
    "one, on some addresses",
    "only on an interface",
}


def contradiction(said: str, answers: set[str]) -> str:
    """Why that cannot be said of these answers; empty when it can."""
    if said in ("delivered", "delivered?") and answers != {OWNER}:
        return "FALSE ALL-CLEAR"
    if said == "diverted" and OWNER in answers:
        return "FALSE ALARM"
    if said in ("unserved", "blocked") and answers != {REFUSED}:
        return "WRONG: somebody answers"
    return ""


@pytest.mark.parametrize("configured", [False, True], ids=["", "configured"])
@pytest.mark.parametrize("case", CASES)
def test_whose_socket_answers(
    host: Host,
    tmp_path: Path,
    k3swatch: Callable[..., subprocess.CompletedProcess[str]],
    case: str,
    configured: bool,
) -> None:
    config = tmp_path / "config.yaml"
    listener = {"listener": {"exe": [host.executables[OWNER]]}} if configured else {}
    config.write_text(json.dumps({"ports": [{"name": "k3s-api", "port": 6443, **listener}]}))
    with host.serving(*CASES[case]):
        answers = {way: host.answers(*way) for way in WAYS}
        done = k3swatch(host.space, "check", "--config", str(config), "--format", "json")
        explained = k3swatch(host.space, "explain", "--config", str(config)).stdout
    port = json.loads(done.stdout)["ports"][0]
    lines = [f"{case}: {port['state']}"]
    for (start, address), who in answers.items():
        word = said_about(port, start == "local", address).word
        # nobody is configured: whoever is alone on the port is its owner
        mine = {OWNER} if case == "a taker alone" and not configured and who == {TAKER} else who
        lines.append(f"{start} {address}: {sorted(who)} said {word} {contradiction(word, mine)}")
        if configured and case not in EITHER:
            exactly = {OWNER: "delivered", TAKER: "diverted", REFUSED: "unserved"}
            if word != (exactly[who.copy().pop()] if len(who) == 1 else "diverted?"):
                lines[-1] += " WRONG: not exactly"
    text = "\n".join(lines)
    assert "FALSE" not in text, text
    assert "WRONG" not in text, text
    wanted = _state(case, configured)
    assert port["state"] == wanted, text
    assert done.returncode == {"delivered": 0, "diverted": 1, "unknown": 2}[wanted]
    if wanted != "delivered":
        assert host.executables[TAKER] in done.stdout
        assert "pid " in explained


def _state(case: str, configured: bool) -> str:
    if case in NOBODYS or (case == "a taker alone" and not configured):
        return "delivered"
    return "unknown" if case == "one family each" and not configured else "diverted"


def test_the_comparison_bites() -> None:
    assert (
        contradiction("delivered", {OWNER, TAKER})
        == contradiction("delivered", {REFUSED})
        == "FALSE ALL-CLEAR"
    )
    assert contradiction("diverted", {OWNER, TAKER}) == "FALSE ALARM"
    assert contradiction("unserved", {OWNER})
    assert not contradiction("diverted?", {OWNER, TAKER})


def test_the_unit_of_a_listener(host: Host, code: Path) -> None:
    """The kernel tells the control group a socket was made in to anybody: here to one with CAP_NET_ADMIN alone."""
    mount = procs.cgroup_mount()
    assert mount is not None
    group = Path(mount, f"k3w-{os.getpid()}.service")
    group.mkdir()
    try:
        server = "import socket, time; s = socket.create_server(('0.0.0.0', 6443)); print(1, flush=True)"
        shell = f'echo $$ > {group}/cgroup.procs; exec {sys.executable} -c "{server}; time.sleep(99)"'
        with host.space.inside():
            running = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE)
        with running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"1\n"
            said = {unit: _as_net_admin(host.space, code, unit) for unit in (group.name, "k3s.service")}
            running.kill()
    finally:
        group.rmdir()
    assert said[group.name]["state"] == "delivered", said[group.name]["findings"]
    other = said["k3s.service"]
    assert other["state"] == "diverted"
    assert other["findings"][0]["path"][-1]["rule"] == f"a process of user 0 in {group.name}"


def _as_net_admin(space: Namespace, code: Path, unit: str) -> dict[str, Any]:
    """What check says of the port to an ordinary user with that capability."""
    directory = Path("/tmp", f"k3w-{os.getpid()}-taken")
    directory.mkdir()
    try:
        config = directory / "config.yaml"
        config.write_text(json.dumps({"ports": [{"port": 6443, "listener": {"exe": ["/x"], "unit": unit}}]}))
        caps = [f"--{kind}=-all,+net_admin" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
        argv = [python(code), "-m", "k3swatch.cli", "check", "--config", str(config), "--format", "json"]
        there = ["env", "-C", str(code)]
        drop = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=0", *caps]  # as in the unit file
        report: dict[str, Any] = json.loads(space.run(*there, *drop, *argv, check=False))
        found: dict[str, Any] = report["ports"][0]
        return found
    finally:
        shutil.rmtree(directory)


# BPF programs


@contextmanager
def attached(on: Lab, hook: str, code: bytes) -> Iterator[None]:
    """A program on the host's eth0."""
    with on.host.inside():
        index = socket.if_nametoindex("eth0")
    kind = bpfload.XDP if hook == "xdp" else bpfload.SCHED_CLS
    with bpfload.loaded(kind, "k3w_test", code) as program, on.host.inside():
        if hook == "tcx ingress":
            with bpfload.linked(program, index, bpfload.TCX_INGRESS):
                yield
        elif hook == "xdp":
            bpfload.attach_xdp(index, program)
            try:
                yield
            finally:
                on.host.run("ip", "link", "set", "eth0", "xdpgeneric", "off")
        else:
            bpfload.attach_tc(index, program)
            try:
                yield
            finally:
                on.host.run("tc", "qdisc", "del", "dev", "eth0", "clsact")


@pytest.mark.parametrize(
    ("hook", "drop", "let"),
    [
        ("xdp", bpfload.XDP_DROP, bpfload.XDP_PASS),
        ("tc ingress", bpfload.TC_DROP, bpfload.TC_OK),
        ("tcx ingress", bpfload.TC_DROP, bpfload.TC_OK),
    ],
)
def test_programs_on_an_interface(
    module_lab: Lab, check: Callable[..., tuple[int, dict[str, Any]]], hook: str, drop: int, let: int
) -> None:
    """Whatever they do: connections go on or end, and that is what cannot be read."""
    module_lab.reset()
    assert check(module_lab.host)[1]["state"] == "delivered"
    for code, answer in ((drop, "timeout"), (let, "K3S-APISERVER")):
        with attached(module_lab, hook, bpfload.answer(code)):
            assert dial(module_lab, HOST) == answer
            status, report = check(module_lab.host)
        assert (status, report["state"]) == (2, "unknown")
        findings = report["ports"][0]["findings"]
        assert {(f["mechanism"], f["vantage"], f["certain"]) for f in findings} == {
            ("bpf", "external", False)
        }
        step = findings[0]["path"][-1]
        assert (step["table"], step["chain"]) == (hook, "eth0")
        assert step["rule"].startswith("k3w_test (tag ")
        assert HOST in {address for f in findings for address in f["addresses"]}
    assert check(module_lab.host)[1]["state"] == "delivered"


@pytest.mark.parametrize(
    ("act", "answer", "state"), [("redirect", "timeout", "unknown"), ("mirror", "K3S-APISERVER", "delivered")]
)
def test_tc_actions_that_are_no_bpf(
    module_lab: Lab, check: Callable[..., tuple[int, dict[str, Any]]], act: str, answer: str, state: str
) -> None:
    """What takes packets away is told; a copy is nobody's hijack."""
    module_lab.reset()
    matching = "protocol ip u32 match ip dport 6443 0xffff action mirred egress"
    module_lab.host.shell(
        "ip link add elsewhere type veth peer name nowhere\nip link set elsewhere up\ntc qdisc add dev eth0 ingress\n"
        f"tc filter add dev eth0 parent ffff: {matching} {act} dev elsewhere"
    )
    try:
        assert dial(module_lab, HOST) == answer
        _, report = check(module_lab.host)
    finally:
        module_lab.host.shell("tc qdisc del dev eth0 ingress\nip link del elsewhere")
    assert report["state"] == state
    steps = [step for f in report["ports"][0]["findings"] for step in f["path"]]
    told = {(step["family"], step["table"], step["chain"], step["rule"]) for step in steps}
    assert told == ({("tc", "tc ingress", "eth0", "mirred")} if state == "unknown" else set())
    assert check(module_lab.host)[1]["state"] == "delivered"


def dial(on: Lab, address: str) -> str:
    from k3swatch.demo.apiserver import who_answers

    return who_answers(on.client, address, 6443, timeout=0.5)


@pytest.mark.parametrize("confined", [False, True], ids=["", "confined"])
def test_sk_lookup_gives_the_connection_to_another_socket(
    module_lab: Lab, check: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path, confined: bool
) -> None:
    """A confined daemon may ask what is attached, but not its name."""
    module_lab.reset()
    running = Daemon(module_lab.host, tmp_path)
    if confined:  # as under a service manager
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(str(tmp_path / "notify"))
        running.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with ExitStack() as stack:
        stack.enter_context(module_lab.host.inside())
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, netns)
        target = stack.enter_context(bpfload.sockmap(server.fileno()))
        program = stack.enter_context(
            bpfload.loaded(
                bpfload.SK_LOOKUP, "k3w_taker", bpfload.steal(target, 6443), bpfload.ATTACH_SK_LOOKUP
            )
        )
        if confined:
            stack.enter_context(manager)
        daemon = stack.enter_context(running)
        daemon.until(lambda: daemon.status()["daemon"]["confined"] is confined, "confinement")
        assert daemon.state() == "delivered"
        with bpfload.linked(program, netns, bpfload.ATTACH_SK_LOOKUP):
            client = stack.enter_context(socket.socket())
            client.settimeout(2)
            client.connect((HOST, 6443))
            server.settimeout(2)
            server.accept()[0].close()  # it came to us
            status, report = check(module_lab.host)
            assert (status, report["state"]) == (2, "unknown")
            assert {f["vantage"] for f in report["ports"][0]["findings"]} == {"external", "local"}
            daemon.until_said("is UNKNOWN")
            daemon.until_said(f"BPF program {'unnamed' if confined else 'k3w_taker (tag '}")
            _it_is_proven(module_lab, daemon, server)
        daemon.until_said("the port is delivered again")


def _it_is_proven(lab: Lab, daemon: Daemon, server: socket.socket) -> None:
    """Connections tell where that program sends them: the same incident, diverted and certain from then on."""
    with lab.client.inside():
        socket.create_connection((HOST, 6443), 2).close()
    there = f"127.0.0.1:{server.getsockname()[1]}"
    daemon.until_said(f"is DIVERTED to {there}")
    incident = functools.partial(_incident, daemon, "ip")
    daemon.until(lambda: incident()["connections"] == 2, "both connections")
    assert len(daemon.status()["incidents"]) == 2, daemon.said()  # one for each family
    assert _incident(daemon, "ip6")["state"] == "unknown"
    assert incident()["state"] == "diverted"
    status = daemon.status()
    assert status["ports"][0]["state"] == "diverted"
    proven = {f["vantage"]: f for f in status["ports"][0]["findings"] if f["state"] == "diverted"}
    assert proven.keys() == {"local", "external"}
    for one in proven.values():
        assert (one["mechanism"], one["destination"], one["certain"]) == ("bpf", there, True)
        assert (one["evidence"], one["addresses"]) == (["flow"], [HOST])
        assert one["path"][-1]["table"] == "sk_lookup"
    counted = {(row["outcome"], row["destination"]): row["connections"] for row in status["connections"]}
    assert counted["diverted", there] >= 2  # and those that the daemon makes itself, to see which ways work


def _incident(daemon: Daemon, family: str) -> dict[str, Any]:
    (found,) = [i for i in daemon.status()["incidents"] if i["findings"][0]["family"] == family]
    return dict(found)


def test_connect4_rewrites_what_a_process_dials(
    module_lab: Lab, check: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    """In a control group of its own, for as short as can be: every namespace of the machine has the same tree."""
    module_lab.reset()
    mount = procs.cgroup_mount()
    assert mount is not None
    group = Path(mount, f"k3w-{os.getpid()}-dial")
    group.mkdir()
    code = bpfload.redial(socket.inet_aton(HOST), 6443, socket.inet_aton("127.0.0.1"))
    shell = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -c "
    peer = f"import socket; print(socket.create_connection(('{HOST}', 6443), 2).getpeername()[0])"
    try:
        fd = os.open(group, os.O_RDONLY)
        with bpfload.loaded(bpfload.CGROUP_SOCK_ADDR, "k3w_dial", code, bpfload.CONNECT4) as program:
            assert module_lab.host.shell(f'{shell}"{peer}"').strip() == HOST
            with bpfload.linked(program, fd, bpfload.CONNECT4):
                assert module_lab.host.shell(f'{shell}"{peer}"').strip() == "127.0.0.1"
                _, report = check(module_lab.host)
        os.close(fd)
    finally:
        group.rmdir()
    assert report["state"] == "unknown"
    (finding,) = report["ports"][0]["findings"]
    assert (finding["vantage"], finding["family"]) == ("local", "ip")
    assert finding["conditions"] == [f"by processes in control group /{group.name}"]
    assert finding["path"][0]["rule"].startswith("k3w_dial (tag ")


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_program_on_the_listeners_control_group(
    host: Host, tmp_path: Path, check: Callable[..., tuple[int, dict[str, Any]]], hook: str
) -> None:
    """What systemd makes of IPAddressDeny=any, here in the slice above the service: no rule, no answer."""
    mount = procs.cgroup_mount()
    assert mount is not None
    above = Path(mount, f"k3w-{os.getpid()}.slice")
    group = above / "k3s.service"
    group.mkdir(parents=True)
    server = SERVER.replace('"', "'")
    fields = json.dumps([OWNER, "::", "", None, False]).replace('"', '\\"')
    shell = f'echo $$ > {group}/cgroup.procs; exec {sys.executable} -c "{server}" "{fields}"'
    kind = getattr(bpfload, f"INET_{hook.upper()}")
    daemon = Daemon(host.space, tmp_path)
    try:
        with host.space.inside():
            running = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE)
        with running, daemon:
            assert running.stdout is not None
            assert running.stdout.readline() == b"listens\n"
            daemon.until(lambda: daemon.state() == "delivered", "the listener")
            fd = os.open(above, os.O_RDONLY)
            for act, answer in ((0, "timeout"), (1, OWNER)):
                with (
                    bpfload.loaded(bpfload.CGROUP_SKB, "sd_fw_test", bpfload.answer(act), kind) as program,
                    bpfload.linked(program, fd, kind),
                ):
                    assert _answer(host) == answer
                    status, report = check(host.space)
                    daemon.until(lambda: daemon.state() == "unknown", "the program")
                assert (status, report["state"]) == (2, "unknown")
                findings = report["ports"][0]["findings"]
                assert {f["vantage"] for f in findings} == {"local", "external"}
                (step,) = findings[0]["path"]
                assert (step["family"], step["table"], step["chain"]) == (
                    "bpf",
                    f"cgroup_skb {hook}",
                    f"/{above.name}",
                )
                assert step["rule"].startswith("sd_fw_test (tag ")
                assert "IPAddressDeny=" in findings[0]["why"]
                daemon.until(lambda: daemon.state() == "delivered", "its end")
            os.close(fd)
            running.kill()
    finally:
        group.rmdir()
        above.rmdir()


def _answer(host: Host) -> str:
    with host.client.inside():
        plain = socket.socket()
    with plain:
        plain.settimeout(1)
        try:
            plain.connect((ADDRESS, 6443))
            return plain.recv(64).decode()
        except TimeoutError:
            return "timeout"


def test_a_connection_confirms_whose_socket_has_it(host: Host, tmp_path: Path) -> None:
    """The wrong program's, and it is known to be. Those that the right one has confirm nothing."""
    daemon = Daemon(host.space, tmp_path)
    daemon.configure(ports=[{"port": 6443, "listener": {"exe": [host.executables[OWNER]]}}])
    with host.serving(*CASES["more specific"]), daemon:
        daemon.until(lambda: daemon.state() == "diverted", "the socket is seen")
        assert host.answers("external", OTHER) == {OWNER}
        (incident,) = daemon.status()["incidents"]
        assert (incident["confirmed_at"], incident["connections"]) == (None, 0)
        assert host.answers("external", ADDRESS) == {TAKER}
        daemon.until_said("and this is real")
        status = daemon.status()
        (incident,) = status["incidents"]
        assert 0 < incident["connections"] <= TRIES
        assert {tuple(f["evidence"]) for f in incident["findings"]} == {("flow", "listener")}
        counted = {(row["outcome"], row["destination"]): row["connections"] for row in status["connections"]}
        assert counted["diverted", f"{ADDRESS}:6443"] == TRIES


def test_the_daemon_tells_of_a_socket_within_seconds(host: Host, tmp_path: Path) -> None:
    """No event of the kernel tells of a bind; and no commit is blamed for it."""
    with host.serving(Bind(OWNER, "::")), Daemon(host.space, tmp_path) as daemon:
        assert daemon.state() == "delivered"
        with host.serving(Bind(TAKER, ADDRESS)):
            daemon.until_said("may be DIVERTED")
            line = next(line for line in daemon.said().splitlines() if "may be DIVERTED" in line)
            assert f"socket {ADDRESS}:6443 of {host.executables[TAKER]} (pid " in line
            assert "a more specific bind" in line
            daemon.until(
                lambda: 'k3swatch_incidents_total{mechanism="socket",port="k3s-api"}' in daemon.scrape(),
                "the metric",
            )
        daemon.until_said("the port is delivered again")
        assert daemon.status()["incidents"] == []
