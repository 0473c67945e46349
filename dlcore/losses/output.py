"""Output layers of language models, which turn hidden states into probabilities of words.

They differ in the cost of their training losses. All of them also compute exact probabilities, so
that perplexities are comparable. Each has the parameters kernel [rows, D] and bias [rows].

Shapes: N positions, D features, V vocabulary, K samples.
"""

import abc
import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from dlcore.errors import choose
from dlcore.losses.hierarchical import hierarchical_log_probs, hierarchical_softmax
from dlcore.losses.sampled import noise_contrastive, sampled_softmax
from dlcore.losses.samplers import UnigramSampler, log_unigram, unigram_sampler
from dlcore.losses.softmax import full_scores, full_softmax, nats_and_log_z, z_loss
from dlcore.losses.word_trees import WordTree, balanced_tree, huffman

SOFTMAXES = ("full", "sampled", "nce", "hierarchical")


class Readout(NamedTuple):
    """The inputs of an output layer: hidden states, and the layer's parameters in the model.

    Attributes:
        hidden: [N, D].
        kernel: [rows, D].
        bias: [rows].
    """

    hidden: jax.Array
    kernel: jax.Array
    bias: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Output(abc.ABC):
    """An output layer over V words.

    Attributes:
        counts: the number of occurrences of each word in the training text, (V,).
    """

    counts: np.ndarray

    @property
    def rows(self) -> int:
        """The number of rows of kernel and bias."""
        return len(self.counts)

    @property
    def initial_bias(self) -> np.ndarray:
        """The bias, (rows,), with which P starts near the words' frequencies."""
        return log_unigram(self.counts)

    @abc.abstractmethod
    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        """Returns the training loss at each position, [N]."""

    def nats(self, readout: Readout, targets: jax.Array) -> jax.Array:
        """Returns the exact -log P(target), [N]."""
        return full_softmax(*readout, targets)

    def log_probs(self, readout: Readout) -> jax.Array:
        """Returns the exact log P of every word, [N, V]."""
        return jax.nn.log_softmax(full_scores(*readout))


@dataclasses.dataclass(frozen=True, eq=False)
class Full(Output):
    """The softmax over all words.

    Attributes:
        z_weight: the weight of `losses.softmax.z_loss` in the training loss.
    """

    z_weight: float = 0.0

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        nats, log_z = nats_and_log_z(*readout, targets)
        return nats + z_loss(log_z, self.z_weight) if self.z_weight else nats


@dataclasses.dataclass(frozen=True, eq=False)
class _Sampled(Output):
    sampler: UnigramSampler
    samples: int


class SampledSoftmax(_Sampled):
    """A softmax that is trained by `losses.sampled_softmax`."""

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return sampled_softmax(key, *readout, targets, sampler=self.sampler, samples=self.samples)


class NoiseContrastive(_Sampled):
    """A softmax trained by `losses.noise_contrastive`, with 0 as `log_z` for its initial bias."""

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return noise_contrastive(key, *readout, targets, sampler=self.sampler, samples=self.samples)


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchical(Output):
    """A `losses.hierarchical_softmax`; the rows belong to the inner nodes of a tree."""

    tree: WordTree

    @property
    def rows(self) -> int:
        return len(self.counts) - 1

    @property
    def initial_bias(self) -> np.ndarray:
        return self.tree.log_odds(self.counts)

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return self.nats(readout, targets)

    def nats(self, readout: Readout, targets: jax.Array) -> jax.Array:
        return hierarchical_softmax(*readout, targets, tree=self.tree)

    def log_probs(self, readout: Readout) -> jax.Array:
        return hierarchical_log_probs(*readout, tree=self.tree)


def output_layer(
    kind: str,
    counts: np.ndarray,
    *,
    samples: int = 1024,
    z_weight: float = 0.0,
    order: np.ndarray | None = None,
) -> Output:
    """Makes the output layer of a kind.

    Args:
        kind: one of `SOFTMAXES`.
        counts: the number of occurrences of each word in the training text, (V,).
        samples: K, for "sampled" and "nce".
        z_weight: the weight of `z_loss`, for "full".
        order: the order of the words in the tree of "hierarchical", int [V], such as from
            `word_trees.order_by_likeness`; None takes Huffman's tree, which needs no order.

    Raises:
        InputError: for an unknown kind or invalid counts.

    >>> output_layer("hierarchical", np.array([5, 2, 1])).rows
    2
    """
    if kind == "full":
        return Full(counts, z_weight)
    if kind == "hierarchical":
        tree = huffman(counts) if order is None else balanced_tree(counts, order)
        return Hierarchical(counts, tree)
    if kind in ("sampled", "nce"):
        layer = SampledSoftmax if kind == "sampled" else NoiseContrastive
        return layer(counts, unigram_sampler(counts), samples)
    raise choose("softmax", kind, SOFTMAXES)
