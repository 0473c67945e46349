"""What a step costs on devices that need not be there: FLOPs, memory, collectives, chips."""

from dlcore.plan.cost import Cost as Cost
from dlcore.plan.cost import compiled_cost as compiled_cost
