"""IPVS's answers as kernel 6.1 sent them for

ipvsadm -A -t 192.168.1.233:6443 -s rr;      ipvsadm -a -t 192.168.1.233:6443 -r 10.42.0.9:6443 -m
ipvsadm -A -t [fd00:1::233]:6443 -s wrr -p 60; ipvsadm -a -t [fd00:1::233]:6443 -r [fd42::9]:443 -g -w 3
ipvsadm -A -f 7 -s sh;                       ipvsadm -a -f 7 -r 10.42.0.9:0 -i -w 0
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import struct
from pathlib import Path

import pytest

from k3swatch.decode.ipvs import decode_services
from k3swatch.errors import DecodeError
from k3swatch.model.ipvs import PERSISTENT, Method
from k3swatch.model.words import Family

MESSAGES = [
    base64.b64decode(text) for text in json.loads((Path(__file__).parent / "data" / "ipvs.json").read_text())
]


def test_what_ipvsadm_made() -> None:
    # in the order of the kernel's hash table
    found = {service.name: service for service in decode_services(MESSAGES)}
    four, six, mark = found["192.168.1.233:6443"], found["[fd00:1::233]:6443"], found["0x7"]
    assert (four.kind, four.family, four.scheduler, four.flags & PERSISTENT) == ("tcp", Family.IP, "rr", 0)
    assert [str(server) for server in four.servers] == ["10.42.0.9:6443 masq"]
    assert (six.kind, six.family, six.scheduler, six.flags & PERSISTENT) == ("tcp", Family.IP6, "wrr", 1)
    (server,) = six.servers
    assert (server.address, server.port) == (ipaddress.ip_address("fd42::9"), 6443)  # of the virtual server
    assert (server.method, server.weight) == (Method.ROUTE, 3)
    assert (mark.kind, mark.fwmark, mark.address) == ("fwmark", 7, None)
    assert [str(server) for server in mark.servers] == ["10.42.0.9:0 tunnel weight 0"]


def test_a_real_server_without_a_virtual_one_is_refused() -> None:
    with pytest.raises(DecodeError, match="before any"):
        decode_services(MESSAGES[1:])


def test_bytes_at_random_are_a_decode_error_or_harmless() -> None:
    chance = random.Random(7)
    for _ in range(3000):
        damaged = [bytearray(message) for message in MESSAGES]
        message = chance.choice(damaged)
        for _ in range(chance.randint(1, 4)):
            message[chance.randrange(16, len(message))] = chance.randrange(256)
        cut = message[: chance.randrange(16, len(message) + 1)]
        cut[:4] = struct.pack("=I", len(cut))
        try:
            for service in decode_services([*map(bytes, damaged), bytes(cut)]):
                assert service.name
                assert str(service)
        except DecodeError:
            pass
