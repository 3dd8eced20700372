"""The evaluator against the kernel: random rulesets, real connections, and the kernel's own trace as the oracle.

    ruleset     what a ruleset is made of, so that it can be taken apart again; how it is loaded
    places      the lab's addresses, in the words of nft and iptables
    native, xt  random rules of nft and of iptables
    generate    a seed -> a ruleset and the connections to make
    rig         loads it, makes the connections, reads the trace, asks the evaluator
    compare     where does it go, which rule decided: do they agree?
    shrink      the smallest form of a disagreement
    case        that form as a file of the scorecard
    campaign    many, on both processors; what it came to
    mutants     evaluators that are broken on purpose: the comparison must notice

`make fuzz-kernel N=100000` runs it for long, tests/netns/test_random_rulesets.py in every `make test`.
"""
