"""The lab of the netns tests, around this guest's own network namespace. Runs in the guest.

lab.py serve                            build it and keep it up; systemd is told when it answers
lab.py dial SECONDS SPACE ADDRESS...    who answers on port 6443, a line for each; SPACE is client, web, host or another
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from k3swatch.daemon.notify import Notifier
from k3swatch.demo.apiserver import who_answers
from k3swatch.demo.lab import lab
from k3swatch.demo.netns import Namespace, run

NAMES = Path("/run/lab.env")  # LAB_HOST=…, LAB_POD=…: for tests/netns/labctl.py as well


def serve() -> None:
    run(("ip", "netns", "attach", "host", "1"))
    with lab(host=Namespace("host")) as spaces:
        NAMES.write_text(
            "".join(f"LAB_{name.upper()}={space.name}\n" for name, space in vars(spaces).items())
        )
        Notifier().ready("up")
        signal.pause()


def dial(timeout: str, space: str, *addresses: str) -> None:
    names = dict(line.split("=") for line in NAMES.read_text().split())
    for address in addresses:
        print(who_answers(Namespace(names[f"LAB_{space.upper()}"]), address, 6443, timeout=float(timeout)))


VERBS: dict[str, Callable[..., None]] = {"serve": serve, "dial": dial}
VERBS[sys.argv[1]](*sys.argv[2:])
