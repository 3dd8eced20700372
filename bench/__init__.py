"""`make bench`: what k3swatch costs and how fast it is, measured here, beside what people use today.

In: nothing but this machine. Out: one table in Markdown on stdout, progress on stderr. Everything happens in
network namespaces of its own and one temporary directory, both gone afterwards; also after Ctrl-C.

look         one `check`, and the daemon's look after a commit, on rulesets of up to 50,000 rules
latency      from the commit of a rule to the journal entry about it
connections  10,000 a second to the protected port: counted, and at what cost
footprint    memory, and the time to start
"""
