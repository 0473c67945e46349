"""The report of a language model. Shapes: B rows, T tokens of a window."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.check import gate_statistics, gradient_by_distance
from dlcore.check.recurrent import GATES
from dlcore.data.text import Stream, Vocabulary
from dlcore.models.text import LanguageModel
from dlcore.nn.transformer import Transformer
from dlcore.report import (
    AttentionExample,
    Section,
    attention_section,
    language_sections,
    picture_section,
    write_report,
)
from dlcore.report.plots import plot_gates, plot_gradient_by_distance
from experiments.common.flags import say
from experiments.common.language import Ids

FLAGS = flags.FLAGS
_TOKENS = 20_000  # of the test text, enough to find the worst passages in
_ROWS, _STEPS = 16, 60  # of the test text, to look at gates and gradients with
_PASSAGES, _PASSAGE = 2, 24  # of the test text, and their tokens, to look at attention with


def report(
    workdir: pathlib.Path,
    model: LanguageModel,
    variables: Any,
    first_variables: Any,
    vocabulary: Vocabulary,
    ids: Ids,
    scores: dict[str, dict[str, float]],
) -> None:
    """Writes the report.

    Args:
        workdir: of the run.
        model: the model.
        variables: what it has learned.
        first_variables: what it started from.
        vocabulary: of the run.
        ids: of the texts.
        scores: on the test text, by the name of the model.
    """
    test = ids["test"][:_TOKENS]
    samples = [
        (int(path.stem), path.read_text(encoding="utf-8"))
        for path in sorted((workdir / "samples").glob("*.txt"))
    ]
    sections = language_sections(
        scores,
        samples=samples[-3:], tokens=[vocabulary.tokens[token] for token in test],
        nats=_nats(model, variables, test), separator=" " if vocabulary.level == "word" else "",
    )  # fmt: skip
    if isinstance(model.body, Transformer):
        inside = _attention(model, variables, vocabulary, test)
    else:
        inside = _through_time(model, variables, first_variables, test)
    page = write_report(workdir, [*sections, *inside])
    say(f"report: {page}")


def _nats(model: LanguageModel, variables: Any, ids: np.ndarray) -> np.ndarray:
    """-log P of each token, in order."""

    @jax.jit
    def window(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        carry, readout = model.apply(
            variables, batch["inputs"], batch["reset"], carry=carry, method="window"
        )
        nats = model.output.nats(readout, batch["targets"].reshape(-1))
        return carry, nats.reshape(batch["targets"].shape)

    rows = min(_ROWS, len(ids))
    carry, found, real = model.initial_carry(rows), [], []
    for batch in Stream(ids, rows, FLAGS.window).epoch():
        carry, nats = window(carry, batch)
        found.append(np.asarray(nats))
        real.append(batch["weight"] > 0)
    return np.concatenate(found, axis=1)[np.concatenate(real, axis=1)]


def _attention(
    model: LanguageModel, variables: Any, vocabulary: Vocabulary, ids: np.ndarray
) -> list[Section]:
    """What the heads of the lowest and the highest block look at in some passages."""
    size = min(_PASSAGE, FLAGS.window, len(ids))
    passages = ids[: min(_PASSAGES, len(ids) // size) * size].reshape(-1, size)
    _, _, activations = jax.jit(model.apply)(variables, passages)
    blocks = sorted({0, FLAGS.layers - 1})
    if f"attention_{blocks[0]}" not in activations:  # --chunk never has all weights at once
        return []
    examples = []
    for number, passage in enumerate(passages):
        tokens = [vocabulary.decode([token]) for token in passage]
        for block in blocks:
            weights = np.asarray(activations[f"attention_{block}"][number])
            title = f"passage {number + 1}, block {block + 1}"
            examples.append(AttentionExample(title, weights, tokens, tokens))
    text = "Each row is a token, and shows which of those before it and itself it looks at."
    return [attention_section("Attention", examples, text=text)]


def _through_time(
    model: LanguageModel, variables: Any, first_variables: Any, ids: np.ndarray
) -> list[Section]:
    """What the lowest layer's gates do, and how far its gradients reach."""
    cell = model.body.cells[0]
    count = min(_ROWS, max(1, len(ids) // _STEPS))
    tokens = jnp.asarray(ids[: count * (len(ids[: count * _STEPS]) // count)].reshape(count, -1))

    def layer(variables: Any) -> tuple[Any, jax.Array]:
        params = variables["params"]
        return params["body"]["layer_0"], params["embedding"]["embedding"][tokens]

    curves = {
        name: gradient_by_distance(cell, *layer(of), key=jax.random.key(0))
        for name, of in (("before training", first_variables), ("after training", variables))
    }
    sections = [
        picture_section(
            "Gradients through time", "distance",
            lambda path: plot_gradient_by_distance(curves, path),
            text="Of the lowest layer: what of a loss at the last step reaches the steps before.",
        )
    ]  # fmt: skip
    if type(cell) in GATES:
        gates = gate_statistics(cell, *layer(variables))
        sections.append(
            picture_section(
                "Gates", "gates", lambda path: plot_gates(gates, path),
                text="One point for each unit of the lowest layer.",
            )
        )  # fmt: skip
    return sections
