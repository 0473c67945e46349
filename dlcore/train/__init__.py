"""Training: the state, steps, the loop and its hooks, evaluation, checkpoints and logs.

`dlcore.train.checkpoint` imports Orbax, and `dlcore.train.logs` imports the logging libraries. The
names below cover everything else, which is cheap to import.

>>> import itertools, jax, jax.numpy as jnp, optax
>>> from dlcore.train import fit, gradient_step
>>> from dlcore.types import Aux, Mean, TrainState
>>> def loss_fn(params, model_state, batch, rng):
...     return Mean.of((params["w"] - batch["x"]) ** 2), Aux(model_state, {})
>>> def batches(start):  # batch n, n + 1, ... without end
...     return ({"x": jnp.full(4, 3.0)} for _ in itertools.count(start))
>>> tx = optax.sgd(0.5)
>>> state = TrainState.create({"params": {"w": jnp.zeros(())}}, tx, rng=jax.random.key(0))
>>> result = fit(gradient_step(loss_fn, tx), state, batches, steps=5)
>>> result.reason, float(result.state.params["w"])
('finished', 3.0)
"""

from dlcore.train.evaluation import Best, evaluate
from dlcore.train.gradient import gradient_step, mean_gradient
from dlcore.train.health import guard
from dlcore.train.hooks import (
    Accounting,
    Checkpointing,
    Evaluation,
    Logging,
    Profiling,
    ReduceOnPlateau,
    StopOnSignal,
    Watchdog,
    restore_hooks,
)
from dlcore.train.loop import Hook, Loop, Result, fit

__all__ = [
    "Accounting",
    "Best",
    "Checkpointing",
    "Evaluation",
    "Hook",
    "Logging",
    "Loop",
    "Profiling",
    "ReduceOnPlateau",
    "Result",
    "StopOnSignal",
    "Watchdog",
    "evaluate",
    "fit",
    "gradient_step",
    "guard",
    "mean_gradient",
    "restore_hooks",
]
