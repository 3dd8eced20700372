"""What a snapshot keeps beside raw messages, as values: BPF programs, whose the listening sockets are, and who reads
queues of packets, by the port id of his socket.

{"programs": [{"hook": "xdp", "place": "eth0", "id": 12, ...}],
 "owners": [{"inode": 5, "path": "/system.slice/k3s.service", "holders": [[10, "/usr/local/bin/k3s"]]}],
 "readers": [[812, "/usr/bin/suricata (pid 812)"]]}
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from k3swatch.errors import DecodeError
from k3swatch.live.holders import MOST, look_up
from k3swatch.live.nfqueue import readers
from k3swatch.live.programs import Programs
from k3swatch.model.port import Holder, Host, ListeningSocket, Program

Document = dict[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "hook": str,
    "place": str,
    "id": int,
    "name": str,
    "tag": str,
    "uid": (int, type(None)),
    "interface": int,
    "cgroup": int,
}


def read(host: Host) -> Document:
    """Both for this host, now. Never raises; what cannot be read is named under `unreadable`."""
    programs, unreadable = Programs().read(host, 0.0)
    known = look_up(set((host.sockets or ())[:MOST]))
    owners = [
        {
            "inode": socket.inode,
            "path": socket.cgroup_path,
            "holders": [[holder.pid, holder.exe] for holder in socket.holders],
        }
        for socket in known.values()
    ]
    return {
        "programs": [asdict(each) for each in programs],
        "owners": owners,
        "readers": list(readers({each.portid for each in host.queues or ()}).items()),
        "unreadable": list(unreadable),
    }


def put(host: Host, document: object) -> Host:
    """The host with what `read` found; as it is when the snapshot is from before. DecodeError when it does not fit."""
    if document is None:
        return host
    try:
        if not isinstance(document, dict):
            raise TypeError("want a mapping")
        programs = tuple(map(_program, document["programs"]))
        owners = {int(one["inode"]): one for one in document["owners"]}
        sockets = host.sockets and tuple(_owned(each, owners.get(each.inode)) for each in host.sockets)
        unreadable = (*host.unreadable, *(str(line) for line in document["unreadable"]))
        names = {int(portid): str(name) for portid, name in document.get("readers", ())}
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"snapshot: host: beside: {error!r}") from None
    queues = host.queues and tuple(
        replace(each, reader=names.get(each.portid, each.reader)) for each in host.queues
    )
    return replace(host, programs=programs, sockets=sockets, unreadable=unreadable, queues=queues)


def _program(one: Document) -> Program:
    values = {"cgroup": 0, **one}  # a snapshot from before it was kept
    values = {field.name: values[field.name] for field in fields(Program)}
    for name, value in values.items():
        if not isinstance(value, _TYPES[name]):
            raise TypeError(f"program: {name}: {value!r}")
    return Program(**values)


def _owned(socket: ListeningSocket, owner: Document | None) -> ListeningSocket:
    if owner is None:
        return socket
    holders = tuple(Holder(int(pid), None if exe is None else str(exe)) for pid, exe in owner["holders"])
    path = owner["path"]
    return replace(socket, cgroup_path=None if path is None else str(path), holders=holders)
