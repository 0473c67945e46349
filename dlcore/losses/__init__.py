"""Per-example losses that JAX's libraries lack; `optax.losses` has the rest.

For output layers of large vocabularies `sampled_softmax`, `noise_contrastive` and
`hierarchical_softmax`; for tag sequences the linear-chain CRF; for several labels of one example
`binary_cross_entropy`; for pictures the costs of style transfer.

For metric learning there are `contrastive`, `pair_cross_entropy`, `info_nce` and `triplet` of the
pairs that `batch_pairs` makes, with `DISTANCES` and `miner`, and `arcface` and `prototypical`. All
of them give losses and weights by anchor, and look across the whole global batch in every layout.
"""

from dlcore.losses.binary import binary_cross_entropy
from dlcore.losses.crf import crf_log_likelihood, crf_log_partition, crf_viterbi
from dlcore.losses.distances import DISTANCES, on_unit_sphere
from dlcore.losses.hierarchical import (
    HuffmanTree,
    hierarchical_log_probs,
    hierarchical_softmax,
    huffman,
)
from dlcore.losses.identities import arcface, prototypical
from dlcore.losses.pairs import (
    Pairs,
    PerAnchor,
    batch_pairs,
    contrastive,
    info_nce,
    pair_cross_entropy,
)
from dlcore.losses.sampled import noise_contrastive, sampled_softmax
from dlcore.losses.samplers import UnigramSampler, log_unigram, unigram_sampler
from dlcore.losses.smoothness import total_variation
from dlcore.losses.style import CONTENT_COSTS, gram_matrix, style_cost
from dlcore.losses.triplets import MINING, margin_penalty, miner, soft_penalty, triplet

__all__ = [
    "CONTENT_COSTS",
    "DISTANCES",
    "MINING",
    "HuffmanTree",
    "Pairs",
    "PerAnchor",
    "UnigramSampler",
    "arcface",
    "batch_pairs",
    "binary_cross_entropy",
    "contrastive",
    "crf_log_likelihood",
    "crf_log_partition",
    "crf_viterbi",
    "gram_matrix",
    "hierarchical_log_probs",
    "hierarchical_softmax",
    "huffman",
    "info_nce",
    "log_unigram",
    "margin_penalty",
    "miner",
    "noise_contrastive",
    "on_unit_sphere",
    "pair_cross_entropy",
    "prototypical",
    "sampled_softmax",
    "soft_penalty",
    "style_cost",
    "total_variation",
    "triplet",
    "unigram_sampler",
]
