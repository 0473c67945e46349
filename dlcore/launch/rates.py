"""--find_rate: the learning rates at which a job's loss falls, found by a short training."""

import contextlib
import dataclasses
import pathlib
import tempfile
from typing import Any

import numpy as np

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.launch.process import say
from dlcore.launch.running import Interrupted, prepare
from dlcore.launch.task import Task, make_state
from dlcore.report.plots import plot_rate_range
from dlcore.runtime import processes
from dlcore.train import Logging, StopOnSignal, Watchdog, fit
from dlcore.train.logs import RunLog, writing
from dlcore.train.rate_range import Found, RangeTest, analyse

_PICTURES = (".png", ".svg")


def find_rate(task: Task[Any, Any]) -> bool:
    """Trains with a growing learning rate, plots the losses and prints the rate to use.

    Only the plot is kept. See `train.rate_range`.

    Returns:
        Whether some rate lowers the loss; always true in a smoke test.

    Raises:
        InputError: when the plot cannot be written, and as for `run`.
        Interrupted: when a signal ended the training.
    """
    runtime.configure()
    if task.config.smoke:
        task.config = task.config.shrunk()
    config = task.config = dataclasses.replace(task.config, workdir=None)
    picture = pathlib.Path(config.find_rate)
    if picture.suffix not in _PICTURES:
        raise InputError(f"--find_rate={picture} is not a picture; end its name in .png or .svg")
    if not picture.parent.is_dir():
        raise InputError(f"there is no folder {picture.parent} for the picture; make it first")
    found, diverged = _train(task)
    if processes.is_primary():
        with writing(picture):
            plot_rate_range(
                found.rates, found.losses, found.smooth, picture, steepest=found.steepest
            )
    say(f"learning rates and losses: {picture}")
    if processes.is_primary():
        print(_verdict(task.name(), found, diverged), flush=True)
    return found.steepest is not None or config.smoke


def _train(task: Task[Any, Any]) -> tuple[Found, bool]:
    """Returns the findings from the losses, and whether the losses diverged at the last rate."""
    with tempfile.TemporaryDirectory(prefix="dlcore-rates-") as folder:
        # What jobs write before they train.
        task.workdir = pathlib.Path(folder)
        data = prepare(task, remember=False)
        config, layout, test = task.config, task.layout(), RangeTest()
        rates, steps = config.learning_rates(), config.find_steps
        log = RunLog(None, steps=steps)
        with contextlib.closing(log):
            result = fit(
                task.step(),
                task.adopt(layout.initialise(lambda: make_state(task))),
                data.train,
                steps=steps,
                layout=layout,
                precision=runtime.precision(config.precision),
                hooks=[
                    Logging(log, every=max(1, steps // 10)),
                    test,
                    StopOnSignal(),
                    Watchdog(config.stall_seconds),
                ],
            )
    if result.reason.startswith("SIG"):
        raise Interrupted(result.reason, f"{result.reason}: no learning rate was found")
    if len(test.losses) < 2:
        raise InputError("the loss is not finite at the smallest learning rates; see --check")
    tried = [float(np.asarray(rates(step))) for step in range(len(test.losses))]
    return analyse(np.array(tried), np.array(test.losses)), test.diverged


def _verdict(job: str, found: Found, diverged: bool) -> str:
    last = f"{found.rates[-1]:.1e}"
    end = f"it diverges at {last}" if diverged else f"it does not diverge up to {last}"
    if found.steepest is None:
        return (
            f"{job}: no learning rate from {found.rates[0]:.1e} on lowers the loss by more than "
            f"its noise; {end}; take more steps (--find_steps) or larger batches, or see --check"
        )
    return (
        f"{job}: the loss falls fastest at a learning rate of {found.steepest:.1e}, is lowest at "
        f"{found.lowest:.1e}, and {end}; train with --learning_rate={found.steepest:.1e}"
    )
