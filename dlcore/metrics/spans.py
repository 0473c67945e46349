"""Precision and recall of tagged spans, such as names. Shapes: B batch, T time, C tags."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.types import Mean


def marks_spans(tag_names: Sequence[str]) -> bool:
    """Whether tags mark spans: B-TYPE begins one and I-TYPE continues it."""
    return any(name.startswith("B-") for name in tag_names)


def span_scores(
    found: jax.Array, tags: jax.Array, mask: jax.Array, tag_names: Sequence[str]
) -> dict[str, Mean]:
    """Precision and recall of spans, whole and of the right type, as CoNLL-2000 counts them.

    A span begins at B-TYPE, or at an I-TYPE that follows anything but the same type (IOB1, IOB2
    and mixtures are read alike); it ends before the next beginning, another type or O.

    Args:
        found: the model's tags, int [B, T].
        tags: the true ones, int [B, T].
        mask: bool [B, T], which tokens count.
        tag_names: C names, of the forms B-TYPE, I-TYPE and O; any other name is a type of its own
            that begins a span at each token.

    Returns:
        "span_precision", of the spans found, and "span_recall", of the true ones.
    """
    types = sorted({name.split("-", 1)[-1] for name in tag_names if name != "O"})
    numbers = {name: 1 + types.index(name.split("-", 1)[-1]) for name in tag_names if name != "O"}
    type_of = jnp.asarray([numbers.get(name, 0) for name in tag_names])
    inside = jnp.asarray([name.startswith("I-") for name in tag_names])

    def read(tags: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Where spans begin, the type at each token, and where the span that it is in ends."""
        kinds = jnp.where(mask, type_of[tags], 0)
        before = jnp.pad(kinds, ((0, 0), (1, 0)))[:, :-1]
        continues = inside[tags] & (kinds == before) & (kinds > 0)
        last = ~jnp.pad(continues, ((0, 0), (0, 1)))[:, 1:]
        at = jnp.arange(tags.shape[1])[None]
        ends = jax.lax.cummin(jnp.where(last, at, tags.shape[1]), axis=1, reverse=True)
        return (kinds > 0) & ~continues, kinds, ends

    begins, kinds, ends = read(tags)
    found_begins, found_kinds, found_ends = read(found)
    same = (kinds == found_kinds) & (ends == found_ends)
    right = jnp.sum(begins & found_begins & same, dtype=jnp.float32)
    return {
        "span_precision": Mean(right, jnp.sum(found_begins, dtype=jnp.float32)),
        "span_recall": Mean(right, jnp.sum(begins, dtype=jnp.float32)),
    }


def f1(precision: float, recall: float) -> float:
    """The harmonic mean of the two; 0 where nothing was found or nothing is there to be found."""
    if np.isnan(precision) or np.isnan(recall) or precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
