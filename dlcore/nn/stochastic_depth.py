"""Stochastic depth (Huang et al. 2016) drops residual branches at random in training.

Shapes: B batch, L residual blocks, `...` any other axes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors, parallel

DROPS = ("example", "batch")


def survival_probabilities(blocks: int, last: float) -> tuple[float, ...]:
    """Returns p_l = 1 - l / L (1 - p_L) for the blocks l = 1..L (section 3, equation 4).

    At p_L = 0.5 about 3 L / 4 blocks survive on average.

    Args:
        blocks: L.
        last: p_L, the probability that the branch of the last block survives.

    Raises:
        InputError: when `last` is outside [0, 1].

    >>> survival_probabilities(4, 0.5)
    (0.875, 0.75, 0.625, 0.5)
    """
    _require_probability(last)
    return tuple(1 - block / blocks * (1 - last) for block in range(1, blocks + 1))


class StochasticDepth(nn.Module):
    """A layer that drops the branch of a residual block with probability 1 - p in training.

    In evaluation the branch is multiplied by p, which is its expectation (equation 5). As for
    `Dropout`, only the key and the position of an example in the global batch decide whether the
    example keeps its branch. A dropped branch is still computed, so it moves the running statistics
    of its batch normalisation.

    Attributes:
        survival: p, in [0, 1]; may be a traced scalar.
        drop: "example" draws for each example; "batch" draws once for the whole batch, as the
            paper does.
    """

    survival: float | jax.Array
    drop: str = "example"

    @nn.compact
    def __call__(self, branch: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, ...) to (B, ...); draws from the stream "dropout".

        Raises:
            InputError: when p is outside [0, 1], or for an unknown `drop`.
        """
        if self.drop not in DROPS:
            raise errors.choose("drop", self.drop, DROPS)
        if not isinstance(self.survival, jax.Array):
            _require_probability(self.survival)
            if self.survival == 1:
                return branch
        if not train:
            return branch * jnp.asarray(self.survival, branch.dtype)
        key = self.make_rng("dropout")
        if self.drop == "batch":
            return jnp.where(jax.random.bernoulli(key, self.survival), branch, 0)

        def survives(position: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, position), self.survival)

        kept = jax.vmap(survives)(parallel.positions(branch.shape[0]))
        return jnp.where(kept.reshape(-1, *(1,) * (branch.ndim - 1)), branch, 0)


def _require_probability(survival: float) -> None:
    if not 0 <= survival <= 1:
        raise errors.InputError(
            f"survival probability {survival} is not a probability; choose it in (0, 1]"
        )
