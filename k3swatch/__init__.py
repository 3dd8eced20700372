"""k3swatch answers one question, all the time and at once when the answer changes:

    Does a connection to this host's port 6443 still reach the server that owns the port? If not: where does it go
    instead, and which rule sends it there?

Data flows left to right, and the tree shows it:

    kernel -> sources -> decode -> evaluate -> incident -> sinks -> people
              bytes      values    findings    transitions

    model/      the vocabulary as frozen values; imports nothing of ours
    sources/    touch the system, yield bytes; no parsing, no policy
    decode/     bytes -> model; pure, bounds-checked, lossless: what is not known becomes Opaque, never dropped
    live/       where sources and decode meet: the live ruleset, the snapshot, the host's addresses, the flows
    evaluate/   model -> findings; executes the rules on a hypothetical packet; pure, three-valued
    attribute/  finding -> who receives it and who did it; reads the node's files below a root that tests replace
    incident/   findings over time; `now` is an argument
    sinks/      transitions -> journald, Prometheus, Alertmanager, the store
    daemon.py   wiring and the loop; no decisions
    view/       verdicts and incidents -> text and JSON; pure
    restore/    findings and rules -> the undo plan; pure
    undo/       what `restore` and `guard` do to this host when they are told to; no part of the daemon
    cli/        the only room that prints or exits

What cannot be known is `unknown`, and is said: a wrong "delivered" is the worst defect, a false alarm the second.
"""

__version__ = "0.1.0"
