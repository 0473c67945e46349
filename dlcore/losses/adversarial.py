"""The losses of two players: a generator draws examples, a discriminator tells them from real ones.

Each of `ADVERSARIAL` is a pair of pure functions of the discriminator's logits; larger logits mean
"real". The penalties keep the gradient of the discriminator small. Shapes: B batch, `...` an
example.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Maps examples (B, ...) to logits (B,), each of its own example alone.
Score = Callable[[jax.Array], jax.Array]


class Adversarial(NamedTuple):
    """The losses of both players, each a value by example.

    Attributes:
        discriminator: (logits of real examples (B,), logits of drawn ones (B,)) -> losses (B,).
        generator: logits of drawn examples (B,) -> losses (B,).
        won: the discriminator's loss for two examples that it tells apart with certainty; None
            where this is not defined.
    """

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]
    won: float | None = 0.0


def cross_entropy(real: jax.Array, drawn: jax.Array) -> jax.Array:
    """Returns -log D(x) - log(1 - D(G(z))), D the sigmoid of the logits.

    This is equation 1 of Goodfellow et al. 2014.

    Its smallest mean between equal distributions is log 4, where D is 1/2 (theorem 1).

    >>> zero = jnp.zeros(1)
    >>> round(float(jnp.exp(cross_entropy(zero, zero))[0]), 3)
    4.0
    """
    return jax.nn.softplus(-real) + jax.nn.softplus(drawn)


# Each pair by the name that its paper has for it.
ADVERSARIAL: dict[str, Adversarial] = {
    # Goodfellow et al. 2014, eq. 1: the generator's loss is log(1 - D).
    "minimax": Adversarial(cross_entropy, lambda drawn: -jax.nn.softplus(drawn)),
    # The same, section 3: the generator's loss is -log D, which does not fade where D is sure.
    "non_saturating": Adversarial(cross_entropy, lambda drawn: jax.nn.softplus(-drawn)),
    # Mao et al. 2017, eq. 9: the labels of real and drawn are 1 and 0, the generator wants 1.
    "least_squares": Adversarial(
        lambda real, drawn: ((real - 1) ** 2 + drawn**2) / 2, lambda drawn: (drawn - 1) ** 2 / 2
    ),
    # Arjovsky et al. 2017, eq. 2 and 3; the discriminator, a critic, needs `gradient_penalty`.
    "wasserstein": Adversarial(lambda real, drawn: drawn - real, lambda drawn: -drawn, won=None),
    # Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17.
    "hinge": Adversarial(
        lambda real, drawn: jax.nn.relu(1 - real) + jax.nn.relu(1 + drawn), lambda drawn: -drawn
    ),
}


def gradient_penalty(
    score: Score, real: jax.Array, drawn: jax.Array, share: jax.Array
) -> jax.Array:
    """Returns (|grad of the score| - 1)^2 at points between real and drawn examples, (B,).

    This is the penalty of Gulrajani et al. 2017, eq. 3.

    Args:
        score: the critic. With a layer that looks across examples, such as batch normalisation,
            the gradient of a single example is not defined.
        real: real examples (B, ...).
        drawn: as many drawn examples.
        share: (B,) in [0, 1), the share of the real example in each point, drawn evenly.

    Returns:
        Penalties (B,), without their weight; the paper's is 10.
    """
    share = share.reshape(-1, *(1,) * (real.ndim - 1)).astype(real.dtype)
    squares = _squared_gradients(score, share * real + (1 - share) * drawn)
    # The root has no derivative at 0, where a fresh network may be.
    positive = squares > 0
    norms = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
    return (norms - 1) ** 2


def r1_penalty(score: Score, real: jax.Array) -> jax.Array:
    """Returns |grad of the score|^2 / 2 at real examples (Mescheder et al. 2018, eq. 9).

    Args:
        score: the discriminator, as for `gradient_penalty`.
        real: real examples (B, ...).

    Returns:
        Penalties (B,), without their weight gamma.
    """
    return _squared_gradients(score, real) / 2


def _squared_gradients(score: Score, examples: jax.Array) -> jax.Array:
    """Returns the squared norm of the score's gradient at each example, (B,)."""
    gradients = jax.grad(lambda x: score(x).sum())(examples)
    return jnp.square(gradients).reshape(len(gradients), -1).sum(1)
