"""The lab for tests that need root, real tools and real connections; `k3swatch` run inside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.onehost import one_host

from k3swatch.demo import kubernetes
from k3swatch.demo.lab import Lab, lab
from k3swatch.demo.netns import Namespace

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`say(text)`: shown at the end of the run, also when all is well."""
    return lambda text: request.node.user_properties.append(("said", text))


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """Everything here makes network namespaces."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")


@pytest.fixture(scope="module")
def module_lab(root: None) -> Iterator[Lab]:
    """One lab for all tests of a module; call `reset()` before each use."""
    with lab() as made:
        yield made


@pytest.fixture
def private_lab(root: None) -> Iterator[Lab]:
    """A lab for one test."""
    with lab() as made:
        yield made


@pytest.fixture
def space(root: None) -> Iterator[Namespace]:
    """A host with one address, and a listener on 6443."""
    with one_host(6443) as one:
        yield one


@pytest.fixture(scope="module")
def kube_lab(root: None) -> Iterator[Lab]:
    """A lab whose klipper-lb pod sends connections to the ClusterIP, as on a real node; use `place`."""
    with lab(proxy_to=kubernetes.CLUSTER_IP) as made:
        yield made


@pytest.fixture
def place(kube_lab: Lab) -> Iterator[Lab]:
    """That lab with kube-proxy's rules and no others."""
    kube_lab.reset()
    kubernetes.kube_proxy(kube_lab.host)
    yield kube_lab
    kube_lab.host.shell("! grep -qs nat /proc/net/ip_tables_names || iptables-legacy -t nat -F")
    kube_lab.reset()


@pytest.fixture(scope="session")
def code() -> Iterator[Path]:
    """The program where every user may read it: a clone below /root, or in a private home, may be root's alone.

    For tests that drop root's privilege: `[python(code), "-m", "k3swatch.cli", ...]` with `cwd=code`.
    """
    with tempfile.TemporaryDirectory(prefix="k3w-") as directory:
        for part in ("k3swatch", "bpf"):
            shutil.copytree(REPO / part, Path(directory, part), ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
        yield Path(directory)


@pytest.fixture(scope="session")
def k3swatch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`k3swatch(space, "check", ...)`: the command line, run inside a namespace."""

    def run(space: Namespace, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        with space.inside():
            return subprocess.run(
                [sys.executable, "-m", "k3swatch.cli", *arguments],
                cwd=REPO,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )

    return run


@pytest.fixture(scope="session")
def check(
    k3swatch: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[[Namespace], tuple[int, dict[str, Any]]]:
    """`check(space)`: the exit status of `k3swatch check` there, and its JSON."""

    def run(space: Namespace) -> tuple[int, dict[str, Any]]:
        done = k3swatch(space, "check", "--format", "json")
        assert done.stdout, f"check: exit {done.returncode}, no output; stderr:\n{done.stderr}"
        return done.returncode, json.loads(done.stdout)

    return run
