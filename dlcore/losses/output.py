"""Output layers of language models: what turns hidden states into probabilities of words.

The ways to train differ in cost; all of them give exact probabilities when asked, so that
perplexities compare. Each has the parameters kernel [rows, D] and bias [rows].

Shapes: N positions, D features, V vocabulary, K samples.
"""

import abc
import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from dlcore.errors import choose
from dlcore.losses.hierarchical import (
    HuffmanTree,
    hierarchical_log_probs,
    hierarchical_softmax,
    huffman,
)
from dlcore.losses.sampled import noise_contrastive, sampled_softmax
from dlcore.losses.samplers import UnigramSampler, log_unigram, unigram_sampler
from dlcore.losses.softmax import full_scores, full_softmax

SOFTMAXES = ("full", "sampled", "nce", "hierarchical")


class Readout(NamedTuple):
    """What a language model gives to its output layer.

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
        counts: how often each word occurs in the training text, (V,).
    """

    counts: np.ndarray

    @property
    def rows(self) -> int:
        """How many rows kernel and bias have."""
        return len(self.counts)

    @property
    def initial_bias(self) -> np.ndarray:
        """Where the bias starts, (rows,): such that P is about the words' frequencies."""
        return log_unigram(self.counts)

    @abc.abstractmethod
    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        """What training minimises at each position, [N]."""

    def nats(self, readout: Readout, targets: jax.Array) -> jax.Array:
        """-log P(target), exact, [N]."""
        return full_softmax(*readout, targets)

    def log_probs(self, readout: Readout) -> jax.Array:
        """log P of every word, exact, [N, V]."""
        return jax.nn.log_softmax(full_scores(*readout))


class Full(Output):
    """The softmax over all words."""

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return full_softmax(*readout, targets)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sampled(Output):
    sampler: UnigramSampler
    samples: int


class SampledSoftmax(_Sampled):
    """See `losses.sampled_softmax`."""

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return sampled_softmax(key, *readout, targets, sampler=self.sampler, samples=self.samples)


class NoiseContrastive(_Sampled):
    """See `losses.noise_contrastive`; the initial bias makes 0 the right log normaliser."""

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return noise_contrastive(key, *readout, targets, sampler=self.sampler, samples=self.samples)


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchical(Output):
    """See `losses.hierarchical_softmax`; its rows are the inner nodes of Huffman's tree."""

    tree: HuffmanTree

    @property
    def rows(self) -> int:
        return len(self.counts) - 1

    @property
    def initial_bias(self) -> np.ndarray:
        return np.zeros(self.rows, np.float32)

    def losses(self, key: jax.Array, readout: Readout, targets: jax.Array) -> jax.Array:
        return self.nats(readout, targets)

    def nats(self, readout: Readout, targets: jax.Array) -> jax.Array:
        return hierarchical_softmax(*readout, targets, tree=self.tree)

    def log_probs(self, readout: Readout) -> jax.Array:
        return hierarchical_log_probs(*readout, tree=self.tree)


def output_layer(kind: str, counts: np.ndarray, *, samples: int = 1024) -> Output:
    """The output layer of that kind.

    Args:
        kind: one of `SOFTMAXES`.
        counts: how often each word occurs in the training text, (V,).
        samples: K of "sampled" and "nce".

    Raises:
        InputError: for another kind, or counts that cannot be.
    """
    if kind == "full":
        return Full(counts)
    if kind == "hierarchical":
        return Hierarchical(counts, huffman(counts))
    if kind in ("sampled", "nce"):
        made = SampledSoftmax if kind == "sampled" else NoiseContrastive
        return made(counts, unigram_sampler(counts), samples)
    raise choose("softmax", kind, SOFTMAXES)
