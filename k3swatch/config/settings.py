"""What can be configured, as frozen values with their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from k3swatch.model.port import ProtectedPort

DEFAULT_FILE = "/etc/k3swatch/config.yaml"
MAX_PORTS = 32  # metrics stay under 500 series, and the probe's port map has room


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a TCP listener is bound: a literal address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """`127.0.0.1:10643`, `[::1]:10643`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and key of the metrics listener, paths to PEM files."""

    cert_file: str
    key_file: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where Prometheus scrapes; an empty `listen` switches the listener off."""

    listen: tuple[ListenAddress, ...] = (ListenAddress("127.0.0.1", 10643),)
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """Base URLs of all Alertmanager peers; none: alerts come from Prometheus rules alone."""

    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Journal:
    """Whether transitions go to journald (with its fields); they go to stderr otherwise."""

    enabled: bool = True


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Where incidents survive a restart."""

    path: str = "/var/lib/k3swatch"


@dataclass(frozen=True, slots=True)
class Control:
    """The Unix socket that `k3swatch status` asks."""

    socket: str = "/run/k3swatch/control.sock"


@dataclass(frozen=True, slots=True)
class K3s:
    """Whether the ports of a K3s or RKE2 that is found here are protected; all of them, or those called `only` so."""

    auto: bool = True
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the operator decided; `path` is the file it came from."""

    ports: tuple[ProtectedPort, ...]
    metrics: Metrics = Metrics()
    alertmanager: Alertmanager = Alertmanager()
    journal: Journal = Journal()
    state: StateDirectory = StateDirectory()
    control: Control = Control()
    k3s: K3s = K3s()
    ports_given: bool = False  # else `ports` are what holds where no K3s is found
    path: str | None = None


def defaults() -> Config:
    """What holds with no file at all: the Kubernetes API of a K3s server, on every address of this host."""
    return Config(ports=(ProtectedPort(name="k3s-api", port=6443),))
