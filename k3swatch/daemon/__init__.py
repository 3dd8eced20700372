"""Wiring: sources into evaluation into incidents into sinks, in one thread. No decisions are made here.

loop      the daemon itself: waits for the kernel, for clients and for time
watch     the seeing half: sources put together into observations; observe.py is one of them, `check` shares it
sources   what is read, each opened again when it fails (source.py); commits.py: who committed what
sinks     who is told; notices.py and report.py: in what words
handover  what one process leaves to the next: its probe
confine   what is given up once connections are seen
control   the Unix socket that `k3swatch status` asks; notify.py: sd_notify(3); signals.py
"""
