"""Siamese networks, which score the similarity of two texts by one encoder (Bromley et al. 1993).

Shapes: B batch, T time, F features of an encoded text, K levels of a score.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.losses.levels import level_divergence
from dlcore.models.text.encoder import RecurrentEncoder
from dlcore.nn import Dense, Dropout
from dlcore.nn.sequences import last_over_time, max_over_time, mean_over_time
from dlcore.types import Activations, at_least_float32

# How two vectors become a similarity.
HEADS = ("manhattan", "cosine", "levels")
# How the outputs of the time steps become one vector of a text.
SIAMESE_POOLINGS = ("last", "mean", "max")
_EPSILON = 1e-6  # in lengths of vectors, where a text may be 0


class SiameseEncoder(nn.Module):
    """An encoder for both texts of a pair, and a head that compares their vectors.

    Attributes:
        encoder: maps tokens to features at each step.
        pooling: one of `SIAMESE_POOLINGS`; "last" is the final output of each direction.
        head: one of `HEADS`:
            manhattan: exp(-|u - v|_1) (Mueller & Thyagarajan 2016, equation 5), from 0 to 1.
            cosine: the cosine of u and v (Reimers & Gurevych 2019).
            levels: a softmax over levels from u * v and |u - v| (Tai et al. 2015, equations 15).
        shortcut: whether the pooled embeddings are joined to the pooled outputs.
        levels: K, for the head with levels.
        comparison: the number of hidden units of that head.
    """

    encoder: RecurrentEncoder
    pooling: str = "mean"
    head: str = "manhattan"
    shortcut: bool = False
    levels: int = 6
    comparison: int = 50

    def setup(self) -> None:
        if self.head not in HEADS:
            raise errors.choose("head", self.head, HEADS)
        if self.pooling not in SIAMESE_POOLINGS:
            raise errors.choose("pooling", self.pooling, SIAMESE_POOLINGS)
        self.drop = Dropout(self.encoder.dropout)
        if self.head == "levels":
            self.product = Dense(self.comparison, use_bias=False)
            self.difference = Dense(self.comparison)
            self.output = Dense(self.levels)

    def encode(self, tokens: jax.Array, lengths: jax.Array, train: bool = False) -> jax.Array:
        """Maps tokens int [B, T] and lengths int [B] to vectors [B, F]."""
        x, activations = self.encoder(tokens, lengths, train)
        pooled = [self._pool(x, lengths)]
        if self.shortcut:
            pooled.append(mean_over_time(activations["embedding"], lengths))
        return self.drop(jnp.concatenate(pooled, -1), train)

    def _pool(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        if self.pooling == "mean":
            return mean_over_time(x, lengths)
        if self.pooling == "max":
            return max_over_time(x, lengths)
        return last_over_time(x, lengths, bidirectional=self.encoder.bidirectional)

    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps pairs, tokens int [B, 2, T] and lengths int [B, 2], to the outputs of the head.

        Returns:
            The similarities [B], or the logits [B, K] of the head with levels; and "first" and
            "second", the vectors [B, F].
        """
        # Two calls, not one of 2 B rows: a row's dropout goes by its place in the batch.
        u, v = (self.encode(tokens[:, side], lengths[:, side], train) for side in (0, 1))
        return self.compare(u, v), {"first": u, "second": v}

    def compare(self, u: jax.Array, v: jax.Array) -> jax.Array:
        """Maps vectors [B, F] to the outputs of the head, see `__call__`."""
        if self.head == "manhattan":
            dtype = at_least_float32(u.dtype)
            return jnp.exp(-jnp.abs(u - v).astype(dtype).sum(-1))
        if self.head == "cosine":
            return cosines(u, v)
        hidden = nn.sigmoid(self.product(u * v) + self.difference(jnp.abs(u - v)))
        logits: jax.Array = self.output(hidden)
        return logits

    def losses(self, outputs: jax.Array, scores: jax.Array) -> jax.Array:
        """Returns the loss of each pair, [B]: squared errors, or divergences of levels.

        Args:
            outputs: the outputs of `__call__`.
            scores: the true scores, from 0 to 1, [B].
        """
        if self.head == "levels":
            return level_divergence(outputs, scores * (self.levels - 1))
        return jnp.square(outputs.astype(at_least_float32(outputs.dtype)) - scores)

    def similarity(self, outputs: jax.Array) -> jax.Array:
        """Returns the predicted scores [B], from 0 to 1 except for negative cosines.

        Args:
            outputs: the outputs of `__call__`.
        """
        if self.head != "levels":
            return outputs.astype(at_least_float32(outputs.dtype))
        shares = jax.nn.softmax(outputs.astype(at_least_float32(outputs.dtype)))
        return shares @ jnp.linspace(0, 1, self.levels, dtype=shares.dtype)


def cosines(u: jax.Array, v: jax.Array) -> jax.Array:
    """Returns the cosines of vectors [B, F], [B]; about 0 where a vector is 0.

    >>> found = cosines(jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.ones((2, 2)))
    >>> [round(cosine, 2) for cosine in found.tolist()]
    [0.99, 0.0]
    """
    dtype = at_least_float32(u.dtype, v.dtype)
    u, v = u.astype(dtype), v.astype(dtype)
    squares = (jnp.square(u).sum(-1) + _EPSILON**2) * (jnp.square(v).sum(-1) + _EPSILON**2)
    return (u * v).sum(-1) * jax.lax.rsqrt(squares)
