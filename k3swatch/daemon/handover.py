"""From one process to the next: no connection goes unseen while the daemon is started again.

The service manager keeps descriptors over a restart (FDSTORE=1, sd_notify(3)), whatever ended the process. So the
programs of the old probe stay attached, and the ring buffer holds what they saw, until the new probe is attached: then
it is read to its end and goes. After a stop, and without a service manager, nothing is kept.
"""

from __future__ import annotations

from k3swatch.clock import Clock
from k3swatch.daemon.notify import Notifier
from k3swatch.errors import DecodeError, SourceError
from k3swatch.live.flow_remains import flows_left
from k3swatch.live.flows import FlowWatch
from k3swatch.model.flow import Flow

_PREFIX = "probe-"


class Handover:
    """What the manager kept of processes before, and what it shall keep of this one."""

    def __init__(self, notifier: Notifier, clock: Clock) -> None:
        """Takes the descriptors that were handed to this process."""
        self._notifier, self._clock = notifier, clock
        self._left: dict[str, list[int]] = {}
        for name, descriptor in notifier.inherited():
            if name.startswith(_PREFIX):
                self._left.setdefault(name, []).append(descriptor)
        self._kept = ""
        self._superfluous: list[str] = []

    def keep(self, watch: FlowWatch) -> None:
        """From now on the manager holds this watch for the process after this one, and no other watch of this one."""
        if self._kept:
            self._superfluous.append(self._kept)
        descriptors = watch.keepsakes()
        self._kept = f"{_PREFIX}{self._clock.monotonic():.6f}" if descriptors else ""
        if descriptors:
            self._notifier.keep(self._kept, descriptors)
        self.settle()

    def take(self, until: float) -> tuple[list[Flow], list[str]]:
        """What was seen before `until` and told to nobody, once; and in words what of it cannot be read."""
        flows: list[Flow] = []
        wrong: list[str] = []
        self._superfluous += self._left
        self.settle()
        while self._left:
            _, descriptors = self._left.popitem()
            try:
                flows += flows_left(descriptors, until, self._clock)
            except (SourceError, DecodeError) as error:
                wrong.append(str(error))
        return flows, wrong

    def settle(self) -> None:
        """Have the manager forget what is of no use any more; to be called again, it may be busy."""
        while self._superfluous and self._notifier.forget(self._superfluous[-1]):
            self._superfluous.pop()
