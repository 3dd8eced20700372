"""What the generator leaves out for as long as the evaluator does not foretell it, one named switch each."""

from __future__ import annotations

# Rules that keep from being tracked only some packets of a connection: the answers are then not translated back, or
# what follows the first packet is taken for a connection of its own, and translated.
HALF_TRACKED = True

# A pod's connection sent back to its own bridge: with br_netfilter it is bridged, not forwarded, and what forward and
# postrouting chains say is not asked. The answer (nobody) is right, the rule that is named is not.
HAIRPIN = False

# From 127.0.0.1 to another machine: routing fails inside the NAT hook, and later chains are not asked. As above.
LOOPBACK_ELSEWHERE = False

# A redirect to another port goes to the address of the interface it came by, which is taken to be the one that has the
# address dialled: input chains that look at the address may be foretold wrongly.
REDIRECT_ELSEWHERE = False

# `meta skuid` in input chains: what follows the first packet has the server's socket by then (early demux).
SOCKET_AT_INPUT = False

# The input interface in postrouting chains: answers of this host to a pod, which leave by a bridge, have one.
IIF_AT_POSTROUTING = False

# Answers, and what follows them, where there are none or where they take another way: the pod is not there, the server
# is the client's neighbour. That nobody is served is right; the rule that is named would refuse what never comes.
NO_ANSWER = False

# A packet that TPROXY has given to a socket and NAT sends elsewhere after that: it is taken to stay here. Nobody gets
# it, which is right, but not for the rule that is named.
TPROXY_THEN_NAT = False
