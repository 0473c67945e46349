"""Padded sequences: which steps are real, and one vector from all of them.

What lies past a sequence's length, whatever it is, changes nothing and gets no gradient. A sequence
of length 0 gives zeros. Shapes: B batch, T time, D features, A attention features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def length_mask(lengths: jax.Array, steps: int) -> jax.Array:
    """Which of `steps` steps are real, bool [B, T], for lengths int [B]."""
    return jnp.arange(steps)[None] < lengths[:, None]


def last_over_time(x: jax.Array, lengths: jax.Array, *, bidirectional: bool = False) -> jax.Array:
    """The final output of a recurrent layer, [B, D].

    Args:
        x: [B, T, D].
        lengths: int [B].
        bidirectional: whether the second half of D are outputs of a net that ran backwards; its
            final output is that of the first step.
    """
    at = jnp.maximum(lengths - 1, 0)[:, None, None]
    last = jnp.take_along_axis(x, at, axis=1)[:, 0]
    if bidirectional:
        half = x.shape[-1] // 2
        last = jnp.concatenate([last[:, :half], x[:, 0, half:]], axis=-1)
    return jnp.where(lengths[:, None] > 0, last, 0)


def max_over_time(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """The greatest value of each feature (Collobert et al. 2011), [B, D], of x [B, T, D]."""
    mask = length_mask(lengths, x.shape[1])[..., None]
    return jnp.where(lengths[:, None] > 0, jnp.where(mask, x, -jnp.inf).max(1), 0)


def mean_over_time(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """The mean of each feature, [B, D], of x [B, T, D]."""
    mask = length_mask(lengths, x.shape[1])[..., None]
    return jnp.where(mask, x, 0).sum(1) / jnp.maximum(lengths, 1)[:, None]


class AttentionPooling(nn.Module):
    """The mean of all steps, weighted by softmax over t of v . tanh(x_t W + b).

    This is the word attention of Yang et al. 2016 (eqs. 5-7), and one hop of Lin et al. 2017.

    Attributes:
        features: A; None for D.
    """

    features: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps [B, T, D] and lengths int [B] to the mean [B, D] and its weights [B, T]."""
        mask = length_mask(lengths, x.shape[1])
        # A gradient of 0 times padding that is not finite would be NaN.
        x = jnp.where(mask[..., None], x, 0)
        hidden = nn.tanh(nn.Dense(self.features or x.shape[-1], name="hidden")(x))
        scores = nn.Dense(1, use_bias=False, name="score")(hidden)[..., 0]
        lowest = jnp.finfo(scores.dtype).min
        weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, lowest)), 0)
        return jnp.einsum("bt,btd->bd", weights, x), weights
