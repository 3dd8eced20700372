"""What the generator leaves out for as long as the evaluator does not foretell it, one named switch each."""

from __future__ import annotations

# Rules that keep from being tracked only some packets of a connection: the answers are then not translated back, or
# what follows the first packet is taken for a connection of its own, and translated.
HALF_TRACKED = True

# The input interface in postrouting chains: answers of this host to a pod, which leave by a bridge, have one.
IIF_AT_POSTROUTING = False

# The user of the socket in input chains. A connection has one when the server has accepted it, so what a rule refuses
# of it comes after the first words of a server that, as the one here, does not wait to be spoken to: a race.
SOCKET_AT_INPUT = False
