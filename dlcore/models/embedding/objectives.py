"""The objectives of word2vec: each turns scores of pairs of words into a loss.

Shapes: B blocks, T queries of a block, P = B T queries, C targets that a block holds, L rows of a
target, K shared samples, V vocabulary, D features.
"""

import abc
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import choose
from dlcore.losses.samplers import UnigramSampler, unigram_sampler
from dlcore.losses.word_trees import WordTree, huffman

# The objectives of word2vec; each is a loss of the same scores.
OBJECTIVES = ("negative_sampling", "nce", "hierarchical", "full")


class Scored(NamedTuple):
    """Queries and the words that they are scored against.

    Attributes:
        scores: the scores of each query and target, [B, T, C] or [B, T, C, L].
        other_scores: the scores of each query and the other rows, [B, T, K].
        pairs: bool [B, T, C], true where query and target belong together.
        targets: int [B, 1, C] or [B, T, C], the words of the targets.
        others: int [B or 1, T or 1, K], the other rows.
    """

    scores: jax.Array
    other_scores: jax.Array
    pairs: jax.Array
    targets: jax.Array
    others: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Objective(abc.ABC):
    """An objective over V words.

    Attributes:
        counts: how often each word occurs in the training text, [V].
        exact: whether the loss of a pair is -log P of its target.
    """

    counts: np.ndarray
    exact = False

    @property
    def rows(self) -> int:
        """The number of rows of the output table."""
        return len(self.counts)

    def rows_of(self, targets: jax.Array) -> jax.Array:
        """Returns the rows of the output table that score targets int [...], [...] or [..., L]."""
        return targets

    @abc.abstractmethod
    def others(self, key: jax.Array, groups: int = 1) -> jax.Array:
        """Returns the other rows that every query is scored against, int [K]; K may be 0.

        An objective with noise draws K rows for each of `groups` groups of queries, int [groups K].
        """

    @abc.abstractmethod
    def loss(self, scored: Scored) -> jax.Array:
        """Returns the sum of the losses of all pairs, in nats."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Noise(Objective):
    """An objective that distinguishes the pairs of the text from noise.

    A group of queries shares K samples of noise, each with the weight negatives / K (Ji et al.
    2016); the expected loss is the same as with samples for each pair.

    Attributes:
        negatives: k, the number of samples of noise for each pair.
        samples: K.
        exponent: the exponent of the counts in the distribution of the noise.
    """

    negatives: int = 5
    samples: int = 32
    exponent: float = 0.75

    @property
    def noise(self) -> UnigramSampler:
        return unigram_sampler(self.counts, power=self.exponent)

    def others(self, key: jax.Array, groups: int = 1) -> jax.Array:
        return self.noise.sample(key, (groups * self.samples,))

    def binary_loss(self, odds: Scored) -> jax.Array:
        """Returns the loss of telling pairs from noise by their log-odds."""
        scores, other_scores, pairs = odds[:3]
        share = self.negatives / other_scores.shape[-1]
        weights = pairs.sum(-1).astype(scores.dtype) * share
        positive = jnp.where(pairs, jax.nn.softplus(-scores), 0).sum()
        return positive + (jax.nn.softplus(other_scores) * weights[..., None]).sum()


@dataclasses.dataclass(frozen=True, eq=False)
class NegativeSampling(_Noise):
    """Negative sampling: -log sigmoid(s(pair)), and -log sigmoid(-s(noise)) summed over k words.

    This is eq. 4 of Mikolov et al. 2013b. Noise that happens to be the target counts like any
    other, so that at the optimum the score is exactly log P(w, c) / (P(w) q(c)) - log k (Levy &
    Goldberg 2014).
    """

    def loss(self, scored: Scored) -> jax.Array:
        return self.binary_loss(scored)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseContrastive(_Noise):
    """Negative sampling whose scores become log-probabilities (Mnih & Kavukcuoglu 2013, eq. 8).

    The log-odds of a pair against noise are s - log V - log(k q(w)), so the scores normalise
    themselves: sum_w exp(s) = V, as at the start, where all scores are 0.
    """

    def loss(self, scored: Scored) -> jax.Array:
        noise, shift = self.noise, float(np.log(len(self.counts)) + np.log(self.negatives))
        dtype = scored.scores.dtype
        return self.binary_loss(
            scored._replace(
                scores=scored.scores - noise.log_prob(scored.targets).astype(dtype) - shift,
                other_scores=scored.other_scores
                - noise.log_prob(scored.others).astype(dtype)
                - shift,
            )
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchical(Objective):
    """The loss -log P(target) by decisions down Huffman's tree (Mikolov et al. 2013b, eq. 3)."""

    exact = True

    @functools.cached_property
    def tree(self) -> WordTree:
        return huffman(self.counts)

    @property
    def rows(self) -> int:
        return len(self.counts) - 1

    def rows_of(self, targets: jax.Array) -> jax.Array:
        return jnp.asarray(self.tree.nodes)[targets]

    def others(self, key: jax.Array, groups: int = 1) -> jax.Array:
        return jnp.zeros(0, jnp.int32)

    def loss(self, scored: Scored) -> jax.Array:
        tree, scores, pairs, targets = self.tree, scored.scores, scored.pairs, scored.targets
        codes, lengths = jnp.asarray(tree.codes)[targets], jnp.asarray(tree.lengths)[targets]
        on_path = (
            jnp.arange(codes.shape[-1], dtype=lengths.dtype)[None, None, None] < lengths[..., None]
        )
        wrong = jax.nn.softplus(jnp.where(codes == 1, -scores, scores))
        return jnp.where(on_path & pairs[..., None], wrong, 0).sum()


@dataclasses.dataclass(frozen=True, eq=False)
class Full(Objective):
    """The loss -log softmax over all V words (Mikolov et al. 2013b, eq. 2); for small V."""

    exact = True

    def others(self, key: jax.Array, groups: int = 1) -> jax.Array:
        return jnp.arange(len(self.counts))

    def loss(self, scored: Scored) -> jax.Array:
        normalisers = jax.nn.logsumexp(scored.other_scores, axis=-1)
        scores = jnp.where(scored.pairs, scored.scores, 0)
        counts = scored.pairs.sum(-1).astype(normalisers.dtype)
        return (counts * normalisers).sum() - scores.sum()


def objective(
    name: str, counts: np.ndarray, *, negatives: int = 5, samples: int = 32, exponent: float = 0.75
) -> Objective:
    """Makes the named objective; the options are for objectives with noise.

    Raises:
        InputError: for a name that is not in `OBJECTIVES`.
    """
    if name == "negative_sampling":
        return NegativeSampling(counts, negatives, samples, exponent)
    if name == "nce":
        return NoiseContrastive(counts, negatives, samples, exponent)
    if name == "hierarchical":
        return Hierarchical(counts)
    if name == "full":
        return Full(counts)
    raise choose("objective", name, OBJECTIVES)
