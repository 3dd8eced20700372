"""The files of a K3s host, as its installer and a kernel with control groups version 2 write them."""

from __future__ import annotations

from pathlib import Path

UNIT = r"""[Unit]
Description=Lightweight Kubernetes
[Service]
Type=notify
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/systemd/system/k3s.service.env
KillMode=process
Delegate=yes
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStart=/usr/local/bin/k3s \
    server \
	'--https-listen-port' \
	'7443' \

"""


class K3sHost:
    """Files below `directory`, written as K3s's installer and a kernel with control groups version 2 write them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, path: str, text: str) -> None:
        file = self.directory / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def installed(self, unit: str = "k3s.service", text: str = UNIT) -> None:
        """The unit file, and a host with control groups version 2."""
        self.write(f"/etc/systemd/system/{unit}", text)
        self.write(f"/etc/systemd/system/multi-user.target.wants/{unit}", text)
        self.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")

    def runs(
        self,
        comm: str = "k3s-server",
        arguments: str = "/usr/local/bin/k3s server",
        unit: str | None = "k3s.service",
        pid: int = 812,
        **variables: str,
    ) -> None:
        """The process; `arguments` with spaces are its title, as K3s sets it, with NULs an ordinary command line."""
        group = f"/system.slice/{unit}" if unit else "/user.slice/user-0.slice/session-1.scope"
        self.write(f"/proc/{pid}/comm", comm + "\n")
        self.write(f"/proc/{pid}/cmdline", arguments + "\0" * 9)
        self.write(f"/proc/{pid}/environ", "\0".join(f"{k}={v}" for k, v in variables.items()))
        self.write(f"/proc/{pid}/cgroup", f"0::{group}\n")
        self.write(
            f"/proc/{pid}/stat", f"{pid} ({comm}) S " + " ".join(["1"] * 18 + [str(pid * 100)] + ["0"] * 9)
        )
        (self.directory / f"proc/{pid}/exe").symlink_to("/var/lib/rancher/k3s/data/abc/bin/k3s")
        if unit:
            self.write(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs", f"{pid}\n{pid + 1}\n")
