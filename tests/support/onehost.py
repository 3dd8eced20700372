"""A host with one address in a network namespace of its own: enough where nobody else takes part."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from k3swatch.demo.netns import Namespace, namespaces

ADDRESS = "192.0.2.1"


@contextmanager
def one_host(*listening: int) -> Iterator[Namespace]:
    """It has ADDRESS on eth0 and a default route, and somebody takes connections to these TCP ports."""
    with namespaces("one") as spaces, ExitStack() as stack:
        one = spaces["one"]
        one.ip(
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            f"addr add {ADDRESS}/24 dev eth0",
            "link set eth0 up",
            "link set peer0 up",
            "route add default via 192.0.2.2",
        )
        # as on every node: else what is diverted to another machine gets nowhere
        one.sysctl(ipv4__ip_forward=1)
        with one.inside():
            for port in listening:
                stack.enter_context(socket.create_server(("0.0.0.0", port)))
        yield one
