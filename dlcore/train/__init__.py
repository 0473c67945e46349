"""Training: the state, steps, the loop, evaluation, checkpoints and logs.

`dlcore.train.checkpoint` imports Orbax and `dlcore.train.loop` imports it in turn; the names below
are the rest, which is cheap.
"""

from dlcore.train.evaluation import Best as Best
from dlcore.train.evaluation import evaluate as evaluate
from dlcore.train.gradient import gradient_step as gradient_step
from dlcore.train.health import guard as guard
