"""The report sections of a machine that infers an algorithm: errors by length, and its memory."""

from typing import Any

import jax
import numpy as np

from dlcore.nn.recurrent import TuringMachine
from dlcore.nn.recurrent.turing import trace
from dlcore.report import Section, picture_section
from dlcore.report.plots import plot_lines, plot_memory
from dlcore.types import Variables


def sections(task: Any, variables: Variables) -> list[Section]:
    """Shows the errors by length, and what the machine does with one sequence of each test.

    Args:
        task: the job.
        variables: of the trained network.
    """
    shown = {task.longest: task.test, **task.further}
    parts = [
        _memory(task, variables, name, length, split)
        for name, (length, split) in zip(
            ("memory", "memory_beyond"), [*shown.items()][:: max(1, len(shown) - 1)], strict=False
        )
    ]
    return [_errors(task), *parts]


def _errors(task: Any) -> Section:
    within = {k: v for k, v in sorted(task.errors.items()) if k <= task.longest}
    outside = {k: v for k, v in sorted(task.errors.items()) if k >= task.longest}
    curves = {
        name: ([*found], [100 * error for error in found.values()])
        for name, found in (("lengths of training", within), ("beyond", outside))
        if found
    }
    what = "bits above the best predictor (%)" if task.predicts else "wrong bits (%)"
    return picture_section(
        "Error by length beyond training",
        "errors",
        lambda path: plot_lines(
            curves,
            path,
            title="Error by length beyond training",
            x="length",
            y=what,
            logarithmic=False,
        ),
        text=f"Training has lengths up to {task.longest}.",
    )


def _memory(task: Any, variables: Variables, name: str, length: int, split: Any) -> Section:
    longest = int(np.argmax(split.arrays["mask"].sum(1)))
    row = {key: array[longest] for key, array in split.arrays.items()}
    steps = int(np.flatnonzero(row["mask"])[-1]) + 1
    x = row["input"][None, :steps]
    outputs = np.asarray(task.chances(variables, x))[0] * row["mask"][:steps, None]
    pictures = {
        "inputs": row["input"][:steps].T,
        "targets": row["target"][:steps].T,
        "outputs": outputs.T,
    }
    text = "Time goes to the right. Outputs are shown where they count."
    weights: dict[str, np.ndarray] = {}
    if isinstance(task.cell, TuringMachine):
        states = jax.jit(lambda params, x: trace(task.cell, params, x))(
            variables["params"]["recurrent"], x
        )
        found = np.asarray(states["weights"][0], np.float32)
        reading = task.cell.read_heads
        for kind, heads in (
            ("write", range(reading, task.cell.heads)),
            ("read", range(reading)),
        ):
            for number, head in enumerate(heads, 1):
                label = f"{kind} weights" + (f" {number}" if len(heads) > 1 else "")
                weights[label] = found[:, head].T
        text += " Weights are of the rows of the memory that a head looks at, by their numbers."
    title = f"{task.config.task} of length {length}"
    return picture_section(
        f"One sequence of length {length}",
        name,
        lambda path: plot_memory(pictures, weights, path, title=title),
        text=text,
    )
