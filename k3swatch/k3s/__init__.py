"""K3s and RKE2 as they run on this host: which ports are theirs, and who must own each.

settings  what they are told: arguments, environment, configuration files, in their order of precedence
find      the process, its unit, and where those are written down
ports     settings -> protected ports; pure
resolve   the operator's configuration and what was found, put together

Read from files below a root directory, bounded, when the daemon starts, on SIGHUP and when the process is another one.
"""
