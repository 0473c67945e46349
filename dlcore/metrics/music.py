"""Scores of transcriptions and predictions of polyphonic music. Shapes: V pitches."""

import jax

from dlcore.types import Mean


def frame_accuracy(found: jax.Array, roll: jax.Array, weights: jax.Array) -> Mean:
    """Returns the frame-level accuracy TP / (TP + FP + FN) (Bay, Ehmann & Downie 2009, eq. 3).

    Numerator and denominator are summed over all steps before the division, so that the weight of
    the mean is the number of notes that are true, or found, or both.

    Args:
        found: the predicted bits, [..., V].
        roll: the true bits, [..., V].
        weights: the weights of the steps, [...].

    >>> import jax.numpy as jnp
    >>> found, true = jnp.array([[1, 1, 0, 0]]), jnp.array([[1, 0, 1, 0]])
    >>> round(float(frame_accuracy(found, true, jnp.ones(1)).compute()), 4)
    0.3333
    """
    found, true = found > 0, roll > 0
    both, either = ((x.sum(-1)).astype(weights.dtype) for x in (found & true, found | true))
    return Mean((both * weights).sum(), (either * weights).sum())
