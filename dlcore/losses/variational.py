"""Bounds of variational autoencoders in nats, one value for each example.

Sums are over the pixels and over the latent units, never means: a bound is a log-likelihood of a
whole image, and its two terms have no weights of their own.

Shapes: B examples, S samples for each, K latent units, `...` the axes of one example.
"""

import math

import jax
import jax.numpy as jnp
import optax

from dlcore.parallel import row_weights, sum_over_devices
from dlcore.types import at_least_float32

_LOG_2_PI = math.log(2 * math.pi)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(at_least_float32(x.dtype))


def bernoulli_log_likelihood(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Returns sum(x log p + (1 - x) log(1 - p)) of bits, (B,), with p = sigmoid(logits).

    Grey pixels in 0..1 count as the expectation over bits drawn with these probabilities.

    Args:
        logits: (B, ...).
        x: (B, ...), in 0..1.

    >>> float(jnp.exp(bernoulli_log_likelihood(jnp.zeros((1, 2)), jnp.ones((1, 2))))[0])
    0.25
    """
    logits = _wide(logits)
    losses = optax.sigmoid_binary_cross_entropy(logits, x.astype(logits.dtype))
    return -losses.reshape(len(losses), -1).sum(1)


def gaussian_log_likelihood(means: jax.Array, log_variance: jax.Array, x: jax.Array) -> jax.Array:
    """Returns log N(x; means, variance I), (B,).

    Args:
        means: (B, ...).
        log_variance: a scalar, or of the shape of `means`.
        x: (B, ...).
    """
    means, log_variance = _wide(means), _wide(log_variance)
    squares = (x.astype(means.dtype) - means) ** 2 * jnp.exp(-log_variance)
    terms = -0.5 * (squares + log_variance + _LOG_2_PI)
    return terms.reshape(len(terms), -1).sum(1)


def standard_log_density(z: jax.Array) -> jax.Array:
    """Returns log N(z; 0, I) over the last axis."""
    z = _wide(z)
    return -0.5 * (z**2 + _LOG_2_PI).sum(-1)


def kl_from_standard(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns KL(N(mean, variance) || N(0, 1)) of each unit (Kingma & Welling 2014, appendix B).

    Args:
        mean: (B, K).
        log_variance: (B, K).

    >>> kl_from_standard(jnp.array([[0.0, 2.0]]), jnp.zeros((1, 2))).tolist()
    [[0.0, 2.0]]
    """
    mean, log_variance = _wide(mean), _wide(log_variance)
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)


def free_bits(kl: jax.Array, least: float) -> jax.Array:
    """Returns the KL of each example, (B,), with `least` nats of each unit free of cost.

    Kingma et al. 2016, equation 15: the mean over the batch is sum_k max(least, mean KL_k), so that
    a unit whose KL is below `least` has no gradient towards the prior. The batch is the global one
    in every layout.

    Args:
        kl: (B, K).
        least: the free nats of a unit; 0 leaves the KL as it is.
    """
    if least == 0:
        return kl.sum(-1)
    weights = row_weights(len(kl))
    weights = jnp.ones(len(kl), kl.dtype) if weights is None else weights.astype(kl.dtype)
    rows = jnp.where(weights[:, None] == 0, jnp.zeros_like(kl), kl) * weights[:, None]
    total, count = sum_over_devices((jax.lax.stop_gradient(rows.sum(0)), weights.sum()))
    above = (total / count > least)[None]
    return jnp.where(above, kl, jnp.full_like(kl, least)).sum(-1)


def evidence_bound(
    log_likelihood: jax.Array, kl: jax.Array, beta: jax.Array | float = 1.0
) -> jax.Array:
    """Returns E[log p(x | z)] - beta KL, (B,).

    With beta = 1 it is the bound of Kingma & Welling 2014 (equation 3); Higgins et al. 2017 use
    beta above 1, and Bowman et al. 2016 let it grow from 0.

    Args:
        log_likelihood: (B,), log p(x | z) for a sample z, or a mean over samples.
        kl: the KL of each example, (B,).
        beta: a scalar or (B,).
    """
    return log_likelihood - beta * kl


def importance_bound(log_weights: jax.Array) -> jax.Array:
    """Returns log mean_s w_s, (B,), a lower bound of log p(x) (Burda et al. 2016, equation 8).

    Its expectation rises with S.

    Args:
        log_weights: (S, B), log p(x, z_s) - log q(z_s | x) for samples z_s of q. S = 1 is the
            bound of a variational autoencoder.

    >>> jnp.exp(importance_bound(jnp.log(jnp.array([[1.0], [3.0]])))).round(4).tolist()
    [2.0]
    """
    log_weights = _wide(log_weights)
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
