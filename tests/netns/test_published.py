"""Published ports of podman: the rules of the real netavark, and the files that podman keeps of its container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from k3swatch.demo.lab import Lab

NETAVARK = "/usr/lib/podman/netavark"
ID = "2c767f1493427b2e341774b364e7d566ee0e57e492d79b990ab48f944dc7df77"
NETWORK = {
    "dns_enabled": False,
    "driver": "bridge",
    "id": "53ce4390f2adb1681eb1a90ec8b48c49c015e0a8d336c197637e7f65e365fa9e",
    "internal": False,
    "ipv6_enabled": False,
    "name": "podman",
    "network_interface": "podman0",
    "subnets": [{"gateway": "10.88.0.1", "subnet": "10.88.0.0/16"}],
    "ipam_options": {"driver": "host-local"},
}
SETUP = {
    "container_id": ID,
    "container_name": "web",
    "port_mappings": [
        {"container_port": 6443, "host_ip": "", "host_port": 6443, "protocol": "tcp", "range": 1}
    ],
    "networks": {"podman": {"interface_name": "eth9", "static_ips": ["10.88.0.2"]}},
    "network_info": {"podman": NETWORK},
}


def test_podman_by_netavarks_rules_and_podmans_files(
    private_lab: Lab, tmp_path: Path, k3swatch: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    private_lab.host.run(NETAVARK, "setup", str(private_lab.web.path), stdin=json.dumps(SETUP))
    done = k3swatch(private_lab.host, "check", "--root", str(tmp_path), "--format", "json")
    who = json.loads(done.stdout)["ports"][0]["findings"][0]["culprit"]
    assert (who["container"], who["sources"]) == (ID, ["rule-comment"])

    run = tmp_path / f"run/containers/storage/overlay-containers/{ID}/userdata"
    run.mkdir(parents=True)
    (run / "hosts").write_text(f"127.0.0.1\tlocalhost\n10.88.0.2\t{ID[:12]} web\n")
    listed = tmp_path / "var/lib/containers/storage/overlay-containers/containers.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(
        json.dumps([{"id": ID, "names": ["web"], "metadata": '{"image-name":"k3w.test/web:1"}'}])
    )
    done = k3swatch(private_lab.host, "check", "--root", str(tmp_path), "--format", "json")
    who = json.loads(done.stdout)["ports"][0]["findings"][0]["culprit"]
    assert (who["container"], who["confidence"]) == ("podman:web (k3w.test/web:1)", "medium")
    assert who["sources"] == ["rule-comment", "podman"]
    text = k3swatch(private_lab.host, "check", "--root", str(tmp_path)).stdout
    assert "taken by podman container web (k3w.test/web:1)" in text
