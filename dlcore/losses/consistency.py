"""Losses of examples without labels, for which a classifier's answer should hold nearby as well.

Shapes: B batch, K classes, `...` an example.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

# Maps examples (B, ...) to logits (B, K).
Logits = Callable[[jax.Array], jax.Array]
_TINY = 1e-30


def pseudo_label(logits: jax.Array) -> jax.Array:
    """Returns the cross-entropy with the likeliest class of the logits (B, K), (B,) (Lee 2013)."""
    classes = jax.lax.stop_gradient(logits).argmax(-1)
    return optax.softmax_cross_entropy_with_integer_labels(logits, classes)


def virtual_adversarial(
    logits_of: Logits,
    examples: jax.Array,
    direction: jax.Array,
    *,
    radius: float,
    turns: int = 1,
) -> jax.Array:
    """Returns KL(p(x) || p(x + r)) in nats, (B,), for the worst r of its norm.

    The source is Miyato et al. 2018. The worst direction is the first eigenvector of the
    divergence's Hessian at r = 0, by the power method (section 3.3). The product with the Hessian
    is exact here, where the paper takes a difference of gradients. p(x) is a constant (eq. 5).

    Args:
        logits_of: the classifier, which must be differentiable in both modes. If it normalises by
            the moments of the batch, the changes of all examples are the worst ones together.
        examples: the examples (B, ...).
        direction: (B, ...), normal noise that the power method starts from.
        radius: the norm of the change r, the paper's epsilon.
        turns: the number of iterations of the power method, the paper's K.
    """
    now = jax.lax.stop_gradient(jax.nn.log_softmax(logits_of(examples)))

    def divergence(change: jax.Array) -> jax.Array:
        then = jax.nn.log_softmax(logits_of(examples + change))
        return (jnp.exp(now) * (now - then)).sum(-1)

    gradient = jax.grad(lambda change: divergence(change).sum())
    d = _units(direction)
    for _ in range(turns):
        _, product = jax.jvp(gradient, (jnp.zeros_like(examples),), (d,))
        d = _units(product)
    return divergence(radius * jax.lax.stop_gradient(d))


def _units(x: jax.Array) -> jax.Array:
    """Returns examples scaled to norm 1; those that are 0 stay 0."""
    squares = jnp.square(x).reshape(len(x), -1).sum(1).reshape(-1, *(1,) * (x.ndim - 1))
    return x * jax.lax.rsqrt(jnp.maximum(squares, _TINY))
