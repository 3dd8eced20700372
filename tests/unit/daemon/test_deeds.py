"""What processes did, and who they were, until the next look."""

from __future__ import annotations

from dataclasses import replace

from k3swatch.daemon.deeds import Deeds
from k3swatch.model.finding import Observation
from k3swatch.model.process import Deed, Did, Process
from k3swatch.model.words import Family

SEEN = Observation((), 1)
NGINX = Process(7, "nginx", exe="/usr/sbin/nginx", sources=("exec",))


def listened(inode: int | None, pid: int = 7) -> Deed:
    return Deed(Did.LISTENED, 1.0, pid, "nginx", port=6443, inode=inode)


def test_listeners_are_remembered_by_their_socket() -> None:
    deeds = Deeds(lambda pid, _comm: NGINX if pid == 7 else None)
    deeds.add(
        [listened(70), listened(71, pid=8), listened(None), Deed(Did.CLOSED, 2.0, 7, "nginx", 6443, 70)]
    )
    for _ in range(2):
        assert deeds.behind(SEEN).listened == ((70, NGINX), (71, Process(8, "nginx")))
    deeds.add([listened(70, pid=8)])  # the number is another socket's now
    assert dict(deeds.behind(SEEN).listened)[70] == Process(8, "nginx")
    deeds.add([listened(inode) for inode in range(100, 140)])
    assert [inode for inode, _ in deeds.behind(SEEN).listened] == list(range(108, 140))


def test_a_replaced_table_counts_for_one_look() -> None:
    deeds = Deeds(lambda _pid, _comm: NGINX)
    first = Deed(Did.REPLACED, 1.0, 7, "iptables-legacy", family=Family.IP)
    deeds.add([first])
    assert deeds.behind(SEEN).replaced == ((Family.IP, 1.0, NGINX),)
    assert deeds.behind(SEEN).replaced == ()
    deeds.add([first, replace(first, at=2.0, family=Family.IP6)])
    several = replace(NGINX, commits=2, only=False)
    assert deeds.behind(SEEN).replaced == ((Family.IP, 1.0, several), (Family.IP6, 2.0, several))
