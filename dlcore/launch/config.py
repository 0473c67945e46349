"""The configuration of a run: one frozen value, parsed at the entry and passed on.

The flags of a job are derived from the fields of its configuration (`launch.flags`), and
config.json is its JSON. A continued run compares the new configuration with the saved one. Tests
and notebooks make one by hand:

    Config(model="mlp", steps=100)

Fields come in groups, each a frozen dataclass; a job's configuration inherits the groups that it
needs, and sets their defaults as class arguments.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from dlcore import optim
from dlcore.data.bits import BINARISATIONS
from dlcore.errors import InputError
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    Condition,
    Spec,
    choice,
    integer,
    integers,
    number,
    path,
    switch,
    text,
    texts,
)
from dlcore.optim.schedules import Schedule
from dlcore.plan.chips import CHIPS
from dlcore.train.rate_range import rising
from dlcore.train.tracking import TRACKERS

T = TypeVar("T", str, list[Any])
_PENALISED = ("lasso", "ridge", "elastic_net")
# The title of the fields that a job's configuration adds to the groups.
OWN = "This job"
# The options of a run that `--smoke` makes tiny.
_SMOKE = {"warmup_steps": 1, "batch_size": 8, "find_steps": 10}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """A group of fields.

    Attributes:
        title: the heading of the group in --help.
        group_conditions: the values of other fields under which inherited fields are read, by their
            group or, for a single field, by its name; a job's configuration sets it.
    """

    title: ClassVar[str] = ""
    group_conditions: ClassVar[Mapping[type | str, Condition]] = {}

    def __init_subclass__(cls, **defaults: Any) -> None:
        """Gives other defaults to fields of inherited groups."""
        super().__init_subclass__()
        annotations = dict(cls.__dict__.get("__annotations__", {}))
        for name, default in defaults.items():
            base: Any = next(
                (
                    base
                    for base in cls.__mro__[1:]
                    if name in base.__dict__.get("__annotations__", {})
                ),
                None,
            )
            if base is None:
                raise TypeError(f"{cls.__name__} inherits no field {name!r}")
            annotations[name] = base.__dict__["__annotations__"][name]
            inherited = base.__dataclass_fields__[name]
            setattr(cls, name, dataclasses.field(default=default, metadata=inherited.metadata))
        cls.__annotations__ = annotations

    def __post_init__(self) -> None:
        for field, spec in _specs(type(self)):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
                value = tuple(value)
            if not (value is None and field.default is None):
                spec.kind.check(field.name, value)
        self.refuse_unread(
            field.name
            for field, _ in _specs(type(self))
            if getattr(self, field.name) != field.default
        )

    def unread(self, name: str) -> str | None:
        """Returns why a field is not read, such as "--model=ngram does not read it", or None.

        A name that is not a field, such as a constant of the job, counts as read.
        """
        if name not in {field.name for field in dataclasses.fields(self)}:
            return None
        for other, values in _conditions(type(self), name):
            if not hasattr(self, other):
                continue
            value = getattr(self, other)
            if not (values(value) if callable(values) else value in values):
                if value is None:
                    return f"--{name} is for --{other}, which is not given"
                return f"--{_flag(other, value)} does not read --{name}"
        return None

    def refuse_unread(self, names: Any) -> None:
        """Raises InputError when a named field is not read given the values of the other fields."""
        for name in names:
            if why := self.unread(name):
                raise InputError(f"{why}; leave it out")

    def changed(self, **values: Any) -> Self:
        """Returns the configuration with some values changed.

        Fields that are not read given the new values get their defaults, unless they are among the
        changed ones.
        """
        new = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(new, name, value)
        unread = {
            field.name: field.default
            for field, _ in _specs(type(self))
            if field.name not in values and new.unread(field.name)
        }
        return dataclasses.replace(self, **unread, **values)

    def json(self) -> dict[str, Any]:
        """Returns the values by name, as JSON represents them."""
        values = {field.name: getattr(self, field.name) for field, _ in _specs(type(self))}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Returns the configuration of a run's JSON values, with defaults for absent ones.

        Fields that are not read given the others get their defaults too, because the defaults may
        have changed since the run was made.

        Raises:
            InputError: for a value that is not possible.
        """
        fields = [field for field, _ in _specs(cls)]
        known = {field.name: values.get(field.name, field.default) for field in fields}
        new = cls()
        for name, value in known.items():
            object.__setattr__(new, name, value)
        return cls(**{name: value for name, value in known.items() if not new.unread(name)})

    def identity(self) -> dict[str, Any]:
        """Returns the JSON values that a run reads and that must not change when it continues."""
        free = {field.name for field, spec in _specs(type(self)) if spec.free}
        return {
            name: value
            for name, value in self.json().items()
            if name not in free and not self.unread(name)
        }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Returns the default of each field by name, as JSON represents it."""
        return {
            field.name: list(field.default) if isinstance(field.default, tuple) else field.default
            for field, _ in _specs(cls)
        }

    def lines(self) -> list[str]:
        """Returns the flags that make this configuration, leaving out those at their defaults."""
        lines = []
        for field, spec in _specs(type(self)):
            value = getattr(self, field.name)
            if value == field.default or value is None:
                continue
            values = value if spec.kind.several == "repeated" else (value,)
            if spec.kind.several == "listed":
                values = (",".join(value),)
            lines += [f"--{_flag(field.name, item)}" for item in values]
        return lines


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no{name}"
    return f"{name}={value}"


def _specs(config: type[Group]) -> list[tuple[dataclasses.Field[Any], Spec]]:
    """Returns the fields of a configuration with their specs."""
    return [
        (field, field.metadata["spec"])
        for field in dataclasses.fields(config)
        if "spec" in field.metadata
    ]


def specs(config: type[Group]) -> list[tuple[str, Any, Spec, str]]:
    """Returns (name, default, spec, title of its group) of each field of a configuration."""
    return [
        (field.name, field.default, spec, _title(_origin(config, field.name)))
        for field, spec in _specs(config)
    ]


def _title(group: type[Group]) -> str:
    """Returns the title of the group itself; a job's own fields have none."""
    return str(group.__dict__.get("title", OWN))


def _origin(config: type[Group], name: str) -> Any:
    """Returns the group that first declares a field."""
    return next(
        base
        for base in reversed(config.__mro__)
        if "ClassVar" not in str(base.__dict__.get("__annotations__", {}).get(name, ClassVar))
    )


def _conditions(config: type[Group], name: str) -> list[tuple[str, Any]]:
    """Returns the conditions under which a field is read, those of its group first."""
    origin = _origin(config, name)
    spec: Spec = config.__dataclass_fields__[name].metadata["spec"]
    found: list[tuple[str, Any]] = []
    for base in config.__mro__:
        for group, condition in base.__dict__.get("group_conditions", {}).items():
            # A job's configuration inherits the group, but its own fields are not of it.
            of_group = not isinstance(group, str) and issubclass(origin, group)
            if name == group or (of_group and not issubclass(origin, base)):
                found += condition.items()
    return [*found, *spec.when.items()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Group):
    """The options of every run: its folder, its length, and what it reports.

    A job whose steps do not follow a gradient by one of Optax's optimizers inherits this class;
    other jobs inherit `Config`.
    """

    title = "Run"

    workdir: str | None = path(None, "folder of the run; default runs/JOB/TIME", free=True)
    seed: int = integer(0, 0, 2**32 - 1, "seed of parameters, data order and noise")
    steps: int | None = integer(
        1000, 1, LARGEST, "training steps; a continued run may have more", free=True
    )
    checkpoint_every: int = integer(
        1000, 0, LARGEST, "steps between checkpoints; 0 saves at the end only", free=True
    )
    checkpoint_dir: str | None = path(
        None, "folder of checkpoints, which may be on gs://; default in --workdir", free=True
    )
    eval_every: int | None = integer(
        0, 0, LARGEST, "steps between evaluations; 0 evaluates at the end only", free=True
    )
    log_every: int = integer(100, 1, LARGEST, "steps between reports", free=True)
    patience: int | None = integer(
        None, 1, LARGEST, "end the run after this many evaluations without a new best", free=True
    )
    resume: str = choice(
        "auto", ("auto", "never", "must"), "whether to continue the run in --workdir", free=True
    )
    check: bool = switch(
        False, "check the model, the data and the step instead of training", free=True
    )
    smoke: bool = switch(False, "take two tiny steps of everything", free=True)
    report: bool = switch(False, "write WORKDIR/report/index.html", free=True)
    record: bool = switch(
        False,
        "store the result of a recipe, the defaults or a command of the glossary in "
        "experiments/results",
        free=True,
    )
    predict: str | None = path(
        None,
        "file or folder that the trained run in --workdir answers; - reads standard input",
        free=True,
    )
    predict_to: str = path(
        "-", "file for the answers, .csv or .jsonl; - writes to standard output", free=True
    )
    profile: str | None = text(None, "FROM:TO traces these steps into WORKDIR/profile", free=True)
    track: str | None = choice(
        None, TRACKERS, "tracker that follows the run; its library must be installed", free=True
    )

    # What a job without these fields does.
    accumulate: ClassVar[int] = 1
    precision: ClassVar[str] = "float32"
    skip_spikes: ClassVar[bool] = False
    plateau_patience: ClassVar[int | None] = None
    binarise: ClassVar[str] = "none"

    def cut(self, items: T, most: int) -> T:
        """Returns only the first `most` items in a smoke test, which should be quick, else all."""
        return items[:most] if self.smoke else items

    def shrunk(self) -> Self:
        """Returns the configuration of two tiny steps that --smoke takes."""
        values: dict[str, Any] = {
            "steps": 2,
            "log_every": 1,
            "eval_every": 1,
            "checkpoint_every": 1,
            "report": True,
        }
        for name, most in _SMOKE.items():
            if _has(self, name):
                values[name] = min(getattr(self, name), most)
        if getattr(self, "schedule", None) == "step":
            values |= {"schedule": "constant", "boundary": ()}
        read = {name: value for name, value in values.items() if not self.unread(name)}
        return dataclasses.replace(self, **read)

    def hyperparameters(self) -> dict[str, Any]:
        """Returns the JSON values that the run reads and its result depends on."""
        names = {*self.identity(), "steps", *ScheduleConfig.defaults()}
        return {
            name: value
            for name, value in self.json().items()
            if name in names and not self.unread(name)
        }

    def for_check(self) -> Self:
        """Returns the configuration that --check tests: float32, on a batch of at most 64."""
        config: Any = self
        values: dict[str, Any] = {"precision": "float32"} if _has(config, "precision") else {}
        if _has(config, "batch_size") and not self.unread("batch_size"):
            values["batch_size"] = min(config.batch_size, 64)
        return dataclasses.replace(self, **values)

    def for_use(self) -> Self:
        """Returns the configuration of a trained run without where and how the run was trained."""
        values: dict[str, Any] = {
            field.name: field.default
            for field in dataclasses.fields(DevicesConfig)
            if _has(self, field.name)
        }
        return dataclasses.replace(
            self,
            **values,
            smoke=False,
            check=False,
            report=False,
            record=False,
            profile=None,
            track=None,
            resume="auto",
        )


def _has(config: Group, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(config)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Group):
    """The source of the examples."""

    title = "Data"

    dataset: str = text("digits", "data set that dlcore embeds or that `prepare` made")
    data_dir: str | None = path(
        None, "folder of prepared data sets; default TFDS's own folder", free=True
    )
    data_path: str | None = path(None, "file or folder of your own data, used instead of --dataset")
    validation: float = number(
        0.0, 0, 1, "share of the training data held out for evaluations", below=True
    )
    batch_size: int = integer(64, 1, LARGEST, "examples per step, over all devices")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitsConfig(Group):
    """Bits drawn from grey pixels, for jobs that model binary images."""

    title = "Data"

    binarise: str = choice(
        "none",
        BINARISATIONS,
        "draw bits with the grey pixels as probabilities: static draws once, dynamic anew "
        "at each training step",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DevicesConfig(Group):
    """The devices and processes of a run; results do not depend on them."""

    title = "Devices"

    layout: str | None = choice(
        None,
        ("jit", "pmap", "mesh"),
        "jit uses one device, pmap and mesh use all; default mesh with --mesh, else jit",
        free=True,
    )
    mesh: str | None = text(None, "axes of --layout=mesh, such as data=2,fsdp=2,model=2", free=True)
    shard: tuple[str, ...] = texts(
        "REGEX:-,model cuts the second axis of the arrays that REGEX finds over the "
        "mesh axis model",
        free=True,
    )
    coordinator: str | None = text(
        None, "HOST:PORT of process 0; on a cluster JAX finds it by itself", free=True
    )
    num_processes: int | None = integer(
        None,
        1,
        LARGEST,
        "number of processes of the run; on a cluster JAX finds it by itself",
        free=True,
    )
    process_id: int | None = integer(
        None,
        0,
        LARGEST,
        "number of this process, from 0 on; on a cluster JAX finds it by itself",
        free=True,
    )
    stall_seconds: int = integer(
        1800,
        0,
        10**7,
        "end the process after this many seconds without a step; 0 never ends it",
        free=True,
    )
    plan: bool = switch(False, "print what a step would cost on --devices, and end", free=True)
    devices: int | None = integer(
        None, 1, 1 << 16, "number of devices for --plan; default as many as --mesh names", free=True
    )
    chip: str | None = text(
        None, f"kind of the devices: {', '.join(CHIPS)}, or its figures", free=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Group):
    """The learning rate as a function of the steps taken; a continued run may change it."""

    title = "Learning rate"

    learning_rate: float | None = number(
        1e-3, 0, LARGEST_NUMBER, "largest learning rate", free=True
    )
    schedule: str = choice(
        "constant", optim.SCHEDULES, "how the learning rate changes during the run", free=True
    )
    boundary: tuple[int, ...] = integers(
        1,
        "step at which --schedule=step divides the learning rate by 10",
        free=True,
        when={"schedule": ("step",)},
    )
    decay_share: float = number(
        0.2,
        0,
        1,
        "last part of the run in which --schedule=wsd decays",
        free=True,
        when={"schedule": ("wsd",)},
    )
    warmup_steps: int = integer(0, 0, LARGEST, "steps of linear warm-up", free=True)
    find_rate: str | None = path(
        None,
        "draw the loss by learning rate into this picture (.png or .svg) to find the "
        "best rate, and end",
        free=True,
        when={"check": (False,), "plan": (False,), "predict": (None,)},
    )
    find_steps: int = integer(
        200,
        10,
        100_000,
        "steps that --find_rate takes",
        free=True,
        when={"find_rate": lambda picture: picture is not None},
    )

    def learning_rates(self) -> Schedule:
        """Returns the learning rate as a function of the steps taken.

        It is constant if the model does not read --schedule.
        """
        config: Any = self  # has the steps of `RunConfig`, settled
        if self.find_rate is not None:
            return rising(self.find_steps)
        return optim.schedule(
            "constant" if self.unread("schedule") else self.schedule,
            config.learning_rate,
            steps=config.steps,
            warmup_steps=self.warmup_steps,
            boundaries=self.boundary,
            decay_share=self.decay_share,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ScheduleConfig):
    """The optimizer of a gradient step, its learning rates by path, and the precision."""

    title = "Optimizer"

    optimizer: str = choice("adamw", optim.OPTIMIZERS, "update rule")
    hyper: tuple[str, ...] = texts("hyperparameter of the optimizer, such as beta=0.9 or b2=0.95")
    plateau_patience: int | None = integer(
        None,
        1,
        LARGEST,
        "reduce the learning rate after this many evaluations without a lower held-out loss",
        when={"schedule": ("constant",), "proximal": (False,)},
    )
    plateau_factor: float = number(
        0.1,
        0,
        1,
        "factor that multiplies the learning rate at a plateau",
        below=True,
        when={"plateau_patience": lambda patience: patience is not None},
    )
    rate_factor: tuple[str, ...] = texts(
        "REGEX:FACTOR multiplies the learning rate of the parameters that REGEX finds"
    )
    weight_decay: float = number(
        0.0,
        0,
        LARGEST_NUMBER,
        "share of matrices and kernels that each step subtracts, times the learning rate",
    )
    clip_norm: float | None = number(
        None, 0, LARGEST_NUMBER, "largest norm of the gradient of all parameters together"
    )
    clip_leaf_norm: float | None = number(
        None, 0, LARGEST_NUMBER, "largest norm of the gradient of each array of parameters"
    )
    clip_value: float | None = number(
        None, 0, LARGEST_NUMBER, "largest absolute value in the gradient"
    )
    clip_adaptive: float | None = number(
        None,
        0,
        LARGEST_NUMBER,
        "largest norm of each unit's gradient, as a share of the norm of its weights, such as 0.01",
    )
    penalty: str | None = choice(None, _PENALISED, "penalty of large weights, added to the loss")
    penalty_strength: float = number(
        1e-4, 0, LARGEST_NUMBER, "factor of --penalty", when={"penalty": _PENALISED}
    )
    penalty_mix: float = number(
        0.5, 0, 1, "share of the squared norm in an elastic net", when={"penalty": ("elastic_net",)}
    )
    proximal: bool = switch(
        False,
        "take --penalty by a proximal step, which makes weights exactly 0, instead of in the loss",
        when={"penalty": _PENALISED},
    )
    l1_ball: float | None = number(
        None,
        0,
        LARGEST_NUMBER,
        "largest sum of absolute values of matrices and kernels; each step is projected onto it",
    )
    l2_ball: float | None = number(
        None,
        0,
        LARGEST_NUMBER,
        "largest L2 norm of matrices and kernels together; each step is projected onto it",
    )
    ema: float | None = number(
        None, 0, 1, "evaluate a moving average of the weights with this decay", below=True
    )
    accumulate: int = integer(
        1, 1, LARGEST, "number of micro-batches into which a step divides its batch"
    )
    precision: str = choice(
        "float32", ("float32", "bfloat16"), "number type that the model computes in"
    )
    skip_spikes: bool = switch(
        False,
        "skip steps whose loss lies 6 standard deviations above the mean of the last 128",
        free=True,
    )

    def mix(self) -> float:
        """Returns the share of the squared norm in --penalty: 0 is LASSO, 1 is ridge."""
        return {"lasso": 0.0, "ridge": 1.0}.get(self.penalty or "", self.penalty_mix)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OptimizerConfig, DevicesConfig, DataConfig, RunConfig):
    """The configuration of an ordinary job: run, data, devices and optimizer."""
