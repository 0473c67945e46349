"""Predicts the cost of a step on devices that need not be there: FLOPs, memory, collectives."""

from dlcore.plan.cost import Cost, compiled_cost

__all__ = [
    "Cost",
    "compiled_cost",
]
