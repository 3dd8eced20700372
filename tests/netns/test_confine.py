"""The confined daemon: what is refused to it, and that it still does all of its work."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import inject
from support.daemon import REPO, Daemon

from k3swatch.daemon import confine
from k3swatch.demo.netns import Namespace, namespaces

NFT = "table ip evil { chain pre { type nat hook prerouting priority -100; tcp dport 6443 dnat to 10.9.9.9:443; }; }"

# Runs in a child, because a filter is for ever: what each of the calls answers before and after, in a thread
# that existed before the filter as well.
INSIDE = """
import ctypes, errno, os, queue, struct, sys, threading
from k3swatch.daemon import confine
libc = ctypes.CDLL(None, use_errno=True)
BPF, PERF = map(int, sys.argv[1:])
def spawn():
    try:
        return os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1])
    except OSError as error:
        return errno.errorcode[error.errno]
def call(*arguments):
    return "done" if libc.syscall(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
def answers():
    array = ctypes.create_string_buffer(struct.pack("=4I", 2, 4, 4, 1), 72)  # MAP_CREATE: an array of one
    element = ctypes.create_string_buffer(struct.pack("=i4xQQQ", 99, 0, 0, 0), 72)  # of a descriptor that is none
    return (spawn(), call(BPF, 0, array, 72), call(BPF, 1, element, 72), call(PERF, None, 0, -1, -1, 0))
asked, answered = queue.Queue(), queue.Queue()
def old_thread():
    while asked.get():
        answered.put(answers())
thread = threading.Thread(target=old_thread)
thread.start()
def say():
    asked.put(True)
    print(*answers(), *answered.get())
say()
confine.forbid_exec()
say()
asked.put(False)
thread.join()
new = []
thread = threading.Thread(target=lambda: new.append(spawn()))
thread.start()
thread.join()
print(*new, open("/dev/null").read() == "")
"""


def test_refused_to_every_thread() -> None:
    """execve, making a BPF map and opening a perf event; reading map elements and everything else is not."""
    abi = confine._ABIS[os.uname().machine, 8]
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(abi.bpf), str(abi.refused[2])],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after, later = (line.split() for line in done.stdout.splitlines())
    assert before == ["0", "done", "EBADF", "EFAULT"] * 2
    assert after == ["EPERM", "EPERM", "EBADF", "EPERM"] * 2
    assert later == ["EPERM", "True"]


def test_capabilities_go_when_it_works_without() -> None:
    script = """
from k3swatch.daemon import confine
from k3swatch.errors import SourceError
def refuses():
    raise SourceError("needs it")
def shown():
    return next(line.split()[1] for line in open("/proc/thread-self/status") if line.startswith("CapPrm"))
before = shown()
print(confine.give_up((38, 39), refuses), shown() == before)
print(confine.give_up((38, 39), lambda: None), int(before, 16) & ~int(shown(), 16) == 1 << 38 | 1 << 39)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "True", "True"]


@pytest.fixture
def managed(space: Namespace, tmp_path: Path) -> Iterator[tuple[Daemon, socket.socket]]:
    """A daemon under a service manager, in a namespace with a listener."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    running = Daemon(space, tmp_path)
    running.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    with manager, running:
        yield running, manager


def until_notified(manager: socket.socket, text: str, timeout: float) -> None:
    """Wait for what the daemon tells its manager."""
    end = time.monotonic() + timeout
    manager.settimeout(timeout)
    while text not in manager.recv(4096).decode():
        assert time.monotonic() < end, f"no {text} in {timeout} s"


def test_a_confined_daemon_does_all_of_its_work(managed: tuple[Daemon, socket.socket]) -> None:
    daemon, manager = managed
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert daemon.status()["daemon"]["confined"] is True
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        assert "Seccomp:\t2" in (task / "status").read_text(), task
    for thread in inject.threads(
        daemon.process.pid
    ):  # the call made by the daemon itself, in each of its threads
        assert inject.call(thread, inject.EXECVE) == -errno.EPERM
        assert inject.call(thread, inject.EXECVEAT) == -errno.EPERM
    assert fields["NoNewPrivs"] == "1"
    assert not int(fields["CapPrm"], 16) & (1 << 38 | 1 << 39)
    probe = daemon.status()["probe"]
    assert probe != "none"

    daemon.space.run("nft", NFT)
    daemon.until_said("is DIVERTED to 10.9.9.9:443")
    daemon.configure(ports=[{"name": "other", "port": 6444}])
    daemon.send(signal.SIGHUP)
    daemon.until_said("configuration loaded: watches tcp/6444")
    with daemon.space.inside():
        listener = socket.create_server(("0.0.0.0", 6444))
        with listener:
            socket.create_connection(("192.0.2.1", 6444), timeout=5).close()
    # the maps of the probe were written for the new port, and are read
    daemon.until(
        lambda: (
            any(row["port"] == 6444 and row["connections"] for row in daemon.status()["connections"])
            or probe == "conntrack"
        ),
        "the connection to the new port is counted",
    )
    for _ in range(3):
        until_notified(manager, "WATCHDOG=1", 2)
    assert "k3swatch_build_info" in daemon.scrape()
    assert daemon.status()["probe"] == probe
    assert daemon.stop() == 0


def test_by_hand_nothing_is_confined(root: None, tmp_path: Path) -> None:
    """Nobody would start it again when the probe has to be loaded anew."""
    with namespaces("one") as spaces:
        spaces["one"].ip("link set lo up")
        with Daemon(spaces["one"], tmp_path) as daemon:
            assert daemon.status()["daemon"]["confined"] is False
            assert daemon.process is not None
            assert "Seccomp:\t0" in Path(f"/proc/{daemon.process.pid}/status").read_text()
            assert inject.call(daemon.process.pid, inject.EXECVE) == -errno.EFAULT  # allowed: of no path


# The real daemon, but its probe breaks when a file appears: nothing outside can break the real one.
FRAGILE = """
import os, sys
from k3swatch import cli
from k3swatch.daemon import sources
from k3swatch.errors import SourceError
from k3swatch.live.flows import ConntrackWatch, ProbeWatch
sources.LIFE = 2.0
def fragile(real):
    def counts(self):
        if os.path.exists(sys.argv[2]):
            raise SourceError("map walk: Bad file descriptor")
        return real(self)
    return counts
for watch in (ProbeWatch, ConntrackWatch):
    watch.counts = fragile(watch.counts)
sys.exit(cli.main(["run", "--config", sys.argv[1]]))
"""


def test_a_lost_probe_ends_it_for_the_manager_to_start_it_again(
    managed: tuple[Daemon, socket.socket], tmp_path: Path
) -> None:
    daemon, _ = managed
    daemon.stop()
    broken = tmp_path / "broken"
    with (
        daemon.space.inside(),
        subprocess.Popen(
            [sys.executable, "-c", FRAGILE, daemon.config, broken],
            cwd=REPO,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **daemon.environment},
        ) as process,
    ):
        daemon.process = None
        daemon.until(lambda: daemon.status().get("daemon", {}).get("confined"), "confined")
        broken.touch()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1, said
    assert "map walk: Bad file descriptor" in said
    assert "k3swatch stops: its probe is gone" in said
    assert said.splitlines()[-2:] == [
        "k3swatch: the probe is gone; a confined daemon cannot load it again",
        "hint: start it again",
    ]
