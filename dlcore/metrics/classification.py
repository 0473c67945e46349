"""The metrics of a classifier. Shapes: B examples, K classes."""

import jax
import jax.numpy as jnp
import optax

from dlcore.metrics.mean import Mean


def classification(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, *, label_smoothing: float = 0.0
) -> dict[str, Mean]:
    """The mean cross-entropy, in nats, as "loss" and the share of right answers as "accuracy".

    Args:
        logits: (B, K); computed with in float32 at least.
        labels: (B,) classes in 0..K-1.
        weights: (B,), 0 for rows that only pad.
        label_smoothing: the share of the target that is spread evenly over all classes
            (Szegedy et al. 2016, section 7).
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    right = (logits.argmax(-1) == labels).astype(jnp.float32)
    return {
        "loss": Mean.of(optax.softmax_cross_entropy(logits, targets), weights),
        "accuracy": Mean.of(right, weights),
    }
