"""Who has a socket open: /proc/PID/fd, and the tree of control groups (version 2) with the processes in each.

Nothing here raises: a process ends while it is read, and other users' processes may not be looked into (proc(5)). What
cannot be read is left out. Every walk is bounded.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

GROUPS, PROCESSES, DESCRIPTORS = 8192, 32768, 65536  # looked at in one walk, at most
_LONGEST = 1 << 20  # of a file of /proc


def _read(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(_LONGEST)
    return b""


def cgroup_mount(proc: str = "/proc") -> str | None:
    """Where the version 2 hierarchy is mounted; None when it is not (proc_pid_mountinfo(5))."""
    for line in _read(f"{proc}/self/mountinfo").splitlines():
        before, dash, after = line.partition(b" - ")
        fields = before.split(b" ")
        if dash and after.startswith(b"cgroup2 ") and len(fields) > 4:
            return os.fsdecode(fields[4])
    return None


def cgroups(mount: str, limit: int = GROUPS) -> Iterator[tuple[str, int]]:
    """Every control group: its path below the root (`/system.slice`), and its inode, which is its id; top down."""
    try:
        waiting = deque([("/", os.stat(mount).st_ino)])
    except OSError:
        return
    while waiting and limit > 0:
        limit -= 1
        path, inode = waiting.popleft()
        yield path, inode
        with suppress(OSError), os.scandir(f"{mount}{path}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((os.path.join(path, entry.name), entry.inode()))


def cgroup_paths(mount: str, ids: Collection[int]) -> dict[int, str]:
    """The paths of these control groups; those that are gone are left out."""
    # a 32-bit kernel's inode number is the lower half of the id (kernfs_id_ino)
    wanted = {one if struct.calcsize("P") == 8 else one & 0xFFFFFFFF: one for one in ids}
    found: dict[int, str] = {}
    for path, inode in cgroups(mount):
        if inode in wanted:
            found[wanted[inode]] = path
            if len(found) == len(wanted):
                break
    return found


def members(mount: str, path: str) -> list[int]:
    """The processes of one control group."""
    return [int(pid) for pid in _read(f"{mount}{path}/cgroup.procs").split() if pid.isdigit()]


def processes(proc: str = "/proc") -> list[int]:
    """Every process that may be seen."""
    with suppress(OSError), os.scandir(proc) as entries:
        return sorted(int(entry.name) for entry in entries if entry.name.isdigit())[:PROCESSES]
    return []


def holders(inodes: Collection[int], pids: Iterable[int], proc: str = "/proc") -> dict[int, list[int]]:
    """Which of `pids` have the sockets with these inodes open, by inode."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[int]] = {}
    left = DESCRIPTORS
    for pid in pids:
        with suppress(OSError), os.scandir(f"{proc}/{pid}/fd") as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    return found
                inode = wanted.get(_link(entry.path))
                if inode is not None and pid not in found.setdefault(inode, []):
                    found[inode].append(pid)
    return found


def executable(pid: int, proc: str = "/proc") -> str | None:
    """Its executable, as its own mount namespace calls it."""
    return _link(f"{proc}/{pid}/exe") or None


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""
