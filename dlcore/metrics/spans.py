"""Precision and recall of tagged spans, such as names. Shapes: B batch, T time, C tags."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.types import Mean, Metrics


def marks_spans(tag_names: Sequence[str]) -> bool:
    """Returns whether tags mark spans: B-TYPE begins a span and I-TYPE continues it.

    >>> marks_spans(["O", "B-PER", "I-PER"]), marks_spans(["NOUN", "VERB"])
    (True, False)
    """
    return any(name.startswith("B-") for name in tag_names)


def span_scores(
    predicted: jax.Array, tags: jax.Array, mask: jax.Array, tag_names: Sequence[str]
) -> Metrics:
    """Returns precision and recall of whole spans of the right type, as CoNLL-2000 counts them.

    A span begins at B-TYPE, or at an I-TYPE that follows anything but the same type (IOB1, IOB2
    and mixtures are read alike); it ends before the next beginning, another type or O.

    Args:
        predicted: the model's tags, int [B, T].
        tags: the true tags, int [B, T].
        mask: bool [B, T], true for the tokens that count.
        tag_names: C names, of the forms B-TYPE, I-TYPE and O; any other name is its own type and
            begins a span at each token.

    Returns:
        "span_precision", weighted by the predicted spans, and "span_recall", by the true ones.

    >>> names = ["O", "B-PER", "I-PER"]
    >>> predicted, tags = jnp.array([[1, 0, 1]]), jnp.array([[1, 2, 1]])
    >>> scores = span_scores(predicted, tags, jnp.ones((1, 3), bool), names)
    >>> float(scores["span_recall"].compute())
    0.5
    """
    types = sorted({name.split("-", 1)[-1] for name in tag_names if name != "O"})
    numbers = {name: 1 + types.index(name.split("-", 1)[-1]) for name in tag_names if name != "O"}
    type_of = jnp.asarray([numbers.get(name, 0) for name in tag_names])
    inside = jnp.asarray([name.startswith("I-") for name in tag_names])

    def read(tags: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns for each token whether a span begins, its type, and the end of its span."""
        kinds = jnp.where(mask, type_of[tags], 0)
        before = jnp.pad(kinds, ((0, 0), (1, 0)))[:, :-1]
        continues = inside[tags] & (kinds == before) & (kinds > 0)
        last = ~jnp.pad(continues, ((0, 0), (0, 1)))[:, 1:]
        index = jnp.arange(tags.shape[1])[None]
        ends = jax.lax.cummin(jnp.where(last, index, tags.shape[1]), axis=1, reverse=True)
        return (kinds > 0) & ~continues, kinds, ends

    begins, kinds, ends = read(tags)
    predicted_begins, predicted_kinds, predicted_ends = read(predicted)
    same = (kinds == predicted_kinds) & (ends == predicted_ends)
    right = jnp.sum(begins & predicted_begins & same, dtype=jnp.float32)
    return {
        "span_precision": Mean(right, jnp.sum(predicted_begins, dtype=jnp.float32)),
        "span_recall": Mean(right, jnp.sum(begins, dtype=jnp.float32)),
    }


def f1(precision: float, recall: float) -> float:
    """Returns the harmonic mean of precision and recall, or 0 where one of them is 0 or NaN.

    >>> f1(0.5, 1.0), f1(float("nan"), 1.0)
    (0.6666666666666666, 0.0)
    """
    if np.isnan(precision) or np.isnan(recall) or precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
