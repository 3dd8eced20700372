"""A small C program against the headers of bpf/."""

from __future__ import annotations

import subprocess
from pathlib import Path


def printed(repo: Path, directory: Path, source: str) -> str:
    """What a C program that includes a header of bpf/ prints."""
    (directory / "main.c").write_text(source)
    program = directory / "main"
    subprocess.run(
        ["gcc", "-Wall", "-Werror", f"-I{repo / 'bpf'}", "-o", program, directory / "main.c"], check=True
    )
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout
