"""One guest per kernel, resumed from a snapshot for each test; in a second snapshot the package runs as a service."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vm.guest import Guest, cannot_start
from vm.host import K3sHost
from vm.image import Image

REPO = Path(__file__).resolve().parents[2]
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "cpio", "dh")
SUITES = ("bookworm", "trixie")
TEST_SECONDS = 3600
EVERY = bool(os.environ.get("K3SWATCH_EVERY"))
PYTEST = (
    "pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
    "pytest-timeout",
)  # pure Python, all of it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """An emulated CPU is slow, an emulated CPU on a busy machine slower: more time for each test of this tier. And what
    is the same on every kernel is tried on one, so that each has half of it: `only`. With K3SWATCH_EVERY=1 on each.
    """
    kept, elsewhere = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
        only = None if EVERY else item.get_closest_marker("only")
        (kept if only is None or f"[{only.args[0]}" in item.name else elsewhere).append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = kept


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which guests do not have
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Every guest is the business of one process. (--dist=loadgroup, made for that, does nothing with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class EachGuest(LoadScopeScheduling):  # type: ignore[misc]  # has no types
        def _split_scope(self, nodeid: str) -> str:
            return next((suite for suite in SUITES if f"[{suite}" in nodeid), "")

    return EachGuest(config, log)


@pytest.fixture(scope="session")
def emulator() -> None:
    """What the tier needs of this machine is there."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {' '.join(missing) or 'nothing else'}: make test-vm")
    if trouble := cannot_start():
        pytest.fail(f"QEMU cannot emulate a machine here: {trouble}", pytrace=False)


@pytest.fixture(scope="session", params=SUITES)
def image(request: pytest.FixtureRequest, emulator: None) -> Image:
    """Debian 12 with kernel 6.1, then Debian 13 with 6.12."""
    return Image.of(request.param)


@pytest.fixture(scope="session")
def machine(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The one machine that runs; for `guest` and `host`."""
    guest = Guest(image, tmp_path_factory.mktemp(image.suite))
    yield guest
    guest.close()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this tree."""
    directory = tmp_path_factory.mktemp("package")
    subprocess.run([REPO / "packaging" / "deb" / "build", directory], check=True, stdout=subprocess.DEVNULL)
    (made,) = directory.glob("*.deb")
    return made


@pytest.fixture
def checkout(machine: Guest) -> Guest:
    """A machine that has just booted, with this tree in /opt/k3swatch, and in /opt/pytest what runs its tests."""
    if "checkout" in machine.snapshots:
        machine.reset("checkout")
        return machine
    machine.reset()
    tree = [REPO / name for name in ("k3swatch", "bpf", "bench", "tests", "pyproject.toml")]
    machine.put("/opt/k3swatch", tree, REPO)
    for name in PYTEST:
        distribution = importlib.metadata.distribution(name)
        site = Path(str(distribution.locate_file("")))
        files = [path for path in map(str, distribution.files or ()) if not path.startswith("..")]
        machine.put(
            "/opt/pytest", [site / top for top in sorted({path.split("/")[0] for path in files})], site
        )
    machine.sh("mkdir -p /opt/k3swatch/.venv/bin; ln -s /usr/bin/python3 /opt/k3swatch/.venv/bin/python")
    # every `check` in there would compile it all
    machine.sh("python3 -m compileall -q /opt/k3swatch/k3swatch /opt/pytest")
    machine.save("checkout")
    return machine


@pytest.fixture
def host(machine: Guest, package: Path) -> K3sHost:
    """A K3s-like host (k3swatch/demo/lab.py) on which the package is installed and the service runs."""
    host = K3sHost(machine)
    if "installed" in machine.snapshots:
        machine.reset("installed")
    else:
        machine.reset()
        host.install(package)
        machine.save("installed")
    return host
