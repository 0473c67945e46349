"""--check: good practice before any long run."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags

from dlcore.check import check_model
from dlcore.train import gradient_step
from dlcore.types import Batch
from experiments.common.training import Job, make_optimizer, make_state

FLAGS = flags.FLAGS


def check(
    job: Job, forward: Callable[..., Any], batch: Batch, *, inputs: str, chance: float
) -> NoReturn:
    """Checks a job on a small batch and leaves: with status 0 if all is well, else with 1.

    Args:
        job: what would be trained.
        forward: see `dlcore.analysis.check_model`.
        batch: of the training data.
        inputs: the name of the model's inputs in the batch.
        chance: the loss of guessing evenly, in nats.
    """
    FLAGS.precision, tx = "float32", make_optimizer(job)
    findings = check_model(
        forward, job.loss_fn, make_state(job, tx), dict(batch),
        step=gradient_step(job.loss_fn, tx), inputs=inputs, chance=chance,
    )  # fmt: skip
    sys.exit(0 if all(finding.passed for finding in findings) else 1)
