"""All three attachments compile, and the kernel's verifier takes what this kernel lets be loaded at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from k3swatch.demo.netns import namespaces
from k3swatch.errors import SourceError, Unsupported
from k3swatch.live.flows import open_flow_watch
from k3swatch.model.words import Attach
from k3swatch.sources import btf, probe

# Runs in a child, as bcc must not come into this process. The fexit programs are loaded as raw tracepoint programs: the
# context is the same array of numbers, so the verifier can be asked even where tracing programs are refused.
COMPILE = """
import json, sys
from pathlib import Path
from k3swatch.errors import SourceError
from k3swatch.sources import btf
from k3swatch.sources.bpf import Module
described = {**btf.offsets(btf.load("nf_conntrack")), **dict.fromkeys(btf.IPVS_OFFSETS, 8)}  # IPVS need not be loaded
probe = Module(Path("bpf"), "probe.c", {**described, "EVENTS_PER_SECOND": 10})
doer = Module(Path("bpf"), "doer.c", btf.doer_offsets())
found = {}
for module, name, kind in [
    (probe, "queued", 17), (probe, "freed", 17), (probe, "report_layout", 17),
    (probe, "nat_enter", 2), (probe, "nat_return", 2), (probe, "nat_fexit", 17),
    (probe, "ipvs_enter", 2), (probe, "ipvs_return", 2), (probe, "ipvs_fexit", 17),
    (doer, "executed", 17), (doer, "state_set", 17), (doer, "doer_layout", 17),
    (doer, "replace_enter", 2), (doer, "replace_return", 2), (doer, "replaced_fexit", 17),
]:
    try:
        module.load(name, kind)
        found[name] = len(module.bytecode(name)) // 8
    except SourceError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_every_program_compiles_and_passes_the_verifier(repo: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=repo, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 15
    assert {name: size for name, size in found.items() if not isinstance(size, int)} == {}
    assert all(size < 4096 for size in found.values()), found


@pytest.mark.parametrize("attach", [Attach.FENTRY, Attach.KPROBE, Attach.TRACEPOINT])
def test_a_forced_attachment_is_used_or_its_refusal_is_said(attach: Attach) -> None:
    watch = open_flow_watch(attach)
    try:
        if watch.attach is attach:
            assert watch.refused == ()
        else:
            assert attach is not Attach.TRACEPOINT, watch.refused
            assert watch.attach is Attach.CONNTRACK
            assert watch.refused[0].startswith(f"{attach.value}: ")
            assert "\n" not in watch.refused[0]
    finally:
        watch.close()


def test_a_better_attachment_that_is_refused_is_named() -> None:
    watch = open_flow_watch()
    try:
        better = list(Attach)[: list(Attach).index(watch.attach)]
        assert [line.partition(":")[0] for line in watch.refused] == [attach.value for attach in better]
    finally:
        watch.close()


def broken(directory: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """The loader compiles `source` from now on."""
    real = probe.source_directory()
    directory.mkdir()
    for name in ("kernel.h", "packet.h", "events.h", "doer.h", "doer.c", "shim"):
        (directory / name).symlink_to(real / name)
    (directory / "probe.c").write_text(source)
    monkeypatch.setattr(probe, "source_directory", lambda: directory)


def test_a_compiler_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(tmp_path / "bpf", monkeypatch, '#include "kernel.h"\nint queued(void *ctx) { return nonsense; }\n')
    with pytest.raises(SourceError, match=r"error: use of undeclared identifier 'nonsense'") as caught:
        probe.Probe()
    assert "\n" not in str(caught.value)


def test_a_verifier_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = (probe.source_directory() / "probe.c").read_text()
    wild = real.replace("	bump(SEEN_QUEUED);", "	bump(SEEN_QUEUED);\n	return *(u64 *)ctx->args[1];")
    assert wild != real
    broken(tmp_path / "bpf", monkeypatch, wild.replace("*(u64 *)ctx->args[1]", "*(volatile int *)8"))
    with pytest.raises(SourceError, match=r"^load queued: ") as caught:
        probe.Probe()
    assert "\n" not in str(caught.value)


def test_another_struct_layout_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the daemon and bpf/ come from different versions: better no probe than a misread one."""
    broken(tmp_path / "bpf", monkeypatch, (probe.source_directory() / "probe.c").read_text())
    header = (tmp_path / "bpf" / "events.h").read_text()
    (tmp_path / "bpf" / "events.h").unlink()
    first, second = "__u16 source_port;", "__u16 dialled_port;"
    swapped = header.replace(first, "@").replace(second, first).replace("@", second)
    assert swapped != header
    (tmp_path / "bpf" / "events.h").write_text(swapped)
    watch = open_flow_watch(Attach.TRACEPOINT)
    watch.close()
    assert watch.attach is Attach.CONNTRACK
    assert "layout" in watch.refused[0]


def test_without_bcc_the_hint_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A python without the distribution's packages."""
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -S -P "$@"\n')
    empty.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(empty))
    with pytest.raises(Unsupported) as caught:
        probe.Probe()
    assert "python3-bpfcc" in caught.value.hint


def test_a_loader_that_dies_is_an_error_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(SourceError, match="died without a word"):
        probe.Probe()
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(SourceError, match="No such file"):
        probe.Probe()


def test_a_loader_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = tmp_path / "python"
    stuck.write_text("#!/bin/sh\nexec sleep 1000\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stuck))
    with pytest.raises(SourceError, match="no answer in 1 s"):
        probe.Probe(timeout=1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_without_privileges(repo: Path) -> None:
    """Not permitted, down to conntrack: no watch, and every reason is said."""
    script = (
        "from k3swatch.live.flows import open_flow_watch\n"
        "watch = open_flow_watch()\n"
        "print(watch.attach, *watch.refused, sep='\\n')"
    )
    with namespaces("alone") as spaces, spaces["alone"].inside():
        done = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
            cwd=repo,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    attach, *refused = done.stdout.splitlines()
    assert attach == "none"
    assert [line.partition(":")[0] for line in refused] == ["probe", "conntrack"]
    assert all("not permitted" in line for line in refused)


def test_what_this_kernel_has_no_name_for_is_unsupported() -> None:
    description = btf.load("nf_conntrack")
    assert description.offset("nf_conntrack_tuple", "dst.protonum") == 38
    for struct, member in (("sk_buff", "nonsense"), ("nf_conn", "tuplehash.2"), ("nonsense", "x")):
        with pytest.raises(Unsupported, match="no "):
            description.offset(struct, member)


def test_a_kernel_without_btf_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btf, "BTF_DIRECTORY", tmp_path)
    with pytest.raises(Unsupported, match="no BTF"):
        btf.load("nf_conntrack")
