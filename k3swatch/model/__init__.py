"""The vocabulary of k3swatch as frozen values. Imports nothing of ours and does nothing: no I/O, no clock, no policy.

Words are those of design.md ("protected port", "vantage", "finding", ...) and the kernel's for everything that
comes from it (`Payload`, `Lookup`, `Verdict`, ...).
"""
