"""What `restore` and `guard` do to this host, and only when they are told to: reads, plans, and changes nf_tables.

Wires sources, evaluate, restore and attribute for one process on the command line. The daemon imports none of it.
"""
