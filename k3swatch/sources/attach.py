"""Programs to the kernel: raw tracepoints, and its functions by fexit or by kprobe, best first. In the loader child.

Everything here raises SourceError (NotPermitted, Unsupported), with what was tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from k3swatch.errors import SourceError, Unsupported
from k3swatch.sources import btf, libbpf

# uapi/linux/bpf.h
_KPROBE, RAW_TRACEPOINT, _TRACING, _TRACE_FEXIT = 2, 17, 26, 25
_KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe")

WAYS = ("fentry", "kprobe")


class Programs(Protocol):
    """What was compiled: bpf.Module."""

    def load(self, name: str, kind: int, **options: int) -> int:
        """Load one program; its descriptor."""
        ...

    def attach_kprobe(self, program: int, function: str, *, on_return: bool) -> int:
        """A kprobe or kretprobe; its descriptor."""
        ...


class Function(NamedTuple):
    """A function of the kernel, in one of its modules or in vmlinux, and the programs that watch it."""

    owner: str
    name: str
    fexit: str
    enter: str
    leave: str


def best(
    module: Programs, function: Function, ways: Iterable[str]
) -> tuple[str, dict[str, int], list[tuple[str, SourceError]]]:
    """The first of `ways` that works (empty: none does), its descriptors by name (prog:…, link:…), what was refused."""
    refused: list[tuple[str, SourceError]] = []
    for way in ways:
        if way not in WAYS:
            continue
        try:
            return way, _fexit(module, function) if way == "fentry" else _kprobes(module, function), refused
        except SourceError as error:
            refused.append((way, error))
    return "", {}, refused


def _fexit(module: Programs, function: Function) -> dict[str, int]:
    """By the function's id in the BTF of its module, or of vmlinux."""
    program = module.load(
        function.fexit,
        _TRACING,
        expected_attach_type=_TRACE_FEXIT,
        attach_btf_id=btf.load(function.owner).find(function.name, btf.FUNC),
        attach_btf_obj_fd=0 if function.owner == "vmlinux" else btf.object_fd(function.owner),
    )
    return {
        f"prog:{function.fexit}": program,
        f"link:{function.fexit}": raw_tracepoint(None, program, function.name),
    }


def _kprobes(module: Programs, function: Function) -> dict[str, int]:
    """kprobe and kretprobe; the return first, so that no entry is left without."""
    if not _KPROBE_PMU.exists():
        raise Unsupported("this kernel has no kprobes")
    on_return, on_entry = module.load(function.leave, _KPROBE), module.load(function.enter, _KPROBE)
    return {
        f"prog:{function.leave}": on_return,
        f"link:{function.leave}": module.attach_kprobe(on_return, function.name, on_return=True),
        f"prog:{function.enter}": on_entry,
        f"link:{function.enter}": module.attach_kprobe(on_entry, function.name, on_return=False),
    }


def raw_tracepoint(name: str | None, program: int, function: str = "") -> int:
    """BPF_RAW_TRACEPOINT_OPEN: a tracepoint by name, or the `function` that a tracing program was loaded for."""
    fd = libbpf.library().bpf_raw_tracepoint_open(name.encode() if name else None, program)
    if fd < 0:
        raise libbpf.failure(f"attach to {name or function}")
    return int(fd)
