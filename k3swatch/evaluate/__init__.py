"""Executes the ruleset, as the kernel does, on a hypothetical packet to each protected port. Pure.

`judge` gives the verdict on every port; `explain_flow` the finding a real connection belongs to.
"""

from k3swatch.evaluate.flows import explain_flow
from k3swatch.evaluate.judge import judge, protected_addresses

__all__ = ["explain_flow", "judge", "protected_addresses"]
