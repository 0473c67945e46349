"""Penalties of codes, for autoencoders whose code is wide.

Shapes: B examples, D pixels, K units of the code, `...` the axes of one example.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlcore.parallel import row_weights, sum_over_devices
from dlcore.types import at_least_float32


def activation_divergence(codes: jax.Array, target: float) -> jax.Array:
    """Returns sum_k KL(target || mean activation of unit k), a scalar (Ng 2011, section 3).

    The mean is over the global batch in every layout.

    Args:
        codes: (B, K), in 0..1, such as the outputs of sigmoid units.
        target: the wanted mean activation, in 0..1.

    >>> round(float(activation_divergence(jnp.full((4, 3), 0.5), 0.5)), 6)
    0.0
    """
    codes = codes.astype(at_least_float32(codes.dtype))
    weights = row_weights(len(codes))
    weights = jnp.ones(len(codes), codes.dtype) if weights is None else weights.astype(codes.dtype)
    total, count = sum_over_devices(((codes * weights[:, None]).sum(0), weights.sum()))
    # Units that are always on or off would have an infinite divergence.
    tiny = jnp.finfo(codes.dtype).eps
    mean = (total / count).clip(tiny, 1 - tiny)
    on = target * (jnp.log(target) - jnp.log(mean))
    off = (1 - target) * (jnp.log1p(-target) - jnp.log1p(-mean))
    return (on + off).sum()


def jacobian_norm(encode: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Returns the squared Frobenius norm of the code's Jacobian, (B,).

    It is the penalty of contractive autoencoders (Rifai et al. 2011, equation 4), exact for any
    encoder, and costs one backward pass for each of the K units.

    Args:
        encode: maps (B, ...) to codes (B, K), each row independently of the others.
        x: the inputs (B, ...).

    >>> jacobian_norm(lambda x: x @ jnp.array([[1.0], [2.0]]), jnp.zeros((1, 2))).tolist()
    [5.0]
    """
    codes, pull = jax.vjp(encode, x)
    units = jnp.eye(codes.shape[-1], dtype=codes.dtype)

    def squares(unit: jax.Array) -> jax.Array:
        (gradient,) = pull(jnp.broadcast_to(unit[None], codes.shape))
        gradient = gradient.astype(at_least_float32(gradient.dtype))
        return (gradient**2).reshape(len(x), -1).sum(1)

    return jax.vmap(squares)(units).sum(0)


def sigmoid_jacobian_norm(codes: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the same as `jacobian_norm` for one layer of sigmoid units, (B,).

    The value is sum_k (h_k (1 - h_k))^2 sum_d W_dk^2 (Rifai et al. 2011, section 3.1) and costs as
    much as the layer.

    Args:
        codes: h, (B, K).
        kernel: W, (D, K).
    """
    codes, kernel = (a.astype(at_least_float32(a.dtype)) for a in (codes, kernel))
    return ((codes * (1 - codes)) ** 2 * (kernel**2).sum(0)[None]).sum(-1)
