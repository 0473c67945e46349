"""Word embeddings. Shapes: B batch, T time, V vocabulary, D features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from dlcore.nn.dropout import draws, drop, mask_positions, require_rate


class Embedding(nn.Module):
    """A layer that looks up the row of a table for each token.

    In training, the layer drops a word type with probability `dropout`, at all its occurrences in a
    row of the batch, and divides the others by 1 - dropout (Gal & Ghahramani 2016, section 4.2).

    Parameter: `embedding` (V, D), which a layer that ties its weights reads as `table`. Pre-trained
    vectors replace it.

    Attributes:
        vocab_size: V.
        features: D.
        dropout: the probability that a word type is dropped, in [0, 1].
        embedding_init: draws the table; by default its rows have the expected squared length 1.
    """

    vocab_size: int
    features: int
    dropout: float = 0.0
    embedding_init: Initializer = nn.initializers.variance_scaling(
        1.0, "fan_in", "normal", out_axis=0
    )

    def setup(self) -> None:
        shape = (self.vocab_size, self.features)
        self.table = self.param("embedding", self.embedding_init, shape)

    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """Maps ids int [B, T] to [B, T, D]; draws from the stream "dropout".

        The features of an id outside the vocabulary are NaN.

        Raises:
            InputError: when the dropout rate is outside [0, 1].
        """
        require_rate(self.dropout)
        x = jnp.take(self.table, tokens, axis=0, mode="fill")
        if not draws(self.dropout, train):
            return x
        key = self.make_rng("dropout")

        def kept_of(position: jax.Array, words: jax.Array) -> jax.Array:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, position), words)
            return jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.dropout))(keys)

        kept = jax.vmap(kept_of)(mask_positions(len(tokens)), tokens)
        return drop(x, kept[..., None], self.dropout)
