"""The undo plan: findings and the rules behind them -> steps for a person, and what can be taken away locally. Pure."""

from k3swatch.restore.plan import plan

__all__ = ["plan"]
