"""A Debian in namespaces of its own, with its real systemd as PID 1: where the package is installed for real.

Everything but the kernel is Debian's. Mounts, processes, network, host name and cgroups are private: nothing of this
machine is touched. The root is made once per recipe by mmdebstrap and kept in build/roots; each machine has a copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
ROOTS = REPO / "build" / "roots"
PACKAGES = (
    "systemd,systemd-sysv,dbus,python3-bpfcc,libbpf1,python3-prometheus-client,python3-systemd,python3-yaml,"
    "nftables,iproute2,procps,kmod,curl,man-db"
)
# run by bash in new namespaces: mounts what systemd expects of a container manager, https://systemd.io/CONTAINER_INTERFACE
INIT = r"""
set -eu
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$device"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
exec env -i container=k3swatch PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
"""


def root_archive(suite: str) -> Path:
    """The root of a Debian release as a tar; made when there is none yet, which takes a minute."""
    recipe = hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]
    archive = ROOTS / f"{suite}-{recipe}.tar"
    if not archive.exists():
        ROOTS.mkdir(parents=True, exist_ok=True)
        making = archive.with_suffix(f".{os.getpid()}.tar")
        # same mirror as this machine's
        targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian"]
        mirror = sorted(set(subprocess.check_output(targets, text=True).split()))[0]
        options = ["--quiet", "--variant=minbase", f"--include={PACKAGES}", suite, str(making), mirror]
        subprocess.run(["mmdebstrap", *options], check=True, timeout=900)
        making.rename(archive)
    return archive


def _cgroup2() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise AssertionError("no cgroup2 mounted: systemd cannot run here")


class Machine:
    """A booted one. `run` runs a command in it."""

    def __init__(self, suite: str, directory: Path) -> None:
        self.root = directory / "root"
        self.root.mkdir()
        subprocess.run(["tar", "-xf", root_archive(suite), "-C", self.root], check=True)
        (self.root / "etc/machine-id").write_text("")
        (self.root / "etc/hostname").write_text(f"k3w-{suite}\n")
        self._cgroup = _cgroup2() / f"k3w-{os.getpid()}-{suite}"
        self._cgroup.mkdir()
        namespaces = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child")
        joined = f'echo $$ >{self._cgroup}/cgroup.procs; exec setsid unshare "$@"'
        self._outer = subprocess.Popen(
            ["bash", "-c", joined, "bash", *namespaces, "bash", "-c", INIT, "bash", str(self.root)],
            stdin=subprocess.DEVNULL,
        )
        self._init = 0
        self.until(self._booted, "booted", 60)
        # 10.9.9.0/24 is where the tests send connections; nobody is there
        lan = "ip link set lo up; ip link add lan type veth peer name far; ip link set lan up; ip link set far up"
        self.run("sh", "-euc", f"{lan}; ip address add 10.9.9.1/24 dev lan")

    def _booted(self) -> bool:
        assert self._outer.poll() is None, "systemd did not start"
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
            return False
        self._init = int(children[0])
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command there printed; AssertionError with all of it when it fails and `check`."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._init), "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{argv}: exit {done.returncode}\n{text}"
        return text

    def until(self, happened: Callable[[], object], what: str, timeout: float = 20) -> None:
        """Wait until `happened` is true."""
        end = time.monotonic() + timeout
        while not happened():
            assert time.monotonic() < end, (
                f"{what}: not in {timeout} s\n{self.journal() if self._init else ''}"
            )
            time.sleep(0.1)

    def put(self, file: Path) -> str:
        """Copy a file there; its name in the machine."""
        shutil.copy(file, self.root / "root" / file.name)
        return f"/root/{file.name}"

    def journal(self) -> str:
        """All that the service said and was said of it."""
        return self.run("journalctl", "--no-pager", "-u", "k3swatch", check=False)

    def entries(self, *match: str) -> list[dict[str, Any]]:
        """Journal entries with their fields."""
        text = self.run("journalctl", "--no-pager", "-u", "k3swatch", "-o", "json", *match, check=False)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def status(self) -> dict[str, Any]:
        """`k3swatch status`; empty while nobody answers."""
        text = self.run("k3swatch", "status", "--format", "json", check=False)
        return dict(json.loads(text)) if text.startswith("{") else {}

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.run("systemctl", "show", "--value", "-p", name, "k3swatch").strip()

    def outside(self, pid: str) -> int:
        """The number that this machine has for a process there."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = (folder / "status").read_text()
                numbers = status.partition("\nNSpid:\t")[2].partition("\n")[0].split()
                inside = os.readlink(folder / "ns/pid") == os.readlink(f"/proc/{self._init}/ns/pid")
                if inside and numbers[-1] == pid:
                    return int(folder.name)
        raise AssertionError(f"no process {pid} in the machine")

    def close(self) -> None:
        """End every process of it, by the namespace's own rule: PID 1 takes all with it."""
        for pid in filter(None, (self._init, self._outer.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._outer.wait(20)
        shutil.rmtree(self.root)
        for folder in sorted(self._cgroup.rglob("*"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        self._cgroup.rmdir()


@contextlib.contextmanager
def machine(suite: str, directory: Path) -> Iterator[Machine]:
    """A machine that is gone afterwards."""
    made = Machine(suite, directory)
    try:
        yield made
    finally:
        made.close()
