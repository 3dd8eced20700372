"""What decides in the kernel besides routes: net.ipv4.conf.*, and whether packets are forwarded at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

PER_INTERFACE = ("rp_filter", "src_valid_mark", "route_localnet", "forwarding")
FORWARDING6, FORCED6 = "ipv6/conf/all/forwarding", "force_forwarding"  # of an interface, since 6.17
STRICT = 1  # of rp_filter (RFC 3704, 2.2): the way back must be the way it came


@dataclass(frozen=True)  # without slots: the values are looked up often
class Sysctls:
    """Values by path below /proc/sys/net, `ipv4/conf/eth0/rp_filter`. One that is not here could not be read."""

    values: tuple[tuple[str, int], ...] = ()

    @cached_property
    def _by_path(self) -> dict[str, int]:
        return dict(self.values)

    def get(self, path: str) -> int | None:
        """One of them."""
        return self._by_path.get(path)

    def of(self, interface: str, name: str) -> int | None:
        """As the kernel counts it for packets that come in on an interface: rp_filter is the greater of its own and
        that of `all` (IN_DEV_MAXCONF), forwarding its own (IN_DEV_FORWARD), others are on where either is on
        (IN_DEV_ORCONF, IN_DEV_NET_ORCONF)."""
        own, every = (self.get(f"ipv4/conf/{where}/{name}") for where in (interface, "all"))
        if own is None or name == "forwarding":
            return own
        return None if every is None else max(own, every)


NONE_READ = Sysctls()


def words(interface: str, name: str, value: int) -> str:
    """`net.ipv4.conf.eth0.rp_filter = 1`, as sysctl(8) shows it; in names of interfaces, a dot is a slash."""
    return f"net.ipv4.conf.{interface.replace('.', '/')}.{name} = {value}"
