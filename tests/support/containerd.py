"""A real containerd with its CRI in a network namespace, as a node's: its files are below one directory, `node`.

The plugins are the real ones: bridge, host-local, portmap. Its pods hold one process that waits: the image is made
here, nothing is downloaded. What it mounts, and what it writes to fixed paths, is in a mount namespace of its own,
whose end is the end of all of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from k3swatch.attribute.grpc import unary
from k3swatch.attribute.wire import delimited, messages
from k3swatch.demo.netns import Namespace

IMAGE = "k3swatch.test/pause:1"
NETWORK = "cbr0"
RUN = "run/k3s/containerd"
_TASKS = "io.containerd.runtime.v2.task/k8s.io"
_PAUSE = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
_CONFIG = """version = 2
root = "{directory}/root"
state = "{node}/run/k3s/containerd"
[grpc]
  address = "{node}/run/k3s/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""
# K3s's network, with the bridge plugin in flannel's place (which delegates to it)
_NETWORK = {
    "cniVersion": "1.0.0",
    "name": NETWORK,
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.42.0.0/24", "rangeStart": "10.42.0.20", "gateway": "10.42.0.1"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


class Containerd:
    """It serves while the block lasts. `node` is the directory that stands for the node's `/`."""

    def __init__(self, space: Namespace) -> None:
        self.space = space
        self.directory = Path(tempfile.mkdtemp(prefix="k3w-cri-", dir="/tmp"))  # a socket's path is short
        self.node = self.directory / "node"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.directory / "log"
        for path in ("net.d", f"node/{RUN}", "node/var/lib/cni", "node/var/log/pods", "node/proc"):
            (self.directory / path).mkdir(parents=True)
        (self.directory / "net.d" / "10.conflist").write_text(json.dumps(_NETWORK))
        (self.directory / "config.toml").write_text(
            _CONFIG.format(directory=self.directory, node=self.node, image=IMAGE)
        )

    @property
    def socket(self) -> Path:
        """Where the CRI is served."""
        return self.node / RUN / "containerd.sock"

    def start(self) -> None:
        """Start it, and give it the image its pods need."""
        script = (
            f"mount --bind {self.node}/var/lib/cni /var/lib/cni; mount -t tmpfs none /run/containerd\n"
            "mkdir -p /run/netns; mount -t tmpfs none /run/netns\n"  # the CNI's names for its pods' namespaces
            f"exec containerd -c {self.directory}/config.toml"
        )
        Path("/var/lib/cni").mkdir(exist_ok=True)
        Path("/run/containerd").mkdir(exist_ok=True)
        with self.space.inside(), self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", script], stdout=log, stderr=log
            )
        image = self.directory / "pause.tar"
        image.write_bytes(oci_image(self.directory))
        ctr = ("ctr", "-a", str(self.socket), "-n", "k8s.io", "images", "import", "--snapshotter", "native")
        self._until(lambda: subprocess.run([*ctr, image], capture_output=True, check=False).returncode == 0)

    def run_pod(
        self,
        name: str,
        uid: str,
        labels: dict[str, str],
        host_port: int = 6443,
        namespace: str = "kube-system",
    ) -> str:
        """RunPodSandbox, as the kubelet calls it; the sandbox's id."""
        given = {**labels, "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace}
        given["io.kubernetes.pod.uid"] = uid
        logs = self.node / "var/log/pods" / f"{namespace}_{name}_{uid}"
        logs.mkdir()
        config = delimited(1, _texts({1: name, 2: uid, 3: namespace}))
        config += delimited(2, name.encode()) + delimited(3, str(logs).encode())
        config += delimited(5, b"\x10" + _varint(6443) + b"\x18" + _varint(host_port))
        cgroup = f"/kubepods/besteffort/pod{uid}"
        config += delimited(8, delimited(1, cgroup.encode()))
        config += b"".join(delimited(6, _texts({1: key, 2: value})) for key, value in given.items())
        return dict(messages(self.call("RunPodSandbox", delimited(1, config))))[1].decode()

    def remove_pod(self, sandbox: str) -> None:
        """StopPodSandbox, RemovePodSandbox: CNI DEL, and everything is gone."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self.call(method, delimited(1, sandbox.encode()))

    def call(self, method: str, request: bytes) -> bytes:
        """One call of the CRI."""
        until = time.monotonic() + 20
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            path = f"/runtime.v1.RuntimeService/{method}"
            return unary(connection, path, request, lambda: until - time.monotonic())

    def sandboxes(self) -> list[str]:
        """The ids of all that it knows."""
        items = [item for number, item in messages(self.call("ListPodSandbox", b"")) if number == 1]
        return [dict(messages(item))[1].decode() for item in items]

    def kill(self) -> None:
        """It dies; its pods live on, as with K3s's KillMode=process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
        for pid in [*self._shims(), *self.pids()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        shutil.rmtree(self.directory, ignore_errors=True)

    def pids(self) -> list[int]:
        """The first processes of its sandboxes."""
        return [int(file.read_text()) for file in (self.node / RUN).glob(f"{_TASKS}/*/init.pid")]

    def _shims(self) -> list[int]:
        """The shims that were started for this one: their command lines name its socket."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return [pid for pid in pids if str(self.socket).encode() in _command(pid)]

    def _until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not happened():
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.1)


def oci_image(directory: Path) -> bytes:
    """An OCI image layout as a tar file: one layer with one program that waits for ever."""
    source, program = directory / "pause.c", directory / "pause"
    source.write_text(_PAUSE)
    subprocess.run(["gcc", "-static", "-Os", "-o", program, source], check=True)
    layer = _tar({"pause": program.read_bytes()})
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [blob(layer, f"{kind}.layer.v1.tar")],
    }
    listed = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    listed["annotations"] = {"io.containerd.image.name": IMAGE}
    index = {"schemaVersion": 2, "manifests": [listed]}
    layout = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    return _tar(layout | blobs)


def _tar(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


def _texts(values: dict[int, str]) -> bytes:
    return b"".join(delimited(number, value.encode()) for number, value in values.items())


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _command(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""
