"""Per-example losses that JAX's libraries lack; `optax.losses` has the rest.

For output layers of large vocabularies `sampled_softmax`, `noise_contrastive` and
`hierarchical_softmax`; for tag sequences the linear-chain CRF.
"""

from dlcore.losses.crf import crf_log_likelihood as crf_log_likelihood
from dlcore.losses.crf import crf_log_partition as crf_log_partition
from dlcore.losses.crf import crf_viterbi as crf_viterbi
from dlcore.losses.hierarchical import HuffmanTree as HuffmanTree
from dlcore.losses.hierarchical import hierarchical_log_probs as hierarchical_log_probs
from dlcore.losses.hierarchical import hierarchical_softmax as hierarchical_softmax
from dlcore.losses.hierarchical import huffman as huffman
from dlcore.losses.sampled import noise_contrastive as noise_contrastive
from dlcore.losses.sampled import sampled_softmax as sampled_softmax
from dlcore.losses.samplers import UnigramSampler as UnigramSampler
from dlcore.losses.samplers import log_unigram as log_unigram
from dlcore.losses.samplers import unigram_sampler as unigram_sampler
