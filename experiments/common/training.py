"""The wiring from flags to a trained state."""

import dataclasses
import functools
import inspect
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
import optax
from absl import flags

from dlcore import optim, runtime
from dlcore.data import Loader, Split, evaluation_batches
from dlcore.errors import InputError
from dlcore.optim.schedules import Schedule
from dlcore.runtime import processes, sharding
from dlcore.train import Best, evaluate, gradient_step
from dlcore.train.checkpoint import Checkpoints
from dlcore.train.logs import RunLog
from dlcore.train.loop import Memory, Result, fit
from dlcore.train.spikes import SpikeGuardedState
from dlcore.types import Batch, LossFn, MetricFn, Step, TrainState
from experiments.common import upkeep
from experiments.common.flags import checkpoint_folder, config, record_flags, say

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Feed:
    """The batches of a run.

    Attributes:
        train: the training batches from a given step on, without end.
        test: one pass over the test data.
        validation: one pass over training data held out to choose the model with, if there is any.
    """

    train: Callable[[int], Iterator[Batch]]
    test: Callable[[], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]] | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What a script trains.

    Attributes:
        name: of the script.
        initialise: the model's variables from a key.
        loss_fn: the loss; None for a job with a step of its own.
        metric_fn: (state, batch) -> (means, carry), for evaluation.
        feed: the batches.
        metric: the main metric of the evaluation, and whether "max" or "min" is better.
        carry: what the rows of the first batch start from, for models that read on from batch to
            batch.
        summarise: (means of an evaluation, its split) -> the metrics to report.
        frozen: which parameters are not trained, as path rules.
        observe: is shown the state after each evaluation.
        per_step: how many of which unit a step takes in; one batch of examples by default.
        keep: how many of the newest checkpoints stay.
        take_over: changes the state that a new run starts from, such as to the weights of another.
        step: instead of a step along the gradient of the loss.
        tx: makes the optimizer state of such a step.
        rules: how the axis "model" of a mesh cuts the parameters, where that fits.
    """

    name: str
    initialise: Callable[[jax.Array], Any]
    loss_fn: LossFn | None
    metric_fn: MetricFn
    feed: Feed
    metric: tuple[str, str] = ("accuracy", "max")
    carry: Callable[[], Any] = lambda: None
    summarise: Callable[[dict[str, float], str], dict[str, float]] = lambda means, split: means
    frozen: tuple[tuple[str, bool], ...] = ()
    observe: Callable[[TrainState], None] = lambda state: None
    per_step: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"examples": FLAGS.batch_size}
    )
    keep: int = 3
    take_over: Callable[[TrainState], TrainState] = lambda state: state
    step: Step | None = None
    tx: optax.GradientTransformation | None = None
    rules: sharding.Rules = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run: the state that counts, its metrics on the test data, and how it went."""

    state: TrainState
    metrics: dict[str, float]
    step: int
    result: Result


def make_schedule() -> Schedule:
    """The learning rate by the steps taken that the flags describe."""
    return optim.schedule(
        FLAGS.schedule,
        FLAGS.learning_rate,
        steps=FLAGS.steps,
        warmup_steps=FLAGS.warmup_steps,
        boundaries=FLAGS.boundary,
        decay_share=FLAGS.decay_share,
    )


def make_optimizer(job: Job) -> optax.GradientTransformation:
    """The optimizer that the flags describe."""
    rate = make_schedule()
    clip = optim.clip_by_global_norm(FLAGS.clip_norm) if FLAGS.clip_norm is not None else None
    return optim.optimizer(
        FLAGS.optimizer, rate, weight_decay=FLAGS.weight_decay, clip=clip, frozen=job.frozen,
        factors=[*map(_factor, FLAGS.rate_factor)], average=FLAGS.ema,
        **dict(map(_hyperparameter, FLAGS.hyper)),
    )  # fmt: skip


def _factor(given: str) -> tuple[str, float]:
    """The rule of --rate_factor=REGEX:FACTOR."""
    pattern, _, factor = given.rpartition(":")
    try:
        return pattern, float(factor)
    except ValueError:
        raise InputError(
            f"--rate_factor={given} is not REGEX:FACTOR; write something like embedding:0.1"
        ) from None


def _hyperparameter(given: str) -> tuple[str, Any]:
    """Name and value of --hyper=NAME=VALUE."""
    name, _, value = given.partition("=")
    if name in inspect.signature(optim.optimizer).parameters:
        raise InputError(f"--hyper={given}: {name} is no hyperparameter of an update rule")
    try:
        return name, json.loads(value.lower())
    except ValueError:
        raise InputError(
            f"--hyper={given} is not NAME=VALUE with a number, true, false or null; write beta=0.9"
        ) from None


def make_layout(defaults: sharding.Rules = ()) -> runtime.Layout:
    """The layout that the flags describe, with a job's rules for the axis "model"."""
    kind = FLAGS.layout or ("mesh" if FLAGS.mesh or FLAGS.shard else "jit")
    rules = [runtime.parse_rule(rule) for rule in FLAGS.shard]
    layout = runtime.layout(kind, mesh=FLAGS.mesh, rules=rules, defaults=defaults)
    layout.check_batch_size(FLAGS.batch_size, FLAGS.accumulate)
    return layout


def of_process() -> dict[str, int]:
    """Which part of each batch this process feeds, as the loaders take it."""
    return dict(zip(("process_index", "process_count"), make_layout().part, strict=True))


def refuse_parts() -> None:
    """Raises InputError where the processes would have to share a batch that has no parts."""
    if make_layout().part[1] > 1:
        raise InputError(
            "the batches of this job are not divided among processes; use one process, or "
            "--mesh=model=N over the devices of all"
        )


def make_state(job: Job, tx: optax.GradientTransformation) -> TrainState:
    """The state at step 0 of the run with --seed."""
    init_key, run_key = jax.random.split(jax.random.key(FLAGS.seed))
    kind = SpikeGuardedState if FLAGS.skip_spikes else TrainState
    return kind.create(job.initialise(init_key), tx, run_key, job.carry())


def make_step(job: Job, tx: optax.GradientTransformation, layout: runtime.Layout) -> Step:
    """The job's step, to be compiled for a layout."""
    if job.loss_fn is not None:
        return gradient_step(job.loss_fn, tx, accumulate=FLAGS.accumulate, layout=layout)
    assert job.step is not None, f"{job.name} has neither a loss nor a step"
    return job.step


def make_feed(train: Split, test: Split) -> Feed:
    """Shuffled batches of the training data less the share of --validation."""
    train, held_out = split_validation(train, FLAGS.validation, FLAGS.seed)
    return Feed(
        Loader(train, FLAGS.batch_size, seed=FLAGS.seed, **of_process()).batches,
        passes(test),
        held_out and passes(held_out),
    )


def passes(split: Split) -> Callable[[], Iterator[Batch]]:
    """Makes passes over a split, of which this process sees its part."""
    return functools.partial(evaluation_batches, split, FLAGS.batch_size, **of_process())


def train(job: Job, workdir: pathlib.Path) -> Outcome:
    """Trains, or continues to; returns the best state if --patience is set, else the last.

    A run that a signal ended leaves the process here, with its state saved.
    """
    if FLAGS.patience is not None and job.feed.validation is None:
        raise InputError(
            "--patience without --validation would choose the model on the test data; add "
            "--validation=0.1 to hold out a tenth of the training data"
        )
    layout, tx = make_layout(job.rules), job.tx or make_optimizer(job)
    step = make_step(job, tx, layout)
    metric_fn = runtime.compile_evaluation(job.metric_fn, layout)
    splits = {"test": job.feed.test, "validation": job.feed.validation or job.feed.test}
    split = "validation" if job.feed.validation else "test"

    def evaluate_on(split: str, state: TrainState) -> dict[str, float]:
        return job.summarise(evaluate(metric_fn, state, splits[split]()), split)

    def follow(state: TrainState) -> dict[str, float]:
        state = with_average(state)
        metrics = evaluate_on(split, state)
        if not processes.is_distributed():
            job.observe(state)
        return metrics

    name, mode = job.metric
    best = Best(name, mode=mode, patience=FLAGS.patience)
    memory = Memory(best=best)
    checkpoints = Checkpoints(checkpoint_folder(workdir), config(), keep=job.keep)
    abstract = layout.abstract(lambda: make_state(job, tx))
    restored = checkpoints.restore(abstract)
    if restored:
        state = restored.state
        memory.load(restored.loop)
        for line in restored.skipped:
            say(f"skipped a damaged checkpoint: {line}")
        say(f"continuing {workdir} from step {restored.step}")
    else:
        state = job.take_over(layout.initialise(lambda: make_state(job, tx)))
    first = restored.step if restored else 0
    record_flags(job.name, workdir)
    upkeep.say_places(layout, state)
    log = RunLog(workdir, start=first, steps=FLAGS.steps, shown=("loss", name))
    processes.set_watchdog(FLAGS.stall_seconds)
    try:
        result = fit(
            step, state, job.feed.train,
            steps=first if best.exhausted else FLAGS.steps, layout=layout,
            log=log, log_every=FLAGS.log_every,
            evaluate=follow, eval_every=FLAGS.eval_every, split=split,
            checkpoints=checkpoints, checkpoint_every=FLAGS.checkpoint_every, memory=memory,
            **upkeep.options(state, workdir),
        )  # fmt: skip
    finally:
        processes.set_watchdog(0)
        log.close()
    if result.reason.startswith("SIG"):
        _leave(result, workdir)
    state = result.state
    if FLAGS.patience is not None and best.value is not None:
        state = checkpoints.restore(abstract, best=True).state
    state = with_average(state)
    checkpoints.close()
    # The last step was just evaluated on the test data, unless those were held-out ones.
    tested = split == "test" and result.steps > 0
    metrics = result.evaluation if tested else evaluate_on("test", state)
    return Outcome(state, metrics, int(state.step), result)


def with_average(state: TrainState) -> TrainState:
    """The state with the average of its weights, where --ema keeps one."""
    return state.replace(params=optim.averaged(state.opt_state, state.params))


def split_validation(data: Split, share: float, seed: int) -> tuple[Split, Split | None]:
    """Training data less a random share of it, and that share; None when the share is 0."""
    if share == 0:
        return data, None
    count = round(share * len(data))
    if not 0 < count < len(data):
        raise InputError(
            f"--validation={share} of {len(data)} examples is {count}; give a share that leaves "
            "examples to train on and to validate with"
        )
    order = np.random.default_rng(seed).permutation(len(data))
    return data.subset(np.sort(order[count:])), data.subset(np.sort(order[:count]))


def _leave(result: Result, workdir: pathlib.Path) -> NoReturn:
    step = int(result.state.step)
    say(
        f"{result.reason}: saved step {step} in {workdir}; the same command with "
        f"--workdir={workdir} continues it"
    )
    sys.exit(130 if result.reason == "SIGINT" else 0)
