"""A BPF program of type netfilter that drops every IPv4 packet, for as long as this runs. In the guest, for systemd."""

from __future__ import annotations

import ctypes as ct
import os
import platform
import signal
import struct

from support import bpfload

from k3swatch.daemon.notify import Notifier

LINK_CREATE = 28  # enum bpf_cmd
SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
IPV4, PREROUTING, DROP = 2, 0, 0

with bpfload.loaded(bpfload.NETFILTER, "k3w_drop", bpfload.answer(DROP), bpfload.ATTACH_NETFILTER) as program:
    # union bpf_attr: prog_fd, target_fd, attach_type, flags; netfilter: pf, hooknum, priority, flags
    attributes = struct.pack("=IIIIIIiI", program, 0, bpfload.ATTACH_NETFILTER, 0, IPV4, PREROUTING, -1, 0)
    libc = ct.CDLL(None, use_errno=True)
    link = libc.syscall(SYSCALL, LINK_CREATE, attributes, len(attributes))
    assert link >= 0, os.strerror(ct.get_errno())
    Notifier().ready("attached")
    signal.pause()
