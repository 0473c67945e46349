"""Training: the state, steps, the loop and its hooks, evaluation, checkpoints and logs.

`dlcore.train.checkpoint` imports Orbax and `dlcore.train.logs` the libraries of logs; the names
below are the rest, which is cheap.
"""

from dlcore.train.evaluation import Best as Best
from dlcore.train.evaluation import evaluate as evaluate
from dlcore.train.gradient import gradient_step as gradient_step
from dlcore.train.gradient import mean_gradient as mean_gradient
from dlcore.train.health import guard as guard
from dlcore.train.hooks import Accounting as Accounting
from dlcore.train.hooks import Checkpointing as Checkpointing
from dlcore.train.hooks import Evaluation as Evaluation
from dlcore.train.hooks import Logging as Logging
from dlcore.train.hooks import Profiling as Profiling
from dlcore.train.hooks import StopOnSignal as StopOnSignal
from dlcore.train.hooks import Watchdog as Watchdog
from dlcore.train.hooks import restore_hooks as restore_hooks
from dlcore.train.loop import Hook as Hook
from dlcore.train.loop import Loop as Loop
from dlcore.train.loop import Result as Result
from dlcore.train.loop import fit as fit
