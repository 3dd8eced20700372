"""Where K3s or RKE2 is on this host: its process, its unit, and what it was told.

K3s hides its arguments once it runs (k3s-io/k3s, pkg/cli/server: SetProcTitle), so those of the unit's ExecStart count
when the process shows none; and the service may not see other users' processes at all, so a unit's control group is
proof enough that it runs. A K3s in a container (k3d) is in another network namespace: its ports are not this host's.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from k3swatch.attribute.root import Root
from k3swatch.k3s import settings
from k3swatch.k3s.settings import Settings
from k3swatch.model.port import Listener

UNITS = ("k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service")
HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
UNIT_DIRECTORIES = tuple(
    f"{where}/systemd/system" for where in ("/etc", "/run", "/usr/local/lib", "/usr/lib")
)
TARGETS = ("multi-user", "default", "graphical")
PROCESSES, DROP_INS = 2048, 32
SIZE = 64 << 10
_COMMS = {
    "k3s-server": ("k3s", True),
    "k3s-agent": ("k3s", False),
    "k3s": ("k3s", None),
    "rke2": ("rke2", None),
}
_K3S = "/usr/local/bin/k3s"  # which stands for what it unpacks, too: evaluate/processes.py


@dataclass(frozen=True, slots=True)
class Found:
    """K3s or RKE2 of this host. `pid` is None when only its installation was found, or its process may not be seen."""

    settings: Settings
    listener: Listener
    unit: str | None = None
    pid: int | None = None
    running: bool = False

    @property
    def said(self) -> str:
        """`k3s server, k3s.service, pid 812`."""
        role = "server" if self.settings.server else "agent"
        pid = f"pid {self.pid}" if self.pid else "" if self.running else "not running"
        return ", ".join(filter(None, (f"{self.settings.program} {role}", self.unit, pid)))


@dataclass(frozen=True, slots=True)
class _Process:
    program: str
    server: bool
    pid: int | None
    unit: str | None
    words: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    exe: str | None = None
    running: bool = True
    unified: bool = False  # the unit is that of its group in the hierarchy that sockets tell


def find(root: Root) -> Found | None:
    """K3s or RKE2 of this host and network namespace: a server before an agent, what runs before what is installed."""
    seen = [*_processes(root), *_groups(root)]
    process = next(iter(sorted(seen, key=lambda each: (not each.server, each.pid is None))), None)
    if process is None:
        elsewhere = bool(_everywhere(root))
        process = None if elsewhere else next(_installed(root), None)
    if process is None:
        return None
    read = _settings(root, process)
    return Found(read, _listener(process), process.unit, process.pid, process.running)


def signature(root: Root, found: Found | None) -> object:
    """What changes when the process is another one; cheap enough for every second."""
    units = (*UNITS, *([found.unit] if found and found.unit and found.unit not in UNITS else []))
    groups = tuple(root.text(f"{HIERARCHIES[0]}/system.slice/{unit}/cgroup.procs", 4096) for unit in units)
    first = tuple(group.split("\n", 1)[0] if group else None for group in groups)
    stat = root.text(f"/proc/{found.pid}/stat", 4096) if found and found.pid else None
    return first, (stat or "").rpartition(")")[2].split()[19:20]


def _processes(root: Root) -> Iterator[_Process]:
    """Those of this network namespace that may be seen."""
    here = _here(root)
    for pid, comm in _everywhere(root):
        there = root.link(f"/proc/{pid}/ns/net")
        groups = root.text(f"/proc/{pid}/cgroup", SIZE) or ""
        unit = _unit(groups)
        if there is not None and here is not None:
            if there != here:
                continue
        elif unit is None and ("docker" in groups or "kubepods" in groups or "libpod" in groups):
            continue
        words = (root.text(f"/proc/{pid}/cmdline", SIZE) or "").rstrip("\0").split("\0")
        words = shlex_words(words[0]) if len(words) == 1 else words  # its title: one string
        program, server = _COMMS[comm]
        if server is None:
            if not {"server", "agent"} & set(words[1:2]):
                continue  # `k3s kubectl`, for one
            server = words[1] == "server"
        lines = tuple((root.text(f"/proc/{pid}/environ", SIZE) or "").split("\0"))
        exe = root.link(f"/proc/{pid}/exe")
        unified = any(line.startswith("0::/") and unit and unit in line for line in groups.splitlines())
        yield _Process(program, server, pid, unit, tuple(words[2:]), lines, exe, unified=unified)


def _everywhere(root: Root) -> list[tuple[int, str]]:
    """Every process that is called so, in any namespace."""
    pids = sorted(int(entry) for entry in root.names("/proc") if entry.isascii() and entry.isdecimal())
    comms = ((pid, (root.text(f"/proc/{pid}/comm", 64) or "").strip()) for pid in pids[:PROCESSES])
    return [(pid, comm) for pid, comm in comms if comm in _COMMS]


def _groups(root: Root) -> Iterator[_Process]:
    """Units whose control group has processes: all that is seen with ProtectProc=invisible."""
    for number, hierarchy in enumerate(HIERARCHIES):
        named = [name for name in root.names(f"{hierarchy}/system.slice") if _like(name)]
        for unit in (*UNITS, *sorted(set(named) - set(UNITS))[:8]):
            pids = (root.text(f"{hierarchy}/system.slice/{unit}/cgroup.procs", SIZE) or "").split()
            if pids:
                program, server = _role(root, unit)
                yield _Process(program, server, None, unit, unified=number < 2)


def _installed(root: Root) -> Iterator[_Process]:
    """Units that systemd starts at boot, though nothing runs; one that lies about and is not enabled says nothing."""
    unified = root.exists(f"{HIERARCHIES[0]}/cgroup.controllers") is True
    for unit in UNITS:
        if any(root.exists(f"{UNIT_DIRECTORIES[0]}/{target}.target.wants/{unit}") for target in TARGETS):
            program, server = _role(root, unit)
            yield _Process(program, server, None, unit, running=False, unified=unified)


def _settings(root: Root, process: _Process) -> Settings:
    started, environment = _unit_file(root, process.unit)
    title = not process.words
    program = process.program
    layers = [settings.arguments(started if title else process.words)]
    layers.append(settings.environment(process.environment, program))
    layers.append(settings.environment(environment, program))
    named = next((layer["config"][-1] for layer in layers if layer.get("config")), None)
    troubles: list[str] = []
    from k3swatch.k3s.files import documents  # only where there is a K3s: it imports yaml

    layers.append(settings.files(documents(root, named or f"/etc/rancher/{program}/config.yaml", troubles)))
    directory = next((d["data-dir"][-1] for d in layers if d.get("data-dir")), f"/var/lib/rancher/{program}")
    etcd = root.exists(f"{directory}/server/db/etcd/config") is True
    read = settings.read(program, process.server, layers, etcd)
    return read if not troubles else settings.with_troubles(read, troubles)


def _unit_file(root: Root, unit: str | None) -> tuple[list[str], list[str]]:
    """The arguments of the unit's ExecStart, and the lines of its environment and environment files."""
    if unit is None:
        return [], []
    words: list[str] = []
    lines: list[str] = []
    for text in _fragments(root, unit):
        for line in text.replace("\\\n", " ").splitlines():
            key, equals, value = line.strip().partition("=")
            if not equals:
                continue
            if key == "ExecStart":
                words = shlex_words(value.lstrip("@-:+!"))
            elif key == "Environment":
                lines += shlex_words(value)
            elif key == "EnvironmentFile":
                path = value.lstrip("-").replace("%N", unit.removesuffix(".service"))
                lines += (root.text(path, SIZE) or "").splitlines()[:512] if path.startswith("/") else []
    role = next((number for number, word in enumerate(words) if word in ("server", "agent")), len(words))
    return words[role + 1 :], lines


def _fragments(root: Root, unit: str) -> Iterator[str]:
    """The unit's file and its drop-ins, in the order systemd reads them."""
    main = (root.text(f"{directory}/{unit}", SIZE) for directory in UNIT_DIRECTORIES)
    yield next(filter(None, main), "")
    names = {
        name: directory
        for directory in reversed(UNIT_DIRECTORIES)
        for name in root.names(f"{directory}/{unit}.d")
        if name.endswith(".conf")
    }
    for name in sorted(names)[:DROP_INS]:
        yield root.text(f"{names[name]}/{unit}.d/{name}", SIZE) or ""


def _listener(process: _Process) -> Listener:
    """Who must own the ports; nobody in particular where that could not be checked afterwards."""
    if process.unit is not None and process.unified:
        return Listener(unit=process.unit)
    if process.exe is None:
        return Listener()
    unpacked = process.program == "k3s" and process.exe.startswith("/var/lib/rancher/k3s/data/")
    return Listener(exe=(_K3S if unpacked else process.exe.removesuffix(" (deleted)"),))


def _here(root: Root) -> str | None:
    """Our own network namespace, when /proc is ours."""
    if root.directory != "/":
        return None
    with suppress(OSError):
        return os.readlink("/proc/thread-self/ns/net")
    return None


def _unit(groups: str) -> str | None:
    """The system service of a process, from /proc/PID/cgroup."""
    for line in groups.splitlines()[:32]:
        parts = line.split(":", 2)[-1].split("/")
        if len(parts) > 2 and parts[1] == "system.slice" and parts[2].endswith(".service"):
            return None if parts[2].startswith(("docker", "containerd", "crio", "podman")) else parts[2]
    return None


def _like(name: str) -> bool:
    """Whether a unit of another name may be one: somebody calls it k3s-main.service. Our own is not."""
    return name.endswith(".service") and ("k3s" in name or "rke2" in name) and not name.startswith("k3swatch")


def _role(root: Root, unit: str) -> tuple[str, bool]:
    """Program and role of a unit: by its name, where that is the usual one, else by what it starts."""
    program = "rke2" if "rke2" in unit else "k3s"
    if unit in UNITS:
        return program, "agent" not in unit
    started = " ".join(_fragments(root, unit))
    return program, "agent" not in unit and f"{program} agent" not in " ".join(
        started.replace("\\\n", " ").split()
    )


def shlex_words(text: str) -> list[str]:
    """Words as a shell (or systemd) splits them; by spaces when they do not add up."""
    try:
        return shlex.split(text)[:256]
    except ValueError:
        return text.split()[:256]
