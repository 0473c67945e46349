"""Masks of padded sequences, and pooling over their steps.

Values past a sequence's length, even NaN, change nothing and get no gradient. The results for a
sequence of length 0 are zeros. Shapes: B batch, T time, D features, A attention features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.nn.dense import Dense


def length_mask(lengths: jax.Array, steps: int) -> jax.Array:
    """Returns a mask bool [B, T], T = `steps`, that is true inside the lengths int [B].

    >>> length_mask(jnp.array([1, 3]), 3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return jnp.arange(steps)[None] < lengths[:, None]


def last_over_time(x: jax.Array, lengths: jax.Array, *, bidirectional: bool = False) -> jax.Array:
    """Returns the final output of a recurrent layer, [B, D].

    Args:
        x: the outputs [B, T, D].
        lengths: int [B].
        bidirectional: whether the second half of D comes from a net that ran backwards, whose
            final output is at the first step.

    >>> last_over_time(jnp.array([[[1.0], [2.0], [9.0]]]), jnp.array([2])).tolist()
    [[2.0]]
    """
    index = jnp.maximum(lengths - 1, 0)[:, None, None]
    last = jnp.take_along_axis(x, index, axis=1)[:, 0]
    if bidirectional:
        half = x.shape[-1] // 2
        last = jnp.concatenate([last[:, :half], x[:, 0, half:]], axis=-1)
    return jnp.where(lengths[:, None] > 0, last, 0)


def max_over_time(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Maps x [B, T, D] to the largest value of each feature, [B, D] (Collobert et al. 2011)."""
    mask = length_mask(lengths, x.shape[1])[..., None]
    return jnp.where(lengths[:, None] > 0, jnp.where(mask, x, -jnp.inf).max(1), 0)


def mean_over_time(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Maps x [B, T, D] to the mean of each feature, [B, D].

    >>> mean_over_time(jnp.array([[[1.0], [2.0], [9.0]]]), jnp.array([2])).tolist()
    [[1.5]]
    """
    mask = length_mask(lengths, x.shape[1])[..., None]
    return jnp.where(mask, x, 0).sum(1) / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)


class AttentionPooling(nn.Module):
    """A layer that averages all steps, weighted by the softmax over t of v . tanh(x_t W + b).

    This is the word attention of Yang et al. 2016 (eqs. 5-7), and one hop of Lin et al. 2017.

    Attributes:
        features: A; None takes D.
    """

    features: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps [B, T, D] and lengths int [B] to the mean [B, D] and its weights [B, T]."""
        mask = length_mask(lengths, x.shape[1])
        # 0 times padding that is not finite would make the gradient NaN.
        x = jnp.where(mask[..., None], x, 0)
        hidden = nn.tanh(Dense(self.features or x.shape[-1], name="hidden")(x))
        scores = Dense(1, use_bias=False, name="score")(hidden)[..., 0]
        lowest = jnp.finfo(scores.dtype).min
        weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, lowest)), 0)
        return jnp.einsum("bt,btd->bd", weights, x), weights
