"""A run of a task, from its configuration to its summary."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dlcore import optim, runtime
from dlcore.errors import InputError
from dlcore.files import read_json
from dlcore.launch import accounting, info, records
from dlcore.launch import workdir as folders
from dlcore.launch.config import ScheduleConfig
from dlcore.launch.process import say
from dlcore.launch.task import Data, Outcome, Task, make_state
from dlcore.plan.cost import model_flops
from dlcore.report import write_report
from dlcore.runtime import processes
from dlcore.runtime.output import unfailing
from dlcore.runtime.provenance import provenance
from dlcore.train import (
    Accounting,
    Best,
    Checkpointing,
    Evaluation,
    Hook,
    Logging,
    Profiling,
    ReduceOnPlateau,
    StopOnSignal,
    Watchdog,
    evaluate,
    fit,
    restore_hooks,
)
from dlcore.train.fingerprint import difference
from dlcore.train.logs import RunLog, show_pictures, write_json
from dlcore.train.tracking import Tracker, open_tracker
from dlcore.types import Batch, Carry, Measures, TrainState, Variables


class Interrupted(Exception):
    """An exception for a run that a signal ended after it saved its state.

    Attributes:
        signal: the name of the signal, such as "SIGTERM".
    """

    def __init__(self, signal: str, message: str):
        super().__init__(message)
        self.signal = signal


def run(task: Task[Any, Any], *, started: float | None = None) -> Outcome:
    """Trains a task in the folder of its configuration, from the start or from where it stopped.

        launch.run(ImageClassification(Config(model="mlp", steps=100, workdir="runs/mlp")))

    Args:
        task: the task; its data may settle some values of its configuration.
        started: when the command started, by `time.perf_counter`; now by default.

    Raises:
        InputError: when something is wrong with the configuration, the data or the folder.
        Interrupted: when a signal ended the run.
    """
    started = time.perf_counter() if started is None else started
    if not task.config.record:
        return _run(task, started)
    records.require_recordable(task.name(), task.config)
    outcome = _run(task, started)
    if processes.is_primary():
        (path,) = records.record(task.workdir)
        say(f"recorded in {path}")
    return outcome


def _run(task: Task[Any, Any], started: float) -> Outcome:
    runtime.configure()
    if task.config.smoke:
        task.config = task.config.shrunk()
    task.workdir = _folder(task)
    launched = task.config
    with folders.claimed(task.workdir, launched):
        data = prepare(task)
        if (counted := task.without_training()) is not None:
            return _conclude_untrained(task, launched, *counted, started)
        # They may be elsewhere, where another run writes too.
        with folders.locked(checkpoint_folder(task)):
            outcome = _train(task, launched, data)
        return _finish(task, data, outcome, started)


def _folder(task: Task[Any, Any]) -> pathlib.Path:
    if task.config.workdir is not None:
        return pathlib.Path(task.config.workdir)
    if processes.is_distributed():
        raise InputError("several processes need a --workdir, a folder that all of them see")
    if task.config.smoke:
        return pathlib.Path(tempfile.mkdtemp(prefix="dlcore-smoke-"))
    return folders.new_folder(task.name())


def prepare(task: Task[Any, Any], *, remember: bool = True) -> Data[Any]:
    """Reads the data of a task, and settles the facts that the task remembers of it.

    Args:
        task: the task.
        remember: whether to read and write these facts in the folder of the run.
    """
    data = task.data()
    task.info = data.info
    if remember and task.info is not None and folders.holds_run(task.workdir):
        task.info = info.settle(task.workdir, data.info)
    elif remember and processes.is_primary():
        info.write(task.workdir, task.name(), task.info)
    return data


def metric_fn(task: Task[Any, Any]) -> Callable[[TrainState, Batch], tuple[Measures, Carry]]:
    """Returns the metrics of a task in the form that an evaluation takes."""

    def evaluated(state: TrainState, batch: Batch) -> tuple[Measures, Carry]:
        found = task.metrics(state, batch)
        return found if isinstance(found, tuple) else (found, None)

    return evaluated


def with_average(state: TrainState) -> TrainState:
    """Returns the state with the average of its weights in their place, where --ema keeps one."""
    return state.replace(params=optim.averaged(state.opt_state, state.params))


def variables_of(state: TrainState) -> Variables:
    """Returns the variables that a state reports."""
    state = with_average(state)
    return {"params": state.params, **state.model_state}


def _train(task: Task[Any, Any], launched: Any, data: Data[Any]) -> Outcome:
    config = task.config
    for flag in ("patience", "plateau_patience"):
        if getattr(config, flag) is not None and data.validation is None:
            raise InputError(
                f"--{flag} without --validation would choose the model on the test data; add "
                "--validation=0.1 to hold out a tenth of the training data"
            )
    if config.plateau_patience is not None and not config.eval_every:
        raise InputError("--plateau_patience counts evaluations; give the steps by --eval_every")
    from dlcore.train.checkpoint import Checkpoints

    layout, precision = task.layout(), runtime.precision(config.precision)
    step = task.step()
    compiled = runtime.compile_evaluation(metric_fn(task), layout, precision=precision)
    split = "test" if data.validation is None else "validation"

    def evaluate_on(split: str, state: TrainState) -> dict[str, float]:
        batches = data.test if split == "test" or data.validation is None else data.validation
        found = task.summarise(evaluate(compiled, state, batches()), split)
        for name, further in (data.further if split == "test" else {}).items():
            metrics = task.summarise(evaluate(compiled, state, further()), name)
            found = found | {f"{name}_{metric}": value for metric, value in metrics.items()}
        return found

    def follow(state: TrainState) -> dict[str, float]:
        metrics = evaluate_on(split, with_average(state))
        if not processes.is_distributed():
            sample = task.observe(variables_of(state), int(state.step))
            if sample is not None:
                log.text("sample", sample, int(state.step))
        return metrics

    name, mode = task.metric
    best = Best(name, mode=mode, patience=config.patience)
    checkpoints = Checkpoints(
        checkpoint_folder(task), config.identity(), defaults=config.defaults(), keep=task.keep
    )
    evaluation = Evaluation(follow, every=config.eval_every or 0, split=split, best=best)
    saving = Checkpointing(checkpoints, every=config.checkpoint_every)
    if checkpoints.strangers:
        names = ", ".join(checkpoints.strangers)
        say(
            f"these entries of {checkpoints.directory} are not checkpoints and stay as they "
            f"are: {names}"
        )
    make = functools.partial(make_state, task)  # one function, which JAX traces once
    abstract = layout.abstract(make)
    restored = checkpoints.restore(abstract)
    if restored:
        state = restored.state
        for line in restored.skipped:
            say(f"skipped a damaged checkpoint: {line}")
        say(f"continuing {task.workdir} from step {restored.step}")
    elif step_reached := _step_reached(task.workdir):
        raise InputError(
            f"the run in {task.workdir} has ended at step {step_reached}, but there is no "
            f"checkpoint of it in {checkpoints.directory}; give the --checkpoint_dir that it had, "
            "restore its checkpoints, or choose another --workdir to train anew"
        )
    else:
        state = task.adopt(layout.initialise(make))
    first = restored.step if restored else 0
    if processes.is_primary():
        if restored and first < (config.steps or first):
            _say_changed_rate(task, first, optim.rate_scale(state.opt_state))
        folders.record(task.workdir, task.name(), launched)
    accounting.say_places(layout, state)
    profile = accounting.profile(config, task.workdir)
    peak = accounting.peak_flops(state, config.chip)
    log = RunLog(
        task.workdir,
        start=first,
        steps=config.steps,
        shown=(name, "loss"),
        config=config.hyperparameters(),
        tracker=_tracker(task),
    )
    with contextlib.closing(log):
        log.text("command", "\n".join([f"dlcore {task.name()}", *launched.lines()]), first)
        hooks: list[Hook] = [
            *([Profiling(profile)] if profile is not None else []),
            Logging(log, every=config.log_every, watch=task.watch),
            evaluation,
            *_on_plateau(config, split),
            StopOnSignal(),
            saving,
            Accounting(model_flops, peak),
            Watchdog(config.stall_seconds),  # last, to watch over the last checkpoint too
        ]
        if restored:
            restore_hooks(hooks, restored.loop)
        result = fit(
            step,
            state,
            data.train,
            steps=first if best.exhausted else config.steps or first,
            layout=layout,
            precision=precision,
            hooks=hooks,
        )
    if result.reason.startswith("SIG"):
        checkpoints.close()
        raise Interrupted(
            result.reason,
            f"{result.reason}: saved step {int(result.state.step)} in {task.workdir}; the same "
            f"command with --workdir={task.workdir} continues it",
        )
    state = result.state
    if config.patience is not None and best.value is not None:
        chosen = checkpoints.restore(abstract, best=True)
        assert chosen is not None
        state = chosen.state
    checkpoints.close()
    # The last step was just evaluated on the test data, unless those were held-out ones.
    tested = split == "test" and result.steps > 0
    metrics = result.evaluation if tested else evaluate_on("test", with_average(state))
    return Outcome(variables_of(state), metrics, int(state.step), result)


def _say_changed_rate(task: Task[Any, Any], step: int, scale: float) -> None:
    """Prints the old and new learning rates when flags of a continued run change them.

    Args:
        task: the task; its folder still has the configuration from before.
        step: the step from which the run continues.
        scale: the factor of the rates that is a part of the state.
    """
    config = task.config
    if not isinstance(config, ScheduleConfig):
        return
    before: Any = type(config).from_json(folders.read_config(task.workdir))
    # Some jobs count their steps from the data.
    before = dataclasses.replace(before, steps=before.steps or task.config.steps)
    old, new = (scale * np.asarray(each.learning_rates()(step)) for each in (before, config))
    names = ScheduleConfig.defaults()
    was, now = ({name: each.json()[name] for name in names} for each in (before, config))
    if old != new or was != now:
        steps = {"steps": before.steps}, {"steps": task.config.steps}
        changed = difference(was | steps[0], now | steps[1])
        say(f"learning rate at step {step}: {old:.4g} before, {new:.4g} now ({changed})")


def _on_plateau(config: Any, split: str) -> list[Hook]:
    """Returns the hook of --plateau_patience."""
    if config.plateau_patience is None:
        return []
    hook = ReduceOnPlateau(
        config.plateau_patience,
        factor=config.plateau_factor,
        every=config.eval_every,
        split=split,
        say=say,
    )
    return [hook]


def _step_reached(workdir: pathlib.Path) -> int:
    """Returns the step at which a run has ended, by its summary; 0 without a summary."""
    try:
        return int(read_json(workdir / "summary.json")["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _tracker(task: Task[Any, Any]) -> Tracker | None:
    """Returns the tracker of --track; of several processes only the first has one."""
    config, name = task.config, task.name()
    if config.track is None or not processes.is_primary():
        return None
    return open_tracker(config.track, task.workdir, project=name, config=config.json(), say=say)


def checkpoint_folder(task: Task[Any, Any]) -> str:
    """Returns the folder of a run's checkpoints."""
    return task.config.checkpoint_dir or str(task.workdir / "checkpoints")


def _conclude_untrained(
    task: Task[Any, Any], launched: Any, metrics: dict[str, float], how: str, started: float
) -> Outcome:
    """Writes the files of a run that had nothing to train, and prints its result."""
    folders.record(task.workdir, task.name(), launched)
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    seconds = time.perf_counter() - started
    summary = {
        "experiment": task.name(),
        "result": result_line(metrics, how, seconds),
        "metrics": finite,
        "seconds_to_first_step": None,
        "continued_from": 0,
        "seconds": seconds,
        "processor_seconds": time.process_time(),
        **provenance(),
    }
    write_json(task.workdir / "summary.json", summary)
    print_result(task.name(), task.workdir, str(summary["result"]))
    return Outcome({"params": {}}, metrics, 0, None)


def _finish(task: Task[Any, Any], data: Data[Any], outcome: Outcome, started: float) -> Outcome:
    """Writes the files of a run and prints its result; only the first process does all of it."""
    if processes.is_distributed():
        if type(task).assess is not Task.assess:
            whole = processes.whole(outcome.variables)
            outcome = dataclasses.replace(outcome, variables=whole)
        if processes.is_primary():
            outcome = task.assess(outcome)
            conclude(task, data, outcome, started)
            say("for reports, exports and samples, run the same command in one process")
        processes.all_agree(True)
        return outcome
    outcome = dataclasses.replace(outcome, variables=task.reported(outcome.variables))
    outcome = task.finish(task.assess(outcome))
    conclude(task, data, outcome, started)
    if task.config.report:
        page = write_report(task.workdir, [*task.report(outcome)])
        say(f"report: {page}")
        if outcome.result is not None and outcome.result.steps:
            show_pictures(task.workdir, page.parent.glob("*.png"), outcome.step)
    return outcome


def conclude(task: Task[Any, Any], data: Data[Any], outcome: Outcome, started: float) -> None:
    """Writes summary.json and prints the result.

    The summary of a run that was finished before stays as it was.
    """
    result, path = outcome.result, task.workdir / "summary.json"
    assert result is not None, "a run that trained"
    parameters = sum(leaf.size for leaf in jax.tree.leaves(outcome.variables["params"]))
    how = f"at step {outcome.step}, {parameters:,} parameters"
    line = result_line(outcome.metrics, how, time.perf_counter() - started)
    if result.steps or not path.exists():
        write_summary(task, data, outcome, parameters, started, line)
    print_result(task.name(), task.workdir, line)


def write_summary(
    task: Task[Any, Any],
    data: Data[Any],
    outcome: Outcome,
    parameters: int,
    started: float,
    line: str,
) -> None:
    """Writes summary.json: the result, the time taken and where the run came from."""
    result = outcome.result
    assert result is not None, "a run that trained"
    per_second = (result.steps - 1) / result.seconds if result.steps > 1 else None
    units = data.per_step or {"examples": task.config.batch_size}
    summary = {
        "experiment": task.name(),
        "result": line,
        "step": outcome.step,
        "metrics": outcome.metrics,
        "parameters": parameters,
        "stopped_by": result.reason,
        # A run that was interrupted: the times are those from this step on.
        "continued_from": int(result.state.step) - result.steps,
        "seconds_to_first_step": result.first_step and result.first_step - started,
        **{f"{unit}_per_second": per_second and per_second * n for unit, n in units.items()},
        "recompilations": result.recompilations,
        **accounting.summary(result, task.config.chip),
        **outcome.summary,
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time(),
        **provenance(),
    }
    write_json(task.workdir / "summary.json", summary)


def result_line(metrics: Mapping[str, float], how: str, seconds: float) -> str:
    """Returns the result of a run in one line."""
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    return f"test {shown} {how}, {seconds:.1f} s"


def print_result(job: str, workdir: pathlib.Path, line: str) -> None:
    """Prints the result of a run on standard output."""
    print(f"{job}: {line}; written to {workdir}", file=unfailing(sys.stdout), flush=True)
