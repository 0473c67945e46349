"""What a translation run shows: samples in the course of training, and the report."""

import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import flags

from dlcore.data.text import Vocabulary
from dlcore.data.text.vocabulary import END
from dlcore.report import AttentionExample, Samples, translation_sections, write_report
from dlcore.train.logs import writing
from dlcore.types import TrainState
from experiments.common.flags import say
from experiments.common.translating import Found, Tested, Translator
from experiments.common.translation import Task

FLAGS = flags.FLAGS
_SHOWN = 4  # test sentences whose translation is followed, and whose attention is shown


class Follow:
    """Translates some test sentences at each evaluation, into WORKDIR/samples/STEP.txt."""

    def __init__(self, task: Task, model: nn.Module, workdir: pathlib.Path):
        self._folder = workdir / "samples"
        self._data = task.test.subset(np.arange(min(_SHOWN, len(task.test))))
        self._translator = Translator(task, [model], width=1)

    def __call__(self, state: TrainState) -> None:
        variables = {"params": state.params, **state.model_state}
        found = self._translator.translate([variables], self._data, "samples")
        path = self._folder / f"{int(state.step):08}.txt"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            lines = [of[0] for of in found.texts]
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def report(
    workdir: pathlib.Path,
    task: Task,
    model: nn.Module,
    variables: Any,
    tested: Tested,
) -> None:
    """Writes the report.

    Args:
        workdir: of the run.
        task: the texts.
        model: the model, or the first of those that translate together.
        variables: what it has learned.
        tested: how the test data was translated.
    """
    sources, references = zip(*task.text.test, strict=True)
    steps = sorted((workdir / "samples").glob("*.txt"))
    samples = Samples(
        sources[:_SHOWN], references[:_SHOWN],
        [(int(path.stem), path.read_text(encoding="utf-8").splitlines()) for path in steps],
    )  # fmt: skip
    sections = translation_sections(
        sources, references, [of[0] for of in tested.found.texts], scores=tested.scores,
        source_lengths=task.test.source_lengths, errors=tested.errors, samples=samples,
        attention=_attention(task, model, variables, tested.found),
    )  # fmt: skip
    say(f"report: {write_report(workdir, sections)}")


def _attention(
    task: Task, model: nn.Module, variables: Any, found: Found
) -> list[AttentionExample]:
    """What the decoder looks at while it writes the outputs of some sentences."""
    rows = [row for row, tokens in enumerate(found.tokens[:_SHOWN]) if len(tokens)]
    if not rows:
        return []
    batch, outputs = task.test.gather(np.array(rows)), [found.tokens[row] for row in rows]
    inputs = np.zeros((len(rows), max(map(len, outputs))), np.int32)
    for row, tokens in zip(inputs, outputs, strict=True):
        row[: len(tokens)] = [END, *tokens[:-1]]
    _, activations = jax.jit(model.apply)(
        variables, batch["source"], batch["source_length"], inputs
    )
    if "attention" not in activations:  # a decoder that the bridge alone informs
        return []
    weights, lengths = np.asarray(activations["attention"]), batch["source_length"]
    return [
        AttentionExample(
            f"sentence {row + 1}", weights[place, :, : len(tokens), : lengths[place]],
            _spelt(task.source, batch["source"][place, : lengths[place]]),
            _spelt(task.target, tokens),
        )
        for place, (row, tokens) in enumerate(zip(rows, outputs, strict=True))
    ]  # fmt: skip


def _spelt(vocabulary: Vocabulary, tokens: np.ndarray) -> Sequence[str]:
    """Each token as people read it."""
    ends = {END: "<eos>"}
    return [ends.get(token) or vocabulary.decode([token]) for token in tokens.tolist()]
