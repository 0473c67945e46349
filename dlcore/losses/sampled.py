"""Losses that train output layers of large vocabularies on a few sampled words.

The parameters are those of the full softmax, kernel [V, D] and bias [V], with the orientation of an
embedding table, so that the two can share one array. The score of a word is s(w) = kernel[w] . h +
bias[w]. The losses read only the rows of the targets and of the samples, and the gradient is a
scatter-add into these rows. Evaluate with the full softmax: these losses yield no perplexities.

All positions share K samples, so that their scores are one product [N, D] x [D, K]. The samples
depend on the key alone, so every layout of devices draws the same ones.

Shapes: N positions, D features, V vocabulary, K samples.
"""

import jax
import jax.numpy as jnp

from dlcore.losses.samplers import UnigramSampler
from dlcore.types import at_least_float32


def sampled_softmax(
    key: jax.Array,
    hidden: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    *,
    sampler: UnigramSampler,
    samples: int,
) -> jax.Array:
    """Estimates the normaliser of the softmax cross-entropy from K samples; in nats, [N].

    Z = exp s(t) + sum over the samples w other than t of exp s(w) / (K q(w)). Dividing by the
    expected count K q(w) makes the estimate of Z unbiased (Bengio & Senecal 2008, importance
    sampling). The target is always in the sum, so samples that hit it are left out (Jean et al.
    2015). Loss and gradient converge to those of the full softmax as K grows.

    Args:
        key: the key of the samples.
        hidden: [N, D].
        kernel: [V, D].
        bias: [V].
        targets: int [N].
        sampler: q, over the same V words.
        samples: K.

    Raises:
        ValueError: when the shapes do not fit.
    """
    target_scores, noise_scores, noise = _scores(
        key, hidden, kernel, bias, targets, sampler, samples
    )
    shares = noise_scores - _log_expected_count(sampler, noise, samples)[None]
    miss = noise[None] != targets[:, None]
    others = jax.nn.logsumexp(shares, axis=-1, where=miss)
    return jax.nn.softplus(others - target_scores)


def noise_contrastive(
    key: jax.Array,
    hidden: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    *,
    sampler: UnigramSampler,
    samples: int,
    log_z: float = 0.0,
) -> jax.Array:
    """Returns the loss of noise-contrastive estimation, [N].

    The loss is the sum of K + 1 logistic losses that distinguish each target from K samples of
    noise, with the logit s(w) - log_z - log(K q(w)), the log odds that w comes from the data
    (Gutmann & Hyvarinen 2010). The normaliser of every position is the constant exp(log_z), and
    training makes the model comply with it (Mnih & Teh 2012). As K grows the gradient approaches
    that of maximum likelihood. Samples that equal the target are kept: leaving them out would move
    the optimum from log p to log p / (1 - p).

    The constant decides how training starts. With `bias` initialised by `log_unigram` the
    exponentials of the scores sum to about 1 from the first step on, and log_z = 0 is right. With a
    bias of 0 they sum to V: then use log V, or every noise word starts as a confident error.

    Args:
        key: the key of the samples.
        hidden: [N, D].
        kernel: [V, D].
        bias: [V].
        targets: int [N].
        sampler: q, over the same V words.
        samples: K.
        log_z: the logarithm of the normaliser.

    Raises:
        ValueError: when the shapes do not fit.
    """
    target_scores, noise_scores, noise = _scores(
        key, hidden, kernel, bias, targets, sampler, samples
    )
    real = target_scores - log_z - _log_expected_count(sampler, targets, samples)
    fake = noise_scores - log_z - _log_expected_count(sampler, noise, samples)[None]
    return jax.nn.softplus(-real) + jax.nn.softplus(fake).sum(-1)


def _log_expected_count(sampler: UnigramSampler, ids: jax.Array, samples: int) -> jax.Array:
    """Returns log(K q(w)), the logarithm of the mean number of times that K draws give each id."""
    return sampler.log_prob(ids) + jnp.log(samples)


def _scores(
    key: jax.Array,
    hidden: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    sampler: UnigramSampler,
    samples: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns s(targets) [N], s(noise) [N, K], float32 at least, and the noise ids, int32 [K]."""
    n, d = hidden.shape
    v = kernel.shape[0]
    if kernel.shape != (v, d) or bias.shape != (v,) or targets.shape != (n,):
        raise ValueError(
            f"hidden {hidden.shape}, kernel {kernel.shape}, bias {bias.shape} and targets "
            f"{targets.shape} are not (N, D), (V, D), (V,) and (N,)"
        )
    if sampler.log_probs.shape != (v,):
        raise ValueError(f"a sampler of {sampler.log_probs.size} words for a kernel of {v}")
    noise = sampler.sample(key, (samples,))
    # One gather for both, because the gradient of each gather is a dense array [V, D].
    ids = jnp.concatenate([targets, noise])
    dtype = at_least_float32(hidden.dtype, kernel.dtype)
    rows, offsets = kernel[ids], bias[ids].astype(dtype)
    target_scores = jnp.einsum("nd,nd->n", hidden, rows[:n], preferred_element_type=dtype)
    noise_scores = jnp.einsum("nd,kd->nk", hidden, rows[n:], preferred_element_type=dtype)
    return target_scores + offsets[:n], noise_scores + offsets[None, n:], noise
