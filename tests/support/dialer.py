"""Many real TCP connections in a few milliseconds: one thread plays all clients and all servers of a lab.

A server that is asked says where it accepted, as `host 192.168.1.233:8443`: the namespace, the address and the port
that the connection really ended at. That is the ground truth for "where does it go", sharper than a server's name.
The client speaks first, as in TLS, and asks twice: what gets no data through, or only once, is no connection.

Every connection gets a source port that no other has; sockets are reset when they are done, so nothing of them (no
TIME_WAIT) meets the next ruleset. What has not answered after a while in which nothing happened anywhere is a timeout:
on a busy machine ask again with more `patience` before that is the truth.
"""

from __future__ import annotations

import errno
import ipaddress
import itertools
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from k3swatch.demo.apiserver import IP_TRANSPARENT, IPV6_TRANSPARENT, REFUSED, RESET, TIMEOUT, UNREACHABLE
from k3swatch.demo.netns import Namespace

LISTENERS = (  # namespace, port, address: those of k3swatch.demo.lab
    ("host", 6443, "::"),
    ("host", 8443, "::"),
    ("host", 6444, "127.0.0.1"),
    ("other", 6443, "::"),
    ("web", 6443, "::"),
)
PATIENCE = 0.05  # seconds without any event
_RESET_ON_CLOSE, _WAIT_ON_CLOSE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
_MORE = b"!"
_ERRORS = {errno.ECONNREFUSED: REFUSED, errno.ETIMEDOUT: TIMEOUT, errno.ECONNRESET: RESET}
_PORTS = range(32800, 60900)  # of those a client that does not choose is given


@dataclass(frozen=True)
class Dial:
    """One connection to make: from which namespace, address and user, with which mark, to where."""

    start: str
    source: str
    address: str
    port: int = 6443
    mark: int = 0
    uid: int = 0


@dataclass(frozen=True)
class Answer:
    """`where` it ended: `host 192.168.1.233:8443`, `refused`, `timeout`, `reset`, `unreachable`; its source port."""

    where: str
    source_port: int


class Dialer:
    """The servers of one lab, listening from here to `close`."""

    def __init__(self, spaces: Mapping[str, Namespace]) -> None:
        self._spaces = spaces
        self._ports = itertools.cycle(_PORTS)
        self._poll = select.epoll()
        self._stack = ExitStack()
        self._listeners: dict[int, tuple[str, socket.socket]] = {}
        for name, port, address in LISTENERS:
            with spaces[name].inside():
                listener = self._listen(address, port)
            self._listeners[listener.fileno()] = (name, self._stack.enter_context(listener))
            self._poll.register(listener, select.EPOLLIN)

    @staticmethod
    def _listen(address: str, port: int) -> socket.socket:
        family = socket.AF_INET if "." in address else socket.AF_INET6
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if port == 8443:  # a possible target of TPROXY, as in the lab
            listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        listener.bind((address, port))
        listener.listen(1024)
        return listener

    def close(self) -> None:
        """Nobody listens any more."""
        self._stack.close()
        self._poll.close()

    def dial(self, dials: Sequence[Dial], patience: float = PATIENCE) -> list[Answer]:
        """Make all the connections at once; who answers each, in the same order."""
        answers: dict[int, str] = {}
        ports: list[int] = []
        waiting: dict[int, tuple[int, socket.socket]] = {}
        accepted: dict[int, _Server] = {}
        try:
            for index, each in enumerate(dials):
                client = self._client(each)
                waiting[client.fileno()] = (index, client)
                ports.append(client.getsockname()[1])
                failed = client.connect_ex((each.address, each.port))
                if failed not in (0, errno.EINPROGRESS):
                    answers[index] = _ERRORS.get(failed, UNREACHABLE)
                    waiting.pop(client.fileno())
                    client.close()
                else:
                    self._poll.register(client, select.EPOLLIN | select.EPOLLOUT)
            while waiting and (events := self._poll.poll(patience)):
                for number, event in events:
                    if number in self._listeners:
                        accepted.update(self._accept(number))
                    elif number in accepted:
                        if accepted[number].said():
                            accepted.pop(number)
                    elif number in waiting and event == select.EPOLLOUT:
                        self._poll.modify(number, select.EPOLLIN)
                        _ask(waiting[number][1])
                    elif number in waiting and (answer := _heard(waiting[number][1])):
                        index, client = waiting.pop(number)
                        self._poll.unregister(client)
                        client.close()
                        answers[index] = answer
        finally:
            for _, client in waiting.values():
                client.close()
            for server in accepted.values():
                server.connection.close()
        return [Answer(answers.get(index, TIMEOUT), port) for index, port in enumerate(ports)]

    def _client(self, each: Dial) -> socket.socket:
        family = socket.AF_INET6 if ":" in each.address else socket.AF_INET
        with self._spaces[each.start].inside():
            if each.uid:  # a socket belongs to whoever made it
                os.seteuid(each.uid)
            try:
                client = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            finally:
                if each.uid:
                    os.seteuid(0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if each.mark:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, each.mark)
        for port in self._ports:
            try:
                client.bind((each.source, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    client.close()
                    raise
            else:
                break
        return client

    def _accept(self, number: int) -> dict[int, _Server]:
        """Who has connected, with what to tell him when he asks."""
        name, listener = self._listeners[number]
        accepted: dict[int, _Server] = {}
        while True:
            try:
                server, _ = listener.accept()
            except BlockingIOError:
                return accepted
            except OSError:
                continue  # it was gone before we looked
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            host, port = server.getsockname()[0], listener.getsockname()[1]  # tproxy: not the one dialled
            address = ipaddress.ip_address(host.partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address
            where = f"[{address}]" if address.version == 6 else f"{address}"
            accepted[server.fileno()] = _Server(f"{name} {where}:{port}", server)
            self._poll.register(server, select.EPOLLIN)


@dataclass
class _Server:
    """One end of a connection that was accepted, and what it says when it is asked for the second time."""

    where: str
    connection: socket.socket
    asked: bool = False

    def said(self) -> bool:
        """Answer; whether that was all (or there is nobody any more)."""
        with suppress(OSError):  # it may have been reset
            if self.connection.recv(1) and not self.asked:
                self.asked = True
                self.connection.send(_MORE)
                return False
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WAIT_ON_CLOSE)
            self.connection.send(self.where.encode())
        self.connection.close()
        return True


def _ask(client: socket.socket) -> None:
    with suppress(OSError):  # it is heard of when read from
        client.send(b"?")


def _heard(client: socket.socket) -> str:
    """What the other end said in the end; empty when it has to be asked once more."""
    try:
        text = client.recv(100)
    except OSError as error:
        return _ERRORS.get(error.errno or 0, UNREACHABLE)
    if text == _MORE:
        _ask(client)
        return ""
    return text.decode() or RESET
