"""The loader child: compiles bpf/*.c with BCC, loads and attaches them, hands every descriptor to the daemon, exits.

The only module that imports bcc, which brings LLVM and 130 MB with it; hence a process of its own:

    python3 -P -m k3swatch.sources.bpf SOCKET DIRECTORY [ATTACH]

SOCKET is a descriptor of a Unix socket (SEQPACKET) that gets one message: a JSON object, and with it the map,
program and link descriptors (SCM_RIGHTS). What they hold lives as long as the daemon keeps them. With ATTACH
only that attachment is tried, else fentry, kprobe, and the raw tracepoints alone, in this order. The doer's probe
(bpf/doer.c) comes beside the connection probe where it can be had; that it cannot is no error.

BCC is only asked to compile. The bytecode is loaded through libbpf, because BCC 0.26 cannot attach fexit to a
module's function, and so that all programs are loaded, and refused, in one way.
"""

from __future__ import annotations

import array
import ctypes as ct
import json
import os
import re
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3swatch.errors import NotPermitted, SourceError, Unsupported
from k3swatch.sources import attach, btf, libbpf
from k3swatch.sources.attach import RAW_TRACEPOINT, Function

EVENTS_PER_SECOND = 10  # of each kind: enough to see who is hit, little enough to cost nothing
MAPS = ("protected", "local", "strangers", "udp_ports", "counts", "events", "stats")
DOER_MAPS = ("execs", "ports", "deeds", "doer_stats")
# functions of the kernel, and our programs for them: fexit, kprobe, kretprobe
NAT = Function("nf_nat", "nf_nat_setup_info", "nat_fexit", "nat_enter", "nat_return")
IPVS = Function("ip_vs", "ip_vs_schedule", "ipvs_fexit", "ipvs_enter", "ipvs_return")
SETSOCKOPT = Function("vmlinux", "nf_setsockopt", "replaced_fexit", "replace_enter", "replace_return")

# Drop reasons that say nothing about the connection: see `transient` in bpf/probe.c. Names differ by kernel.
TRANSIENT_DROPS = frozenset(
    (
        *("PACKET_SOCK_ERROR", "OTHERHOST"),  # copies: for a packet socket, for another host's MAC address
        *("CPU_BACKLOG", "FULL_RING", "NOMEM", "PFMEMALLOC", "PROTO_MEM", "SOCKET_BACKLOG"),  # congestion
        *("QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED", "NEIGH_QUEUEFULL"),
        *(
            "TCP_INVALID_SYN",
            "TCP_RFC7323_PAWS",
            "TCP_RFC7323_TW_PAWS",
        ),  # the last of that port's is not gone yet
    )
)

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 1 << 16


class _LoadOptions(ct.Structure):
    """struct bpf_prog_load_opts, bpf/bpf.h of libbpf 1.0."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_uint32),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_void_p),
    )


class _TestRunOptions(ct.Structure):
    """struct bpf_test_run_opts, bpf/bpf.h."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", ct.c_void_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    )


@dataclass
class Loaded:
    """What goes to the daemon: `fds` by name (map:…, prog:…, link:…), the rest as JSON. `ipvs`: how its decisions are
    seen, empty when they are not."""

    attach: str
    ipvs: str = ""
    refused: list[str] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    layout: list[int] = field(default_factory=list)
    fds: dict[str, int] = field(default_factory=dict)


@dataclass
class LoadedDoer:
    """The same of bpf/doer.c. `legacy`: how iptables-legacy is watched, empty when it is not."""

    legacy: str = ""
    refused: list[str] = field(default_factory=list)
    layout: list[int] = field(default_factory=list)
    fds: dict[str, int] = field(default_factory=dict)


class Module:
    """One file of bpf/ compiled against the running kernel's offsets. Nothing is loaded yet but the maps."""

    def __init__(self, directory: Path, source: str, macros: dict[str, int]) -> None:
        """`macros` are its -D parameters, but for NETNS_INUM."""
        directory = directory.resolve()  # clang is run from within the shim
        os.environ["BCC_KERNEL_SOURCE"] = str(directory / "shim")
        try:
            import bcc
            from bcc.libbcc import lib
        except ImportError as error:
            hint = "install the package python3-bpfcc"
            if sys.prefix != sys.base_prefix:
                hint += ", and see that this virtualenv is the system's Python with --system-site-packages"
            raise Unsupported(f"BCC: {error}", hint) from error
        self._lib = lib
        self._stderr, self._source = _capture_stderr(), source
        macros = {**macros, "NETNS_INUM": os.stat("/proc/self/ns/net").st_ino}
        flags = [f"-I{directory}", *(f"-D{name}={value}u" for name, value in macros.items())]
        try:
            self._bpf = bcc.BPF(src_file=str(directory / source).encode(), cflags=flags)
        except Exception as error:  # the bare class is what BCC raises
            raise SourceError(self._compiler_error() or f"BCC: {error}") from error

    def map(self, name: str) -> int:
        """The descriptor of a map."""
        fd = self._lib.bpf_table_fd(self._bpf.module, name.encode())
        if fd < 0:
            raise SourceError(f"{self._source} has no map {name}")
        return int(fd)

    def bytecode(self, name: str) -> bytes:
        """A program as BCC compiled it, map descriptors filled in."""
        return bytes(self._bpf.dump_func(name.encode()))

    def load(self, name: str, kind: int, **options: int) -> int:
        """Load one program through the verifier; returns its descriptor."""
        code = self.bytecode(name)
        opts = _LoadOptions(sz=ct.sizeof(_LoadOptions), **options)
        library = libbpf.library()
        arguments = (kind, name.encode(), b"GPL", code, len(code) // 8, ct.byref(opts))
        fd = library.bpf_prog_load(*arguments)
        if fd >= 0:
            return int(fd)
        refused = libbpf.failure(f"load {name}")
        log = ct.create_string_buffer(_LOG_BYTES)
        opts.log_level, opts.log_size, opts.log_buf = 1, _LOG_BYTES, ct.addressof(log)
        library.bpf_prog_load(*arguments)
        lines = [line for line in log.value.decode("ascii", "replace").splitlines() if line]
        verifier = [line for line in lines if not line.startswith("processed ")]
        if verifier:
            refused = SourceError(f"{refused}: {verifier[-1]}")  # it would not let root load it either
        raise refused

    def attach_kprobe(self, program: int, function: str, *, on_return: bool) -> int:
        """A kprobe or kretprobe as a perf event; it is gone when the descriptor is closed."""
        event = f"{'r' if on_return else 'p'}_k3swatch_{function}_{os.getpid()}".encode()
        fd = self._lib.bpf_attach_kprobe(program, int(on_return), event, function.encode(), 0, 0)
        if fd < 0:
            refused = libbpf.failure(f"kprobe on {function}")
            if isinstance(refused, NotPermitted):  # Debian's own setting, and its default
                why = (
                    "it takes perf_event_open, which the unit leaves out, "
                    "and while kernel.perf_event_paranoid is above 2 CAP_SYS_ADMIN"
                )
                refused = NotPermitted(f"{refused}: {why}", hint=refused.hint)
            raise refused
        return int(fd)

    def _compiler_error(self) -> str:
        """The first error of what clang wrote."""
        text = os.pread(self._stderr, _LOG_BYTES, 0).decode("utf-8", "replace")
        return next((line for line in text.splitlines() if "error:" in line), "")


def load(directory: Path, wanted: str | None) -> Loaded:
    """Compile, load and attach. SourceError (NotPermitted, Unsupported) when not even the tracepoints can be."""
    description = btf.load("nf_conntrack")
    reasons = btf.drop_reasons(description)
    offsets = btf.offsets(description)
    try:
        virtual = btf.ipvs_offsets()
    except Unsupported:  # most hosts have none; what comes later, the tracepoints see
        virtual = {}
    module = Module(directory, "probe.c", _macros(offsets | virtual, reasons))
    loaded = Loaded("tracepoint", reasons=reasons, layout=_layout(module, "report_layout"))
    for value, name in reasons.items():
        if name in TRANSIENT_DROPS:
            libbpf.update(module.map("transient"), value.to_bytes(4, sys.byteorder), b"\x01")
    for program, tracepoint, name in (
        ("queued", "net_dev_queue", "queued"),
        ("freed", "kfree_skb", "freed"),
        ("freed", "kfree_skb", "freed_too"),
    ):
        fd = module.load(program, RAW_TRACEPOINT)
        loaded.fds[f"prog:{name}"] = fd
        loaded.fds[f"link:{name}"] = attach.raw_tracepoint(tracepoint, fd)
    ways = (wanted,) if wanted else attach.WAYS
    way, fds, refused = attach.best(module, NAT, ways)
    if wanted in attach.WAYS and refused:
        raise refused[0][1]
    loaded.attach = way or "tracepoint"
    loaded.fds.update(fds)
    loaded.refused += [f"{each}: {error}" for each, error in refused]
    if virtual:
        loaded.ipvs, fds, refused = attach.best(module, IPVS, ways)
        loaded.fds.update(fds)
        loaded.refused += [f"IPVS by {each}: {error}" for each, error in refused]
    loaded.fds.update((f"map:{name}", module.map(name)) for name in MAPS)
    return loaded


def load_doer(directory: Path) -> LoadedDoer:
    """Compile, load and attach the doer's probe. SourceError when executions and listeners cannot be watched."""
    module = Module(directory, "doer.c", btf.doer_offsets())
    loaded = LoadedDoer(layout=_layout(module, "doer_layout"))
    for program, tracepoint in (("executed", "sched_process_exec"), ("state_set", "inet_sock_set_state")):
        fd = module.load(program, RAW_TRACEPOINT)
        loaded.fds[f"link:{program}"] = attach.raw_tracepoint(tracepoint, fd)
    loaded.legacy, fds, refused = attach.best(module, SETSOCKOPT, attach.WAYS)
    loaded.fds.update(fds)
    loaded.refused += [f"iptables-legacy by {way}: {error}" for way, error in refused]
    loaded.fds.update((f"map:{name}", module.map(name)) for name in DOER_MAPS)
    return loaded


def _layout(module: Module, name: str) -> list[int]:
    """Sizes and offsets as compiled into the probe: run the program `name` once and read what it wrote."""
    program = module.load(name, RAW_TRACEPOINT)
    opts = _TestRunOptions(sz=ct.sizeof(_TestRunOptions))
    if libbpf.library().bpf_prog_test_run_opts(program, ct.byref(opts)) != 0:
        raise libbpf.failure(f"test run of {name}")
    fd = module.map("layout")
    keys = libbpf.keys(fd, 4, 1024)
    return [int.from_bytes(libbpf.lookup(fd, key, 4) or b"", sys.byteorder) for key in keys]


def _macros(offsets: dict[str, int], reasons: dict[int, str]) -> dict[str, int]:
    """The -D parameters of bpf/probe.c."""
    macros = {**offsets, "EVENTS_PER_SECOND": EVENTS_PER_SECOND}
    return {**macros, "DROP_REASONS": 1} if reasons else macros


def _capture_stderr() -> int:
    """Send descriptor 2, where clang and BCC write, to memory."""
    fd = os.memfd_create("stderr")
    os.dup2(fd, 2)
    return fd


def _send(channel: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([json.dumps(message).encode()], rights)


def main(arguments: list[str]) -> None:
    """The child's whole life. Its own descriptors go with it; the daemon has its copies by then."""
    ct.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = socket.socket(fileno=int(arguments[0]))
    try:
        loaded = load(Path(arguments[1]), arguments[2] if len(arguments) > 2 else None)
    except SourceError as error:
        text = re.sub(r"\s+", " ", str(error))
        _send(channel, {"error": type(error).__name__, "message": text, "hint": error.hint}, [])
        return
    doer = _doer(Path(arguments[1]))
    message = {
        "attach": loaded.attach,
        "ipvs": loaded.ipvs,
        "refused": loaded.refused,
        "reasons": {str(value): name for value, name in loaded.reasons.items()},
        "layout": loaded.layout,
        "fds": [*loaded.fds, *(f"doer:{name}" for name in doer.fds)],
        "doer": {"legacy": doer.legacy, "refused": doer.refused, "layout": doer.layout},
    }
    _send(channel, message, [*loaded.fds.values(), *doer.fds.values()])


def _doer(directory: Path) -> LoadedDoer:
    """The doer's probe; without it, why."""
    try:
        return load_doer(directory)
    except SourceError as error:
        return LoadedDoer(refused=[re.sub(r"\s+", " ", str(error))])


if __name__ == "__main__":
    main(sys.argv[1:])
