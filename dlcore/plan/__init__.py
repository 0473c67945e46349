"""Predicts the cost of a step on devices that need not exist here: FLOPs, memory, collectives.

`--plan` compiles the step for them and reads the program; `compiled_cost` does the same for any
function.

>>> import jax.numpy as jnp
>>> from dlcore.plan import compiled_cost
>>> cost = compiled_cost(lambda x, w: x @ w, jnp.zeros((8, 16)), jnp.zeros((16, 4)))
>>> cost.flops == 2 * 8 * 16 * 4
True
"""

from dlcore.plan.cost import Cost, compiled_cost

__all__ = [
    "Cost",
    "compiled_cost",
]
