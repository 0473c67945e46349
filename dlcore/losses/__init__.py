"""Per-example losses that JAX's libraries lack; `optax.losses` has the rest.

There are losses for output layers of large vocabularies (`sampled_softmax`, `noise_contrastive` and
`hierarchical_softmax`), tag sequences (the linear-chain CRF), several labels of one example
(`binary_cross_entropy`), pictures (the costs of style transfer), autoencoders (variational bounds
and penalties of codes), forecasts of quantiles (`pinball`), a generator and its discriminator (the
pairs of `ADVERSARIAL`) and examples without labels (`pseudo_label` and `virtual_adversarial`).

For metric learning there are `contrastive`, `pair_cross_entropy`, `info_nce` and `triplet` of the
pairs that `batch_pairs` makes, with `DISTANCES` and `miner`, and `arcface` and `prototypical`. All
of them return losses and weights by anchor, and look across the whole global batch in every layout.
So do `summed_hinges`, `hardest_hinge` and `matching_cross_entropy`, which compare pictures and
texts by `batch_matches`.

>>> import jax.numpy as jnp
>>> from dlcore.losses import pinball
>>> pinball(jnp.zeros((1, 2)), jnp.array([2.0]), jnp.array([0.25, 0.75])).tolist()
[[0.5, 1.5]]
"""

from dlcore.losses.adversarial import ADVERSARIAL, Adversarial, gradient_penalty, r1_penalty
from dlcore.losses.attention import doubly_stochastic
from dlcore.losses.binary import binary_cross_entropy
from dlcore.losses.codes import activation_divergence, jacobian_norm, sigmoid_jacobian_norm
from dlcore.losses.consistency import pseudo_label, virtual_adversarial
from dlcore.losses.crf import crf_log_likelihood, crf_log_partition, crf_viterbi
from dlcore.losses.distances import DISTANCES, on_unit_sphere
from dlcore.losses.hierarchical import hierarchical_log_probs, hierarchical_softmax
from dlcore.losses.identities import arcface, prototypical
from dlcore.losses.levels import level_distribution, level_divergence
from dlcore.losses.matching import (
    Matches,
    batch_matches,
    hardest_hinge,
    matching_cross_entropy,
    summed_hinges,
)
from dlcore.losses.pairs import (
    Pairs,
    PerAnchor,
    batch_pairs,
    contrastive,
    info_nce,
    pair_cross_entropy,
)
from dlcore.losses.quantile import pinball
from dlcore.losses.sampled import noise_contrastive, sampled_softmax
from dlcore.losses.samplers import UnigramSampler, log_unigram, unigram_sampler
from dlcore.losses.smoothness import total_variation
from dlcore.losses.style import CONTENT_COSTS, gram_matrix, style_cost
from dlcore.losses.triplets import MINING, margin_penalty, miner, soft_penalty, triplet
from dlcore.losses.variational import (
    bernoulli_log_likelihood,
    evidence_bound,
    free_bits,
    gaussian_log_likelihood,
    importance_bound,
    kl_from_standard,
    standard_log_density,
)
from dlcore.losses.word_trees import WordTree, balanced_tree, huffman, order_by_likeness

__all__ = [
    "WordTree",
    "balanced_tree",
    "order_by_likeness",
    "ADVERSARIAL",
    "CONTENT_COSTS",
    "DISTANCES",
    "MINING",
    "Adversarial",
    "Matches",
    "Pairs",
    "PerAnchor",
    "UnigramSampler",
    "activation_divergence",
    "arcface",
    "batch_matches",
    "batch_pairs",
    "bernoulli_log_likelihood",
    "binary_cross_entropy",
    "contrastive",
    "crf_log_likelihood",
    "crf_log_partition",
    "crf_viterbi",
    "doubly_stochastic",
    "evidence_bound",
    "free_bits",
    "gaussian_log_likelihood",
    "gradient_penalty",
    "gram_matrix",
    "hardest_hinge",
    "hierarchical_log_probs",
    "hierarchical_softmax",
    "huffman",
    "importance_bound",
    "info_nce",
    "jacobian_norm",
    "kl_from_standard",
    "level_distribution",
    "level_divergence",
    "log_unigram",
    "margin_penalty",
    "matching_cross_entropy",
    "miner",
    "noise_contrastive",
    "on_unit_sphere",
    "pair_cross_entropy",
    "pinball",
    "prototypical",
    "pseudo_label",
    "r1_penalty",
    "sampled_softmax",
    "sigmoid_jacobian_norm",
    "soft_penalty",
    "standard_log_density",
    "style_cost",
    "summed_hinges",
    "total_variation",
    "triplet",
    "unigram_sampler",
    "virtual_adversarial",
]
