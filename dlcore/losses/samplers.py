"""Noise distributions over the words of a vocabulary. Shapes: V vocabulary, K samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError


class UnigramSampler(NamedTuple):
    """A sampler of word ids with fixed probabilities, by Walker's alias method in O(1) per draw.

    It is a pytree, so a jitted function can take it as an argument or close over it.

    Attributes:
        threshold: float32 [V], the share of column w that belongs to word w itself.
        alias: int32 [V], the word to which the rest of column w belongs.
        log_probs: float32 [V], the natural logarithm of each word's probability.
    """

    threshold: jax.Array
    alias: jax.Array
    log_probs: jax.Array

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws independent ids with replacement, int32 of `shape`."""
        column_key, share_key = jax.random.split(key)
        column = jax.random.randint(column_key, shape, 0, self.alias.shape[0])
        share = jax.random.uniform(share_key, shape)
        threshold = self.threshold[column].astype(share.dtype)
        return jnp.where(share < threshold, column, self.alias[column].astype(column.dtype))

    def log_prob(self, ids: jax.Array) -> jax.Array:
        """Returns log q(w), float32 of the shape of `ids`."""
        return self.log_probs[ids]


def unigram_sampler(counts: np.ndarray, *, power: float = 1.0) -> UnigramSampler:
    """Makes the sampler with q(w) proportional to count(w)^power.

    Args:
        counts: [V]; a word with count 0 gets the smallest positive count, because an estimator that
            divides by q must draw every word now and then.
        power: 1 for the unigram distribution (Mnih & Teh 2012), 3/4, which Mikolov et al. 2013
            found best for word vectors, 0 for the uniform distribution.

    Raises:
        InputError: when a count is negative or not finite, or none is positive.

    >>> sampler = unigram_sampler(np.array([6, 2]))
    >>> jnp.exp(sampler.log_prob(jnp.array([0, 1]))).tolist()
    [0.75, 0.25]
    >>> sampler.sample(jax.random.key(0), (3,)).shape
    (3,)
    """
    probs = _frequencies(counts) ** power
    probs /= probs.sum()
    threshold, alias = _alias_table(probs)
    return UnigramSampler(
        jnp.asarray(threshold, jnp.float32),
        jnp.asarray(alias, jnp.int32),
        jnp.asarray(np.log(probs), jnp.float32),
    )


def log_unigram(counts: np.ndarray) -> np.ndarray:
    """Returns the logarithm of each word's relative frequency, float32 [V].

    As the initial bias of an output layer it makes the model start at the unigram distribution,
    with a normaliser of about 1: see `noise_contrastive`.

    Args:
        counts: [V]; a word with count 0 gets the smallest positive count.

    Raises:
        InputError: when a count is negative or not finite, or none is positive.
    """
    return np.log(_frequencies(counts)).astype(np.float32)


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Returns each word's share of the text, float64 [V], above 0."""
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1:
        raise ValueError(f"counts of shape {counts.shape}, expected one per word, (V,)")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.any()):
        raise InputError(
            f"the {counts.size} word counts are not numbers >= 0 with at least one above 0; "
            "count the words of the training text"
        )
    counts = np.where(counts > 0, counts, counts[counts > 0].min())
    return counts / counts.sum()


def _alias_table(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns thresholds and aliases [V]: column w holds word w up to its threshold, then an alias.

    Each column has room for 1 / V; a frequent word fills the room that a rare one leaves free.
    """
    room = (probs * len(probs)).tolist()
    alias = list(range(len(room)))
    rare = [w for w, share in enumerate(room) if share < 1]
    frequent = [w for w, share in enumerate(room) if share >= 1]
    while rare and frequent:
        w, giver = rare.pop(), frequent[-1]
        alias[w] = giver
        room[giver] -= 1 - room[w]
        if room[giver] < 1:
            rare.append(frequent.pop())
    # The remaining columns are full but for rounding, and are their own aliases.
    return np.array(room), np.array(alias)
