"""Guest images: built once from recipe/, booted once, kept outside the tree under the hash of the recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RECIPE = Path(__file__).parent / "recipe"
BUILD_SECONDS = 1200.0
UNUSED_SECONDS = 3 * 86400.0


@dataclass(frozen=True)
class Image:
    """root.img, vmlinuz and initrd of one Debian release; once booted, ready-….qcow2 as well."""

    suite: str
    directory: Path

    def ready(self, machine: str) -> Path:
        """The disk of a guest that has booted as such a machine, with its memory beside it as a snapshot."""
        return self.directory / f"ready-{hashlib.sha256(machine.encode()).hexdigest()[:8]}.qcow2"

    @classmethod
    def of(cls, suite: str, flavour: str = "stock") -> Image:
        """Build it, unless it is there already. A flavour has the packages of recipe/packages.FLAVOUR as well."""
        image = cls(suite, cache() / f"{suite}-{flavour}-{recipe_hash(flavour)}")
        with image.lock():
            if not (image.directory / "root.img").exists():
                prune()
                partial = image.directory / "partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                # in a mount namespace of its own: what it mounts below the root ends with it
                build = ["unshare", "--mount", str(RECIPE / "build.sh"), suite, flavour, str(partial)]
                done = subprocess.run(
                    build, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
                )
                assert done.returncode == 0, f"{' '.join(build)}: {done.stderr[-2000:]}"
                for name in ("vmlinuz", "initrd", "root.img"):  # root.img last: it says that all is there
                    (partial / name).rename(image.directory / name)
                shutil.rmtree(partial)
        return image

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time makes what is not there yet."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.utime(file.fileno())  # for `prune`
            yield


def cache() -> Path:
    """Where images are kept: outside the tree, so that a fresh clone finds them."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "k3swatch-vm"


def recipe_hash(flavour: str) -> str:
    """Changes with every byte of the recipe, and with none of another flavour's packages."""
    digest = hashlib.sha256()
    for path in sorted(RECIPE.iterdir()):
        if path.suffix in ("", ".py", ".sh", ".service", ".stock", f".{flavour}"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def prune() -> None:
    """Delete images that were not used for days: each is more than a gigabyte, and each recipe makes one."""
    for lock in cache().glob("*/lock"):
        if time.time() - lock.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(lock.parent)
