"""Per-example losses that JAX's libraries lack; `optax.losses` has the rest.

For output layers of large vocabularies `sampled_softmax`, `noise_contrastive` and
`hierarchical_softmax`; for tag sequences the linear-chain CRF; for several labels of one example
`binary_cross_entropy`.
"""

from dlcore.losses.binary import binary_cross_entropy
from dlcore.losses.crf import crf_log_likelihood, crf_log_partition, crf_viterbi
from dlcore.losses.hierarchical import (
    HuffmanTree,
    hierarchical_log_probs,
    hierarchical_softmax,
    huffman,
)
from dlcore.losses.sampled import noise_contrastive, sampled_softmax
from dlcore.losses.samplers import UnigramSampler, log_unigram, unigram_sampler

__all__ = [
    "HuffmanTree",
    "UnigramSampler",
    "binary_cross_entropy",
    "crf_log_likelihood",
    "crf_log_partition",
    "crf_viterbi",
    "hierarchical_log_probs",
    "hierarchical_softmax",
    "huffman",
    "log_unigram",
    "noise_contrastive",
    "sampled_softmax",
    "unigram_sampler",
]
