"""A job as one class, which a person launches with a configuration.

    @dataclasses.dataclass(frozen=True)
    class Config(launch.Config, steps=2000):
        width: int = integer(128, 1, 4096, "units of the hidden layer")

    class MyJob(launch.Task[Config, MyInfo]):
        def data(self): ...
        def init(self, key): ...
        def loss(self, params, model_state, batch, rng): ...
        def metrics(self, state, batch): ...

    if __name__ == "__main__":
        launch.main(MyJob)

Everything else that a run does is the same for all jobs: flags, folder, layouts, precision,
resuming, logs, evaluations, `--check`, `--plan`, `--smoke`, `--report`, `--predict` (see
`dlcore.launch.running`).
"""

import abc
import dataclasses
import functools
import inspect
import json
import pathlib
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypedDict, TypeVar

import jax
import numpy as np
import optax

from dlcore import optim, runtime
from dlcore.data import (
    ImageData,
    Loader,
    Split,
    evaluation_batches,
    load_images,
    parts_of_batches,
)
from dlcore.data.bits import dynamic_bits, static_bits
from dlcore.errors import InputError
from dlcore.launch.config import RunConfig
from dlcore.launch.process import say
from dlcore.optim.schedules import Schedule
from dlcore.plan.walk import ApplyFn
from dlcore.report import Section
from dlcore.runtime import sharding
from dlcore.train import Result, gradient_step
from dlcore.train.phases import Phase, phased_optimizer, phased_step
from dlcore.types import (
    Aux,
    Batch,
    Carry,
    LossFn,
    Mean,
    Measures,
    Params,
    PyTree,
    Step,
    TrainState,
    Variables,
)

ConfigT = TypeVar("ConfigT", bound=RunConfig)
InfoT = TypeVar("InfoT")


@dataclasses.dataclass(frozen=True)
class Data(Generic[InfoT]):
    """The data of a run.

    Attributes:
        train: the training batches from a given step on, without end; the batch of a step is a
            function of the seed and the step alone.
        test: one pass over the test data.
        validation: one pass over training data held out to choose the model with, if there is any.
        info: the facts that the run must remember of the data: classes, scaling, vocabulary.
        per_step: how many of which unit a step takes in; None means a batch of examples.
        further: one pass over each further test split by its name, which prefixes its metrics.
    """

    train: Callable[[int], Iterator[Batch]]
    test: Callable[[], Iterator[Batch]]
    info: InfoT
    validation: Callable[[], Iterator[Batch]] | None = None
    per_step: Mapping[str, int] | None = None
    further: Mapping[str, Callable[[], Iterator[Batch]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Check:
    """The facts that `--check` needs about a job's model, beside its loss and its step.

    See `check.check_model`.

    Attributes:
        forward: (variables, inputs) -> (outputs, activations by name), in evaluation mode.
        inputs: the name of the model's inputs in a batch.
        chance: the loss of guessing evenly in nats; None where it is not defined.
        overfit_share: the share of `chance`, or of the first loss where `chance` is None, below
            which the loss of one batch must fall; None for the usual share. A loss that another
            player raises again cannot fall far.
    """

    forward: ApplyFn | None = None
    inputs: str | None = None
    chance: float | None = None
    overfit_share: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        variables: the variables that the run reports: those of the best evaluation under
            --patience, else the last; averaged where --ema keeps an average.
        metrics: the metrics on the test data.
        step: the step of the variables.
        result: how training went; None where there was nothing to train.
        summary: further entries of summary.json.
    """

    variables: Variables = dataclasses.field(repr=False)
    metrics: dict[str, float]
    step: int
    result: Result | None
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def extended(self, metrics: Mapping[str, float], **summary: Any) -> "Outcome":
        """Returns the outcome with further metrics and entries of summary.json."""
        return dataclasses.replace(
            self, metrics={**self.metrics, **metrics}, summary={**self.summary, **summary}
        )


class Part(TypedDict):
    """The part of each batch that a process feeds, in the form that the loaders take."""

    process_index: int
    process_count: int


class Task(abc.ABC, Generic[ConfigT, InfoT]):
    """A job: it trains a model from a configuration.

    A subclass names the class of its configuration and the class of the facts that it remembers of
    its data, a frozen dataclass or None: `class MyJob(launch.Task[Config, MyInfo])`.

    Attributes:
        config: the configuration; a task may replace the values that its data settles.
        info: the facts that the run remembers of its data; set once the data was read or a run was
            loaded.
        workdir: the folder of the run.
        metric: the main metric of an evaluation, and whether "max" or "min" is better.
        keep: how many of the newest checkpoints stay.
        rules: how the axis "model" of a mesh cuts the parameters, where their sizes allow it.
        reads: the kind of inputs that `predict` takes in from files: "images", "lines" of text,
            "blocks" of lines with blank lines between them, the paths of "files" of a kind that the
            job defines, or None where the model does not predict.
        answered_together: how many inputs are read and answered together.
        asks: the flags that ask the run in --workdir for something, instead of training.
    """

    metric: tuple[str, Literal["min", "max"]] = ("loss", "min")
    rules: ClassVar[sharding.Rules] = ()
    reads: ClassVar[str | None] = None
    answered_together: ClassVar[int] = 256
    asks: ClassVar[tuple[str, ...]] = ("predict",)
    info: InfoT
    workdir: pathlib.Path

    def __init__(self, config: ConfigT):
        self.config = config

    @property
    def keep(self) -> int:
        return 3

    @classmethod
    def parts(cls) -> tuple[type[Any], type[Any]]:
        """Returns the class of the configuration and the class of `info`."""
        for base in getattr(cls, "__orig_bases__", ()):
            if issubclass(typing.get_origin(base) or object, Task):
                config, info = typing.get_args(base)
                return config, info
        raise TypeError(f"{cls.__name__} does not say launch.Task[Config, Info]")

    @classmethod
    def name(cls) -> str:
        """Returns the name of the job: its module's name, or in a notebook the class's."""
        module = cls.__module__
        if module == "__main__":
            spec = getattr(inspect.getmodule(cls), "__spec__", None)
            module = (
                getattr(spec, "name", "")
                or pathlib.Path(
                    getattr(inspect.getmodule(cls), "__file__", None) or cls.__name__
                ).stem
            )
        names = [part for part in module.split(".") if part != "__main__"]
        if "experiments" in names[:-1]:  # dlcore.experiments.JOB, perhaps with a module of it
            return names[names.index("experiments") + 1]
        return names[-1]

    # What each job has.

    @abc.abstractmethod
    def data(self) -> Data[InfoT]:
        """Reads the data; raises InputError when it cannot be read."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Variables:
        """Returns the model's first variables."""

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        """Returns the loss of a batch; a job with a `step` of its own has none."""
        raise TypeError(f"{type(self).__name__} has neither a loss nor a step; give it one of them")

    @abc.abstractmethod
    def metrics(self, state: TrainState, batch: Batch) -> Measures | tuple[Measures, Carry]:
        """Returns the means of an evaluation, and `Rows` from which `summarise` makes metrics.

        Models that carry a state from batch to batch return their carry as well.
        """

    # What a job may have.

    def phases(self) -> Sequence[Phase]:
        """Returns the phases of training, each with a loss and an optimizer; by default none."""
        return ()

    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer, by default the configuration's or that of the phases."""
        if phases := self.phases():
            return phased_optimizer(phases)
        return make_optimizer(self.config, self.frozen())

    def step(self) -> Step:
        """Returns the step, by default one along the gradient of the loss or the phase's loss."""
        config: Any = self.config
        if phases := self.phases():
            return phased_step(phases, accumulate=config.accumulate)
        loss: LossFn = self.loss
        if config.penalty is not None and not config.proximal:
            loss = optim.with_penalty(
                loss, optim.elastic_net(config.penalty_strength, mix=config.mix())
            )
        return gradient_step(loss, self.optimizer(), accumulate=config.accumulate)

    def carry(self) -> Carry:
        """Returns the carry that the rows of the first batch start from, if the model has one."""
        return None

    def frozen(self) -> tuple[tuple[str, bool], ...]:
        """Returns which parameters are not trained, as path rules."""
        return ()

    def adopt(self, state: TrainState) -> TrainState:
        """Returns the state that a new run starts from, such as with the weights of another run."""
        return state

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        """Returns the metrics to report, given an evaluation's means and its `Rows`' values."""
        return measures

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        """Looks at the training metrics of a report for a problem that a single number hides.

        The log mentions a problem that two reports in a row show, and `--check` looks at the last
        step of its attempt to overfit.

        Returns:
            A line with the problem, its cause and a remedy; None where there is none.
        """
        return None

    def observe(self, variables: Variables, step: int) -> str | None:
        """Looks at the variables after each evaluation, for example to write samples.

        Returns:
            A sample for people to read, which TensorBoard shows; None where there is none.
        """
        return None

    def checks(self, data: Data[InfoT]) -> Check:
        """Returns the facts that `--check` needs beside the loss and the step."""
        return Check()

    def reported(self, variables: Variables) -> Variables:
        """Returns the variables that the run reports and `load` returns, given those that it kept.

        When this is called, the checkpoints of the run are on disk.
        """
        return variables

    def without_training(self) -> tuple[dict[str, float], str] | None:
        """Returns the metrics of a model that has nothing to train, and its name; else None.

        A run of such a model ends with these metrics, once the data was read.
        """
        return None

    def assess(self, outcome: Outcome) -> Outcome:
        """Returns the outcome with further findings of the job about the trained model, at the end.

        In a run of several processes only the first one calls this, with whole variables, so that
        nothing here may wait for the other processes.
        """
        return outcome

    def finish(self, outcome: Outcome) -> Outcome:
        """Writes the job's files at the end; returns the outcome with what it found."""
        return outcome

    def report(self, outcome: Outcome) -> Sequence[Section]:
        """Returns the job's own sections of the report, after the curves."""
        return ()

    @classmethod
    def use(cls, config: Any, given: Collection[str]) -> bool:
        """Does what a command asks for instead of training; returns whether it asked for anything.

        `loading.trained_by(cls, config, given)` returns the run that the command names.

        Args:
            config: the configuration of the command.
            given: the names of the flags on the command line.
        """
        return False

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> Any:
        """Returns the model's outputs for inputs of the kind that `reads` names."""
        raise InputError(f"{self.name()} has no predictions")

    def answers(self, inputs: Sequence[Any], outputs: Any) -> list[Any]:
        """Returns the row of predictions of each input, for `--predict`: a dict, values by column.

        An input with more than one answer has a list of rows.

        By default a row has one column, "output". Arrays become lists when they are written to
        lines or tables.
        """
        return [{"output": np.asarray(output).tolist()} for output in outputs]

    def write_answers(self, folder: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
        """Writes answers in the job's own format, for `--predict_to=FOLDER`.

        Args:
            folder: the folder to write to, a new one.
            rows: the answers with their "input", which are computed as they are iterated over.
        """
        raise TypeError(f"{self.name()} writes no folder of answers")

    def remark(self, inputs: Sequence[Any]) -> str | None:
        """Returns a remark on the predictions as a whole, such as how many inputs are cut."""
        return None

    # What jobs use.

    def first_variables(self) -> Variables:
        """Returns the variables that the run with this seed starts from."""
        return jax.jit(self.init)(jax.random.split(jax.random.key(self.config.seed))[0])

    def computing(self, variables: Variables) -> Variables:
        """Returns the variables with the parameters in the type that the run computes in."""
        precision = runtime.precision(self.config.precision)
        return {**variables, "params": precision.cast(variables["params"])}

    def layout(self) -> runtime.Layout:
        """Returns the layout of the configuration, with the job's rules for the axis "model"."""
        return make_layout(self.config, self.rules)

    def part(self) -> Part:
        """Returns which part of each batch this process feeds, in the form for the loaders."""
        index, count = self.layout().part
        return {"process_index": index, "process_count": count}

    def divided(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Returns the rows that this process feeds, of batches that each process makes whole.

        Rows of zeros fill the batches up where the devices do not divide them.
        """
        return parts_of_batches(map(dict, batches), self.layout().data_size, **self.part())

    def images(self, **options: Any) -> ImageData:
        """Returns the images of --dataset or --data_path, and prints the notes on them.

        With --binarise (`BitsConfig`) their pixels are bits. For dynamic binarisation, `split_data`
        draws the bits of the training images instead. Test images always have the same bits.

        Args:
            options: further arguments of `dlcore.data.load_images`.
        """
        config: Any = self.config
        data = load_images(
            config.dataset, data_dir=config.data_dir, data_path=config.data_path, **options
        )
        for note in data.notes:
            say(note)
        if config.binarise in ("static", "dynamic"):
            data = dataclasses.replace(data, test=static_bits(data.test, 1))
        if config.binarise == "static":
            data = dataclasses.replace(data, train=static_bits(data.train, 0))
        return data

    def split_data(
        self,
        train: Split,
        test: Split,
        info: InfoT,
        sampling_weights: Callable[[Split], np.ndarray] | None = None,
        validation: Split | None = None,
    ) -> Data[InfoT]:
        """Returns shuffled batches of examples, without the share of --validation, and passes.

        Args:
            train: the training examples.
            test: the test examples.
            info: the facts that the run must remember of them.
            sampling_weights: returns how often each example of a split is drawn, see `Loader`; by
                default each is drawn once per epoch.
            validation: the examples to choose a model with, if the data comes with some; then no
                training examples are held out.
        """
        config: Any = self.config
        held_out = validation
        if validation is None:
            train, held_out = split_validation(train, config.validation, config.seed)
            if config.binarise == "dynamic" and held_out is not None:
                held_out = static_bits(held_out, 2)
        loader = Loader(
            train,
            config.batch_size,
            seed=config.seed,
            sampling_weights=None if sampling_weights is None else sampling_weights(train),
            **self.part(),
        )

        def batches(start: int) -> Iterator[Batch]:
            found = loader.batches(start)
            if config.binarise != "dynamic":
                return found
            size, seed = config.batch_size, config.seed
            return dynamic_bits(found, start, seed=seed, batch_size=size, **self.part())

        return Data(
            batches,
            self.passes(test),
            info,
            None if held_out is None else self.passes(held_out),
        )

    def passes(self, split: Split) -> Callable[[], Iterator[Batch]]:
        """Returns a function that makes passes over a split; each process sees its part of it."""
        config: Any = self.config
        return functools.partial(evaluation_batches, split, config.batch_size, **self.part())


def make_optimizer(
    config: Any, frozen: tuple[tuple[str, bool], ...] = ()
) -> optax.GradientTransformation:
    """Returns the optimizer that a configuration with `OptimizerConfig` describes."""
    clips = [
        clip(threshold)
        for clip, threshold in (
            (optim.clip_by_value, config.clip_value),
            (optim.clip_adaptively, config.clip_adaptive),
            (optim.clip_by_leaf_norm, config.clip_leaf_norm),
            (optim.clip_by_global_norm, config.clip_norm),
        )
        if threshold is not None
    ]
    rates = config.learning_rates()
    return optim.optimizer(
        config.optimizer,
        rates,
        weight_decay=config.weight_decay,
        clip=_chained(clips),
        frozen=frozen,
        factors=[*map(_factor, config.rate_factor)],
        correct=_chained(_corrections(config, rates)),
        average=config.ema,
        reducible=config.plateau_patience is not None,
        **dict(map(_hyperparameter, config.hyper)),
    )


def _corrections(config: Any, rates: Schedule) -> list[optax.GradientTransformation]:
    """Returns the proximal step of --penalty, and the projection onto a ball."""
    if config.l1_ball is not None and config.l2_ball is not None:
        raise InputError("--l1_ball and --l2_ball are two constraints; give one of them")
    found = []
    if config.proximal:
        strength, mix = config.penalty_strength, config.mix()
        found.append(optim.proximal(rates, l1=(1 - mix) * strength, l2=mix * strength))
    for norm, radius in (("l1", config.l1_ball), ("l2", config.l2_ball)):
        if radius is not None:
            found.append(optim.projection(norm, radius))
    return found


def _chained(
    transformations: Sequence[optax.GradientTransformation],
) -> optax.GradientTransformation | None:
    if len(transformations) < 2:
        return transformations[0] if transformations else None
    return optax.chain(*transformations)


def _factor(given: str) -> tuple[str, float]:
    """Returns the rule of --rate_factor=REGEX:FACTOR."""
    pattern, _, factor = given.rpartition(":")
    try:
        value = float(factor)
    except ValueError:
        value = np.nan
    if not pattern or not 0 <= value < np.inf:
        raise InputError(
            f"--rate_factor={given} is not REGEX:FACTOR with a factor of 0 or more; write "
            "something like embedding:0.1"
        )
    return pattern, value


def _hyperparameter(given: str) -> tuple[str, Any]:
    """Returns the name and the value of --hyper=NAME=VALUE."""
    name, _, value = given.partition("=")
    if name in inspect.signature(optim.optimizer).parameters:
        raise InputError(f"--hyper={given}: {name} is not a hyperparameter of any update rule")
    try:
        return name, json.loads(value.lower())
    except ValueError:
        raise InputError(
            f"--hyper={given} is not NAME=VALUE with a number, true, false or null; write beta=0.9"
        ) from None


def make_layout(config: Any, defaults: sharding.Rules = ()) -> runtime.Layout:
    """Returns the layout that a configuration describes.

    Raises:
        InputError: when the layout does not fit the devices, or the batch does not fit the layout.
    """
    kind = config.layout or ("mesh" if config.mesh or config.shard else "jit")
    rules = [runtime.parse_rule(rule) for rule in config.shard]
    layout = runtime.layout(kind, mesh=config.mesh, rules=rules, defaults=defaults)
    if not config.unread("batch_size"):
        layout.check_batch_size(config.batch_size, config.accumulate)
    return layout


def make_state(task: Task[Any, Any]) -> TrainState:
    """Returns the state at step 0 of the run with --seed."""
    from dlcore.train.spikes import SpikeGuardedState

    init_key, run_key = jax.random.split(jax.random.key(task.config.seed))
    kind = SpikeGuardedState if task.config.skip_spikes else TrainState
    return kind.create(task.init(init_key), task.optimizer(), run_key, task.carry())


def split_validation(data: Split, share: float, seed: int) -> tuple[Split, Split | None]:
    """Returns training data without a random share, and this share; None for a share of 0.

    Raises:
        InputError: when one of the two would be empty.
    """
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
