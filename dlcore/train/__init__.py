"""Training: the state, steps, the loop and its hooks, evaluation, checkpoints and logs.

`dlcore.train.checkpoint` imports Orbax and `dlcore.train.logs` the libraries of logs; the names
below are the rest, which is cheap.
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
