"""Wiring: sources into evaluation into incidents into sinks, in one thread. No decisions are made here.

observe   one consistent answer about all ports; `check` and the daemon share it
wiring    builds sources and sinks from the configuration
loop      the daemon itself: waits, observes, publishes
control   the Unix socket that `k3swatch status` asks
notify    sd_notify(3)
"""
