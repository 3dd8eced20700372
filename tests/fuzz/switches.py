"""What the generator leaves out for as long as the evaluator does not foretell it, one named switch each."""

from __future__ import annotations

# Rules that keep from being tracked only some packets of a connection: the answers are then not translated back, or
# what follows the first packet is taken for a connection of its own, and translated.
HALF_TRACKED = True

# The input interface in postrouting chains: answers of this host to a pod, which leave by a bridge, have one.
IIF_AT_POSTROUTING = False
