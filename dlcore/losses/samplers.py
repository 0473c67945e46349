"""Noise distributions over the words of a vocabulary. Shapes: V vocabulary, K samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError


class UnigramSampler(NamedTuple):
    """Draws word ids with fixed probabilities by Walker's alias method, O(1) per draw.

    A pytree, so it can be closed over by a jitted function or given to it.

    Attributes:
        threshold: float32 [V], the share of column w that belongs to word w itself.
        alias: int32 [V], the word to which the rest of column w belongs.
        log_probs: float32 [V], the natural logarithm of each word's probability.
    """

    threshold: jax.Array
    alias: jax.Array
    log_probs: jax.Array

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Independent draws with replacement, int32 of `shape`."""
        column_key, share_key = jax.random.split(key)
        column = jax.random.randint(column_key, shape, 0, self.alias.shape[0])
        share = jax.random.uniform(share_key, shape)
        return jnp.where(share < self.threshold[column], column, self.alias[column])

    def log_prob(self, ids: jax.Array) -> jax.Array:
        """log q(w), float32 of the shape of `ids`."""
        return self.log_probs[ids]


def unigram_sampler(counts: np.ndarray, *, power: float = 1.0) -> UnigramSampler:
    """The sampler with q(w) proportional to count(w)^power.

    Args:
        counts: [V]; a word that was never seen counts like the rarest one that was, because an
            estimator that divides by q needs every word to be drawn now and then.
        power: 1 for the unigram distribution (Mnih & Teh 2012), 3/4 as Mikolov et al. 2013 found
            best for word vectors, 0 for the uniform distribution.

    Raises:
        InputError: when a count is negative or not finite, or none is positive.
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
    """The logarithm of each word's relative frequency, float32 [V].

    As the initial bias of an output layer it starts the model at the unigram distribution, with
    a normaliser of about 1: see `noise_contrastive`.

    Args:
        counts: [V]; a word that was never seen counts like the rarest one that was.

    Raises:
        InputError: when a count is negative or not finite, or none is positive.
    """
    return np.log(_frequencies(counts)).astype(np.float32)


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Each word's share of the text, float64 [V], above 0."""
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
    """Thresholds and aliases [V]: column w holds word w up to its threshold, then its alias."""
    # Each column has room for 1 / V: what a rare word leaves free is filled by a frequent one.
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
    # What is left over is full but for rounding, and is its own alias.
    return np.array(room), np.array(alias)
