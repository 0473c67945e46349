"""Vectors of words from vectors of their character n-grams, see `dlcore.data.text.subwords`.

As in the program fastText, the vector of a word is the mean of its own vector and those of its
n-grams; the paper (Bojanowski et al. 2017) takes the sum.

Shapes: V words, n words of a batch, L n-grams of the longest word, K rows (buckets) of the table of
n-grams, D features.
"""

import jax
import jax.numpy as jnp


def compose(
    word_table: jax.Array, bucket_table: jax.Array, word_rows: jax.Array, ids: jax.Array
) -> jax.Array:
    """Returns the vectors of words: the means of the words' own vectors and those of their n-grams.

    Args:
        word_table: [V, D].
        bucket_table: [K, D].
        word_rows: int [n], the rows of the words; -1 for an unseen word, whose vector is the mean
            of its n-grams alone, or zero if it has none.
        ids: int [n, L], the words' rows of `subword_ids`.

    Returns:
        [n, D].
    """
    seen, real = word_rows >= 0, ids >= 0
    own = jnp.where(seen[:, None], word_table[jnp.maximum(word_rows, 0)], 0)
    grams = jnp.where(real[..., None], bucket_table[jnp.maximum(ids, 0)], 0)
    counts = jnp.maximum(seen.astype(jnp.int32) + real.sum(-1, dtype=jnp.int32), 1)
    return (own + grams.sum(1)) / counts[:, None].astype(own.dtype)
