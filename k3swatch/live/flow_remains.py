"""What the probe of the process before saw, until that of this one took over."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.clock import Clock
from k3swatch.decode import event
from k3swatch.model.flow import Flow
from k3swatch.sources.remains import Remains


def flows_left(descriptors: Iterable[int], until: float, clock: Clock) -> list[Flow]:
    """The connections before `until` that were told to nobody; what came later, this process sees itself.

    `descriptors` are those of FlowWatch.keepsakes, of another process; they are closed. SourceError or DecodeError:
    what that one saw cannot be read, because it is of another version.
    """
    remains = Remains(descriptors)
    try:
        event.check_layout(remains.layout)
        remains.detach()
        epoch = clock.now() - clock.monotonic()
        flows = [event.decode_event(raw, epoch, remains.reasons) for raw in remains.records()]
    finally:
        remains.close()
    return [flow for flow in flows if flow.at < until]
