"""Files below a root directory, for reading only: bounded in size, number and time, and nothing leads out of it.

Paths are resolved by the kernel as if the root were `/` (openat2(2), RESOLVE_IN_ROOT): a symlink inside may point
anywhere inside, none points out, and magic links of /proc are refused. A FIFO or a device is not waited for. What
could not be read is remembered: no conclusion may be drawn from its absence.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import socket
import stat
import struct
from itertools import islice
from pathlib import PurePosixPath

from k3swatch.clock import Clock, SystemClock
from k3swatch.errors import NotPermitted, SourceError

SECONDS, FILES = 0.5, 4000  # of one look
NAMES = 20_000  # names read of one directory
SIZE = 128 << 10  # bytes of one file

_OPENAT2 = 437  # the same number on every architecture but alpha
_RESOLVE = 0x10 | 0x02  # RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, `uapi/linux/openat2.h`
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)  # the last: a process that has ended

_libc = ct.CDLL(None, use_errno=True)
_libc.syscall.restype = ct.c_long


class Root:
    """One look at the files below `directory`. A new look is a new Root: the bounds are for all of it."""

    def __init__(self, directory: str = "/", clock: Clock | None = None, seconds: float = SECONDS) -> None:
        """An unusable `directory` is an empty one, with the reason in `troubles`."""
        self.directory = directory
        self.troubles: list[str] = []  # what could not be read and why, one line each, a few
        self._clock = clock or SystemClock()
        self._until = self._clock.monotonic() + seconds
        self._left = FILES
        self._listed: dict[str, list[str]] = {}
        self._absent = False
        self._root = -1
        try:
            self._root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self._trouble(directory, error.errno or 0)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._root >= 0:
            os.close(self._root)
        self._root = -1

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def spent(self) -> bool:
        """Whether the bounds of this look are used up; nothing is found any more then."""
        return self._left <= 0 or self._clock.monotonic() > self._until

    def read(self, path: str, limit: int = SIZE) -> bytes | None:
        """A regular file's content; None when there is none, it is larger than `limit`, or it cannot be read."""
        descriptor = self._open(path, _READ)
        if descriptor is None:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = bytearray()
            while len(content) <= limit and (part := os.read(descriptor, limit + 1 - len(content))):
                content += part
        except OSError as error:
            self._trouble(path, error.errno or 0)
            return None
        finally:
            os.close(descriptor)
        if len(content) > limit:
            self.say(f"{path}: larger than {limit >> 10} KB")
            return None
        return bytes(content)

    def text(self, path: str, limit: int = SIZE) -> str | None:
        """`read`, as text; bytes that are no UTF-8 are shown as escapes."""
        content = self.read(path, limit)
        return None if content is None else content.decode(errors="backslashreplace")

    def names(self, path: str) -> list[str]:
        """The names in a directory, at most NAMES of them, in no order; read once in one look."""
        if path in self._listed:
            return self._listed[path]
        found: list[str] = []
        descriptor = self._open(path, _READ | os.O_DIRECTORY)
        if descriptor is not None:
            try:
                with os.scandir(descriptor) as entries:
                    found = [entry.name for entry in islice(entries, NAMES)]
            except OSError as error:
                self._trouble(path, error.errno or 0)
            finally:
                os.close(descriptor)
        if len(found) == NAMES:
            self.say(f"{path}: only {NAMES} of its files were looked at")
        self._listed[path] = found
        return found

    def link(self, path: str) -> str | None:
        """What a symlink says, /proc/PID/exe for example; it is not followed."""
        parent, name = os.path.split(path)
        descriptor = self._open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if descriptor is None:
            return None
        try:
            return os.readlink(name, dir_fd=descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool | None:
        """Whether there is something at `path`; None when that cannot be told."""
        descriptor = self._open(path, os.O_PATH | os.O_CLOEXEC)
        if descriptor is None:
            return False if self._absent else None
        os.close(descriptor)
        return True

    def age(self, path: str) -> float | None:
        """Seconds since the file was last written, by CLOCK_REALTIME; None when there is none to ask."""
        descriptor = self._open(path, os.O_PATH | os.O_CLOEXEC)
        if descriptor is None:
            return None
        try:
            return self._clock.now() - os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)

    def locate(self, path: str) -> str | None:
        """The real path of a regular file inside the root, for a library that opens files itself; None: none."""
        descriptor = self._open(path, os.O_PATH | os.O_CLOEXEC)
        if descriptor is None:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def connect(self, path: str, seconds: float) -> socket.socket | None:
        """A connection to the Unix socket at `path`, whose calls wait so many `seconds`; None when there is none.

        Raises NotPermitted when it may not be had, SourceError when there is one, or may be, and it cannot.
        """
        descriptor = self._open(path, os.O_PATH | os.O_CLOEXEC)
        if descriptor is None:
            if self._absent:
                return None
            raise SourceError("cannot be reached")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(seconds)
            connection.connect(
                f"/proc/self/fd/{descriptor}"
            )  # what was opened, whatever the path means by now
        except OSError as error:
            connection.close()
            if isinstance(error, PermissionError):
                raise NotPermitted(error.strerror or "not permitted") from error
            raise SourceError(error.strerror or "no answer in time") from error
        finally:
            os.close(descriptor)
        return connection

    def _open(self, path: str, flags: int) -> int | None:
        """A descriptor; else None, and `_absent` tells whether that is because there is nothing."""
        self._absent = False
        if self._root < 0 or "\0" in path:
            return None
        if self.spent:
            self.say("too many files, or too slow: stopped looking")
            return None
        self._left -= 1
        how = struct.pack("=QQQ", flags, 0, _RESOLVE)  # struct open_how
        name = os.fsencode(str(PurePosixPath("/", path)))
        descriptor = _libc.syscall(_OPENAT2, self._root, name, how, len(how))
        if descriptor >= 0:
            return int(descriptor)
        number = ct.get_errno()
        self._absent = number in _ABSENT
        if not self._absent:
            self._trouble(path, number)
        return None

    def _trouble(self, path: str, number: int) -> None:
        self.say(f"{path}: {os.strerror(number)}")

    def say(self, line: str) -> None:
        """Remember what could not be read and why; the first few lines."""
        if line not in self.troubles and len(self.troubles) < 8:
            self.troubles.append(line)
