"""The report sections of a language model. Shapes: N tokens, B rows, T tokens of a window."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.check import gate_statistics, gradient_by_distance
from dlcore.check.recurrent import GATES
from dlcore.data.text import Stream
from dlcore.models.text import LanguageModel
from dlcore.nn.transformer import Transformer
from dlcore.report import AttentionExample, attention_section, markup, picture_section
from dlcore.report.plots import plot_gates, plot_gradient_by_distance
from dlcore.report.plots.lines import reading
from dlcore.report.sections import Section
from dlcore.report.text import heat_section
from dlcore.types import Batch, Carry, Params, Variables

_TOKENS = 20_000  # of the test text, enough to find the worst passages in
_ROWS, _STEPS = 16, 60  # of the test text, to look at gates and gradients with
_PASSAGES, _PASSAGE = 2, 24  # of the test text, and their tokens, to look at attention with
_MOST_PASSAGES = 5


def sections(
    task: Any, variables: Variables, scores: Mapping[str, Mapping[str, float]]
) -> list[Section]:
    """Returns the sections of a run.

    Args:
        task: the job, `LanguageModelling`.
        variables: of the trained model.
        scores: on the test text, by the name of the model.
    """
    test, vocabulary = task.ids["test"][:_TOKENS], task.info.vocabulary
    samples = [
        (int(path.stem), path.read_text(encoding="utf-8"))
        for path in sorted((task.workdir / "samples").glob("*.txt"))
    ]
    found = language_sections(
        scores,
        samples=samples[-3:],
        tokens=[vocabulary.tokens[token] for token in test],
        nats=_nats(task.model, variables, test, task.config.window),
        separator=vocabulary.separator,
    )
    if isinstance(task.model.body, Transformer):
        return [*found, *_attention(task, variables, test)]
    first = task.computing(task.first_variables())
    return [*found, *_through_time(task.model, variables, first, test)]


def language_sections(
    scores: Mapping[str, Mapping[str, float]],
    *,
    samples: Sequence[tuple[int, str]],
    tokens: Sequence[str],
    nats: np.ndarray,
    separator: str = " ",
) -> list[Section]:
    """Shows the scores beside those of other models, samples over training, the worst passages.

    Args:
        scores: the metrics of each model by name, on the same test text.
        samples: texts that the model wrote in training, each with the step; may be empty.
        tokens: N tokens of the test text in order.
        nats: (N,) the negative log-likelihood of each token.
        separator: the text between two tokens; "" where they are characters or parts of words.
    """
    names = list(dict.fromkeys(name for metrics in scores.values() for name in metrics))
    rows = [
        [model, *(reading(name).text(metrics[name]) if name in metrics else "" for name in names)]
        for model, metrics in scores.items()
    ]
    header = ["", *(reading(name).title for name in names)]
    sections = [Section("Comparison", lambda _: markup.table(rows, header=header))]
    written = [
        html
        for step, sample in samples
        for html in (markup.heading(f"Step {step:,}"), markup.preformatted(sample))
    ]
    if written:
        sections.append(Section("Samples", lambda _: markup.join(written)))
    passages = [
        (f"{nats[start:end].mean():.2f} nats per token", tokens[start:end], nats[start:end])
        for start, end in worst_passages(nats)
    ]
    text = "The redder the bar under a token, the less it was expected."
    passage_section = heat_section(
        "Worst predicted passages", passages, text=text, separator=separator
    )
    return [*sections, passage_section]


def worst_passages(
    nats: np.ndarray, *, length: int = 40, most: int = _MOST_PASSAGES
) -> list[tuple[int, int]]:
    """Returns the starts and ends of the worst predicted passages, the worst first.

    Args:
        nats: (N,) the negative log-likelihood of each token.
        length: the number of tokens of a passage; the text is cut into passages of this length.
        most: the largest number of passages to return.

    >>> worst_passages(np.array([0.1, 0.2, 3.0, 4.0, 1.0, 1.0]), length=2, most=2)
    [(2, 4), (4, 6)]
    """
    starts = np.arange(0, len(nats), length)
    ends = np.minimum(starts + length, len(nats))
    means = np.add.reduceat(nats, starts) / (ends - starts) if len(nats) else np.zeros(0)
    whole = np.flatnonzero(ends - starts == min(length, len(nats)))
    order = whole[np.argsort(-means[whole], kind="stable")][:most]
    return [(int(starts[i]), int(ends[i])) for i in order]


def _nats(
    model: LanguageModel, variables: Variables, ids: np.ndarray, window_size: int
) -> np.ndarray:
    """Returns -log P of each token, in order."""

    @jax.jit
    def window(carry: Carry, batch: Batch) -> tuple[Carry, jax.Array]:
        carry, readout = model.apply(
            variables, batch["inputs"], batch["reset"], carry=carry, method="window"
        )
        nats = model.output.nats(readout, batch["targets"].reshape(-1))
        return carry, nats.reshape(batch["targets"].shape)

    rows = min(_ROWS, len(ids))
    carry, found, real = model.initial_carry(rows), [], []
    for batch in Stream(ids, rows, window_size).epoch():
        carry, nats = window(carry, batch)
        found.append(np.asarray(nats))
        real.append(batch["weight"] > 0)
    return np.concatenate(found, axis=1)[np.concatenate(real, axis=1)]


def _attention(task: Any, variables: Variables, ids: np.ndarray) -> list[Section]:
    """Shows where the heads of the lowest and the highest block look in some passages."""
    model, vocabulary = task.model, task.info.vocabulary
    size = min(_PASSAGE, task.config.window, len(ids))
    passages = ids[: min(_PASSAGES, len(ids) // size) * size].reshape(-1, size)
    _, _, activations = jax.jit(model.apply)(variables, passages)
    blocks = sorted({0, task.config.layers - 1})
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
    model: LanguageModel, variables: Variables, first_variables: Variables, ids: np.ndarray
) -> list[Section]:
    """Shows the gates of the lowest layer, and how far its gradients reach."""
    cell = model.body.cells[0]
    count = min(_ROWS, max(1, len(ids) // _STEPS))
    tokens = jnp.asarray(ids[: count * (len(ids[: count * _STEPS]) // count)].reshape(count, -1))

    def layer(variables: Variables) -> tuple[Params, jax.Array]:
        params = variables["params"]
        return params["body"]["layer_0"], params["embedding"]["embedding"][tokens]

    curves = {
        name: gradient_by_distance(cell, *layer(of), key=jax.random.key(0))
        for name, of in (("before training", first_variables), ("after training", variables))
    }
    sections = [
        picture_section(
            "Gradients through time",
            "distance",
            lambda path: plot_gradient_by_distance(curves, path),
            text="The share of a loss at the last step that reaches those before, lowest layer.",
        )
    ]
    if type(cell) in GATES:
        gates = gate_statistics(cell, *layer(variables))
        sections.append(
            picture_section(
                "Gates",
                "gates",
                lambda path: plot_gates(gates, path),
                text="One point for each unit of the lowest layer.",
            )
        )
    return sections
