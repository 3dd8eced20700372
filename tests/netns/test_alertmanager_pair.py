"""Two Alertmanagers that know each other, the real daemon telling both: whatever happens to one of them, and to the
daemon, people hear of an incident once, and once that it is over. A webhook receiver counts.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.onehost import one_host

from k3swatch.demo.netns import Namespace
from k3swatch.demo.services import Alertmanager, Webhook, get_json, wait_until

NFT = "table ip evil { chain pre { type nat hook prerouting priority -100; tcp dport 6443 dnat to 10.9.9.9:443; }; }"
PEER_TIMEOUT = 1.5  # seconds by which the second Alertmanager lets the first one speak
# It must be less than group_interval: who waits still holds what was true before, and tells it after the other has
# told the end. That is why the example for Alertmanager has a minute there.
GROUP_INTERVAL = 4
QUIET = GROUP_INTERVAL + PEER_TIMEOUT + 1  # seconds in which whoever would tell it a second time has done so


class Peer(Alertmanager):
    """One of two. `alone`: it does not know the other."""

    def __init__(self, directory: Path, webhook: str, number: int, alone: bool) -> None:
        super().__init__(directory, webhook, port=9093 + number * 10)
        self.cluster, self.other = 9094 + number * 10, 9094 + (1 - number) * 10
        self.alone = alone

    def command(self) -> Sequence[str]:
        command = [each for each in super().command() if not each.startswith("--cluster")]
        config = self.directory / "alertmanager.yml"
        config.write_text(
            config.read_text().replace("group_interval: 1s", f"group_interval: {GROUP_INTERVAL}s")
        )
        if self.alone:
            return [*command, "--cluster.listen-address="]
        return [
            *command,
            f"--cluster.listen-address=127.0.0.1:{self.cluster}",
            f"--cluster.peer=127.0.0.1:{self.other}",
            f"--cluster.peer-timeout={PEER_TIMEOUT}s",
            "--cluster.gossip-interval=50ms",
            "--cluster.pushpull-interval=1s",
            "--cluster.settle-timeout=5s",
            "--cluster.reconnect-interval=1s",
        ]

    def __exit__(self, *error: object) -> None:
        self.stop(signal.SIGKILL)  # a farewell to the other takes seconds


class Scene:
    """The namespace with everything in it."""

    def __init__(self, space: Namespace, webhook: Webhook, peers: tuple[Peer, Peer], daemon: Daemon) -> None:
        self.space, self.webhook, self.peers, self.daemon = space, webhook, peers, daemon

    def divert(self) -> None:
        self.space.run("nft", NFT)
        self.daemon.until_said("is DIVERTED to 10.9.9.9:443")

    def restore(self) -> None:
        self.space.run("nft", "delete table ip evil")
        self.daemon.until_said("the port is delivered again")

    def told(self, status: str) -> int:
        return len(self.webhook.alerts(status))

    def until_told(self, status: str) -> None:
        wait_until(lambda: self.told(status), status)

    def each_knows(self) -> None:
        wait_until(lambda: all(peer.alerts() for peer in self.peers), "the alert in both")


@contextmanager
def scene(directory: Path, alone: bool = False) -> Iterator[Scene]:
    """Everything up and quiet, in a namespace of its own that this thread is in."""
    with one_host(6443) as space, ExitStack() as stack:
        stack.enter_context(space.inside())
        webhook = stack.enter_context(Webhook())
        first, second = (Peer(directory / f"am{number}", webhook.url, number, alone) for number in (0, 1))
        for peer in (first, second):
            stack.enter_context(peer)
        if not alone:
            wait_until(lambda: all(members(peer) == 2 for peer in (first, second)), "a cluster of two")
        daemon = Daemon(space, directory / "daemon")
        daemon.configure(alertmanager={"urls": [first.url, second.url]})
        stack.enter_context(daemon.start())
        yield Scene(space, webhook, (first, second), daemon)


def members(peer: Peer) -> int:
    status: Any = get_json(f"{peer.url}/api/v2/status") or {}
    cluster = status.get("cluster", {})
    return len(cluster.get("peers", [])) if cluster.get("status") == "ready" else 0


def once(scene: Scene) -> None:
    """It is over now: one notification, one resolve, and both about the same alert."""
    scene.until_told("resolved")
    time.sleep(QUIET)
    assert (scene.told("firing"), scene.told("resolved")) == (1, 1), scene.webhook.notifications
    (fired,), (resolved,) = (scene.webhook.alerts(status) for status in ("firing", "resolved"))
    assert fired["fingerprint"] == resolved["fingerprint"]
    assert fired["labels"]["alertname"] == "K3swatchPortDiverted"
    assert resolved["annotations"]["incident"] == fired["annotations"]["incident"]


def test_told_to_both_heard_once(tmp_path: Path) -> None:
    with scene(tmp_path) as on:
        on.divert()
        on.until_told("firing")
        on.each_knows()
        on.restore()
        once(on)


def test_two_that_do_not_know_each_other_are_heard_twice(tmp_path: Path) -> None:
    """The receiver counts: what the other tests say is not true of just any two."""
    with scene(tmp_path, alone=True) as on:
        on.divert()
        wait_until(lambda: on.told("firing") == 2, "both tell")


@pytest.mark.parametrize(("which", "how"), [(0, "stopped"), (1, "killed, its disk lost")])
def test_one_restarts_in_mid_incident(which: int, how: str, tmp_path: Path) -> None:
    with scene(tmp_path) as on:
        peer = on.peers[which]
        on.divert()
        on.until_told("firing")
        on.each_knows()
        time.sleep(
            PEER_TIMEOUT + 1
        )  # killed before it said whom it told, it would be told for: at least once
        if how == "stopped":
            peer.stop()
        else:
            peer.stop(signal.SIGKILL)
            shutil.rmtree(peer.directory / "data")
        time.sleep(1)
        peer.start()
        wait_until(lambda: members(peer) == 2, "a cluster again")
        assert (on.told("firing"), on.told("resolved")) == (1, 0)
        on.restore()
        once(on)


def test_one_is_down_from_before_until_after(tmp_path: Path) -> None:
    with scene(tmp_path) as on:
        on.peers[0].stop()
        on.divert()
        on.until_told("firing")
        on.restore()
        once(on)
        on.peers[0].start()
        wait_until(lambda: members(on.peers[0]) == 2, "a cluster again")
        on.daemon.until_said("takes alerts again")
        once(on)


def test_the_daemon_restarts_in_mid_incident(tmp_path: Path) -> None:
    with scene(tmp_path) as on:
        on.divert()
        on.until_told("firing")
        on.each_knows()
        assert on.daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        on.daemon.start()
        assert (on.told("firing"), on.told("resolved")) == (1, 0)
        on.restore()
        once(on)
