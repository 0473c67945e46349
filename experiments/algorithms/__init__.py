"""Inference of algorithms from examples: neural Turing machines, and LSTMs beside them.

By default a neural Turing machine (Graves et al. 2014) learns to copy sequences of up to 10 vectors
of 8 bits and is tested with 20 of them; all data is drawn, so that nothing is read. `--task` is any
of the paper's five, or sorting of numbers; `--model=lstm` is an LSTM of as many parameters.

    --task=copy --longest=20 --beyond=40 --beyond=100
    --task=priority_sort --read_heads=4 --write_heads=4

A trained machine answers problems that are written one a line: `--workdir=DIR --predict=FILE`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data.algorithms import (
    ALGORITHMS,
    Algorithm,
    RepeatCopy,
    draw_batch,
    draw_split,
    padded,
    read_problem,
)
from dlcore.data.loader import process_rows
from dlcore.errors import InputError
from dlcore.launch.config import DevicesConfig, OptimizerConfig, RunConfig
from dlcore.launch.fields import LARGEST, choice, integer, integers
from dlcore.losses import binary_cross_entropy
from dlcore.models.transducer import Transducer, lstm_features
from dlcore.nn.recurrent import LSTM, TuringMachine
from dlcore.report import Section
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Mean,
    Measures,
    Params,
    PyTree,
    Rows,
    TrainState,
    Variables,
    at_least_float32,
)

from . import report

CONTROLLERS = ("lstm", "feed_forward")
# The controller starts with a short memory of its own, so that it learns to use the machine's: with
# a long one some runs are left with that alone.
_FORGET_BIAS = -1.0
# Sequences of each test.
_TESTED = 256
# Below this share of wrong bits a task is solved; n-grams are, when they need so many bits more
# than the best predictor, as a share of its own.
_SOLVED, _NEARLY = 0.01, 0.05
_LONGEST = 4096
# Sets of problems have keys of different lengths or first numbers.
_TRAIN, _VALIDATION, _TEST, _BEYOND = range(4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    OptimizerConfig,
    DevicesConfig,
    RunConfig,
    steps=1000,
    optimizer="adam",
    learning_rate=5e-3,
    schedule="linear",
    clip_norm=1.0,
    eval_every=500,
):
    """The configuration of a machine that infers an algorithm."""

    task: str = choice("copy", ALGORITHMS, "algorithm to infer")
    batch_size: int = integer(16, 1, LARGEST, "sequences per step, over all devices")
    bits: int | None = integer(
        None,
        1,
        64,
        "bits of a vector; default 8, of associative_recall 6, of sort 4",
        when={"task": lambda task: task != "dynamic_ngrams"},
    )
    longest: int | None = integer(
        None,
        1,
        _LONGEST,
        "greatest length in training, in vectors, items or bits; default 10, of repeat_copy 5, "
        "associative_recall 6, dynamic_ngrams 200, sort 8",
    )
    beyond: tuple[int, ...] = integers(
        1, "length beyond those of training to test with; default twice the longest"
    )
    repeats: int = integer(
        5, 1, 1000, "greatest number of copies of repeat_copy", when={"task": ("repeat_copy",)}
    )
    model: str = choice("ntm", ("ntm", "lstm"), "network; lstm has as many parameters as ntm")
    controller: str = choice("lstm", CONTROLLERS, "network that moves the heads of ntm")
    hidden: int = integer(100, 1, 1 << 14, "units of the controller")
    rows: int = integer(128, 1, 1 << 20, "rows of the memory")
    width: int = integer(20, 1, 1 << 14, "values of each row")
    read_heads: int = integer(1, 1, 64, "heads that read")
    write_heads: int = integer(1, 1, 64, "heads that write")
    reach: int = integer(1, 0, 64, "rows that a head can move in a step, either way")

    def shrunk(self) -> "Config":
        small = super().shrunk()
        return dataclasses.replace(small, longest=min(small.algorithm().usual, 8))

    def algorithm(self) -> Algorithm:
        """Returns the task."""
        options: dict[str, Any] = {} if self.bits is None else {"bits": self.bits}
        kind = ALGORITHMS[self.task]
        return kind(**options, **({"repeats": self.repeats} if kind is RepeatCopy else {}))


class Algorithms(launch.Task[Config, None]):
    """A machine that learns an algorithm by its inputs and outputs."""

    reads = "lines"

    def __init__(self, config: Config):
        super().__init__(config)
        # The share of wrong bits by length, of n-grams the bits beyond those of the best predictor.
        self.errors: dict[int, float] = {}

    @property
    def metric(self) -> tuple[str, Literal["min", "max"]]:  # type: ignore[override]
        return ("bits" if self.predicts else "bit_error"), "min"

    @functools.cached_property
    def algorithm(self) -> Algorithm:
        """The task."""
        return self.config.algorithm()

    @property
    def predicts(self) -> bool:
        """Tells whether the outputs are uncertain, so that bits are counted and not errors."""
        return self.config.task == "dynamic_ngrams"

    # The data.

    @property
    def longest(self) -> int:
        """The greatest length in training."""
        return self.config.longest or self.algorithm.usual

    def beyond(self) -> list[int]:
        """Returns the lengths to test with beyond those of training.

        Raises:
            InputError: for one that is not beyond them.
        """
        given = self.config.beyond or (2 * self.longest,)
        for length in given:
            if length <= self.longest:
                raise InputError(
                    f"--beyond={length} is not beyond the lengths of training, which go to "
                    f"{self.longest}; give {self.longest + 1} or more, or change --longest"
                )
            if length > _LONGEST:
                raise InputError(f"--beyond={length} is too long; give at most {_LONGEST}")
        return sorted({*given})

    def data(self) -> launch.Data[None]:
        config, algorithm = self.config, self.algorithm
        if self.longest < algorithm.shortest:
            raise InputError(
                f"--longest={self.longest} is too short for {config.task}; give "
                f"{algorithm.shortest} or more"
            )
        _ = self.cell  # says what is wrong with its sizes before anything is drawn
        lengths = algorithm.lengths(self.longest)
        count = 8 if config.smoke else _TESTED
        beyond = {
            length: draw_split(algorithm, range(length, length + 1), count, key=(_BEYOND, length))
            for length in self.beyond()
        }
        self.test = draw_split(algorithm, lengths, count, key=(_TEST, self.longest))
        held_out = draw_split(algorithm, lengths, count, key=(_VALIDATION, self.longest))
        self.further = beyond
        shown = f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else f"{lengths[0]}"
        launch.say(
            f"{config.task} of lengths {shown}, {algorithm.steps(lengths[-1])} steps at most; also "
            f"tested with {', '.join(map(str, beyond))}"
        )
        return launch.Data(
            self.batches,
            self.passes(self.test),
            None,
            self.passes(held_out),
            further={f"length_{length}": self.passes(split) for length, split in beyond.items()},
        )

    def batches(self, start: int) -> Iterator[Batch]:
        """Yields the batches of problems that are drawn anew at each step."""
        size = self.config.batch_size
        rows = range(size)[process_rows(size, **self.part())]
        lengths = self.algorithm.lengths(self.longest)
        for step in itertools.count(start):
            numbers = [step * size + row for row in rows]
            key = (_TRAIN, self.config.seed)
            batch = draw_batch(self.algorithm, lengths, numbers, key=key)
            yield {**batch, "weight": np.ones(len(rows), np.float32)}

    # The network.

    @functools.cached_property
    def cell(self) -> TuringMachine | LSTM:
        """The machine, or the LSTM of as many parameters."""
        config, algorithm = self.config, self.algorithm
        controller = LSTM(config.hidden, forget_bias=_FORGET_BIAS)
        machine = TuringMachine(
            config.hidden,
            controller=controller if config.controller == "lstm" else None,
            rows=config.rows,
            width=config.width,
            read_heads=config.read_heads,
            write_heads=config.write_heads,
            reach=config.reach,
        )
        if config.model == "ntm":
            return machine
        params = jax.eval_shape(lambda: machine.init(jax.random.key(0), algorithm.inputs))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        count += (machine.output_features + 1) * algorithm.outputs
        return LSTM(lstm_features(count, algorithm.inputs, algorithm.outputs))

    @functools.cached_property
    def model(self) -> Transducer:
        """The network."""
        return Transducer(self.cell, self.algorithm.outputs)

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.model.init(key, jnp.zeros((2, 2, self.algorithm.inputs)))
        return variables

    def forward(self, variables: Variables, inputs: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps inputs [B, T, D] to logits [B, T, O], float32 at least."""
        kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
        logits: jax.Array = self.model.apply(variables, inputs.astype(kind))
        return logits.astype(at_least_float32(logits.dtype)), {}

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        del rng
        logits, _ = self.forward({"params": params, **model_state}, batch["input"])
        losses = binary_cross_entropy(logits, batch["target"]).mean(-1)
        # Each sequence counts alike: short ones, which are learned first, not by their few steps.
        own = (losses * batch["mask"]).sum(1) / batch["mask"].sum(1)
        return Mean.of(own, batch["weight"]), Aux(model_state, {})

    # Evaluation.

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        variables = {"params": state.params, **state.model_state}
        logits, _ = self.forward(variables, batch["input"])
        counted = batch["mask"][..., None]
        losses = binary_cross_entropy(logits, batch["target"]) * counted
        wrong = ((logits > 0) != (batch["target"] > 0.5)) * counted
        found = {
            "length": batch["length"],
            "count": counted.sum((1, 2)) * self.algorithm.outputs,
            "nats": losses.sum((1, 2)),
            "wrong": wrong.sum((1, 2)),
            "best": batch["best"],
        }
        return {"rows": Rows(found, batch["weight"])}

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        rows: Mapping[str, np.ndarray] = measures["rows"]
        found = {"loss": rows["nats"].sum() / rows["count"].sum(), **self._scores(rows)}
        if split != "validation":
            for length in np.unique(rows["length"]):
                own = self._scores({k: v[rows["length"] == length] for k, v in rows.items()})
                self.errors[int(length)] = float(own["excess" if self.predicts else "bit_error"])
        if split == "test":
            solved = found["excess"] < _NEARLY if self.predicts else found["bit_error"] < _SOLVED
            found["solved"] = float(solved)
        return {name: float(value) for name, value in found.items()}

    def _scores(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the scores of sequences: bits of each, or shares of wrong ones."""
        if self.predicts:
            bits, best = rows["nats"].mean() / math.log(2), rows["best"].mean()
            return {"bits": bits, "best_bits": best, "excess": bits / best - 1}
        return {
            "bit_error": rows["wrong"].sum() / rows["count"].sum(),
            "sequence_error": np.mean(rows["wrong"] > 0),
        }

    def checks(self, data: launch.Data[None]) -> launch.Check:
        return launch.Check(self.forward, "input", chance=math.log(2), overfit_share=0.9)

    # Use.

    @functools.cached_property
    def chances(self) -> Callable[[Variables, Any], jax.Array]:
        """Maps (variables, inputs [B, T, D]) to the probabilities of ones [B, T, O]."""
        return jax.jit(lambda variables, x: jax.nn.sigmoid(self.forward(variables, x)[0]))

    def problems(self, lines: Sequence[str]) -> list[Any]:
        """Returns the problems that are written one a line; InputError where one is none."""
        return [read_problem(self.algorithm, n, line) for n, line in enumerate(lines, 1)]

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[np.ndarray]:
        """Returns the probabilities of ones where the outputs count, [T, O] of each problem."""
        problems = self.problems(inputs)
        encoded = [self.algorithm.encode(problem) for problem in problems]
        # Lengths that are alike share a compilation.
        steps = -(-max(len(one.input) for one in encoded) // 32) * 32
        batch = padded(self.algorithm, problems, [0] * len(problems), steps)
        found = np.asarray(self.chances(variables, batch["input"]))
        return [row[mask > 0] for row, mask in zip(found, batch["mask"], strict=True)]

    def answers(self, inputs: Sequence[str], outputs: list[np.ndarray]) -> list[dict[str, Any]]:
        if self.predicts:
            return [{"chance_of_1": chances[:, 0].tolist()} for chances in outputs]
        rows = []
        for problem, chances in zip(self.problems(inputs), outputs, strict=True):
            encoded = self.algorithm.encode(problem)
            right, found = encoded.target[encoded.mask > 0] > 0.5, chances > 0.5
            rows.append(
                {
                    "output": _words(found),
                    "expected": _words(right),
                    "wrong_bits": int((right != found).sum()),
                }
            )
        return rows

    def assess(self, outcome: launch.Outcome) -> launch.Outcome:
        name = "excess" if self.predicts else "bit_error"
        errors = {str(length): self.errors[length] for length in sorted(self.errors)}
        return outcome.extended({}, **{f"{name}_by_length": errors})

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        return report.sections(self, self.computing(outcome.variables))


def _words(bits: np.ndarray) -> str:
    """Returns vectors [T, O] as words of bits."""
    return " ".join("".join(str(int(bit)) for bit in vector) for vector in bits)


if __name__ == "__main__":
    launch.main(Algorithms)
