"""Binary cross-entropy for several labels of one example. Shapes: B examples, K classes."""

import jax
import optax

from dlcore.types import at_least_float32


def binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, positive_weights: jax.Array | None = None
) -> jax.Array:
    """Returns -(p y log s(x) + (1 - y) log(1 - s(x))) in nats, with s the sigmoid, (B, K).

    A class with positive weight p counts each example that has the class p times, which trades
    precision for recall (King & Zeng 2001; PyTorch's `pos_weight`).

    Args:
        logits: (B, K) x; the computation is in float32 at least.
        labels: (B, K) y in 0..1.
        positive_weights: (K,) p; None stands for 1.

    >>> import jax.numpy as jnp
    >>> losses = binary_cross_entropy(jnp.zeros((1, 2)), jnp.array([[1.0, 0]]), jnp.array([3.0, 3]))
    >>> jnp.exp(losses).round(3).tolist()
    [[8.0, 2.0]]
    """
    logits = logits.astype(at_least_float32(logits.dtype))
    labels = labels.astype(logits.dtype)
    losses = optax.sigmoid_binary_cross_entropy(logits, labels)
    if positive_weights is None:
        return losses
    more = (positive_weights.astype(logits.dtype) - 1)[None]
    return losses - more * labels * jax.nn.log_sigmoid(logits)
