"""Named Optax optimizers and schedules, clipping and penalties, all selected by path rules.

Everything is a `GradientTransformation` or a pure function; what an optimizer knows about its last
step (the learning rate, the clipped share) is read off its state by `reported`.

>>> import jax, jax.numpy as jnp, optax
>>> from dlcore.optim import optimizer, reported, schedule
>>> rate = schedule("cosine", 0.1, steps=100, warmup_steps=10)
>>> tx = optimizer("adam", rate, weight_decay=0.01, factors=[("^head/", 2.0)])
>>> params = {"body": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
>>> updates, state = tx.update(params, tx.init(params), params)
>>> sorted(reported(state))
['learning_rate']
"""

from dlcore.optim.averaging import average_weights, averaged, start_average
from dlcore.optim.bounds import bound_above
from dlcore.optim.clipping import (
    clip_adaptively,
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_value,
)
from dlcore.optim.magnitude import divide_by_mean_magnitude
from dlcore.optim.optimizers import OPTIMIZERS, optimizer
from dlcore.optim.penalties import (
    elastic_net,
    lasso,
    projection,
    proximal,
    ridge,
    to_scikit_learn,
    with_penalty,
)
from dlcore.optim.plateau import rate_scale, reduce_on_plateau
from dlcore.optim.reports import Reported, reported
from dlcore.optim.schedules import SCHEDULES, schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Reported",
    "average_weights",
    "averaged",
    "bound_above",
    "clip_adaptively",
    "clip_by_global_norm",
    "clip_by_leaf_norm",
    "clip_by_value",
    "divide_by_mean_magnitude",
    "elastic_net",
    "lasso",
    "optimizer",
    "projection",
    "proximal",
    "rate_scale",
    "reduce_on_plateau",
    "reported",
    "ridge",
    "schedule",
    "start_average",
    "to_scikit_learn",
    "with_penalty",
]
