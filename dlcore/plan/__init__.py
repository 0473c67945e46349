"""Predicts the cost of a step on devices that need not be there: FLOPs, memory, collectives."""

from dlcore.plan.cost import Cost as Cost
from dlcore.plan.cost import compiled_cost as compiled_cost
