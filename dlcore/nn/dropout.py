"""Dropout that draws the same mask in every layout. Shapes: B batch, `...` any other axes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.nn import examples


class Dropout(nn.Module):
    """Zeroes each value with probability `rate` in training (Srivastava et al. 2014).

    The rest is divided by 1 - rate, so that the expectation stays and evaluation changes nothing.
    The mask of an example depends on the key and on its position in the global batch alone, so it
    is the same under jit, on a mesh, under pmap and under gradient accumulation.

    Attributes:
        rate: the probability of a zero, in [0, 1].
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, ...) to (B, ...); draws from the stream "dropout".

        Raises:
            InputError: when the rate is outside [0, 1].
        """
        if not 0 <= self.rate <= 1:
            raise InputError(f"dropout rate {self.rate} is not a probability; choose it in [0, 1)")
        if not train or self.rate == 0:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        key = self.make_rng("dropout")
        keep = 1 - self.rate

        def mask_of(position: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, position), keep, x.shape[1:])

        mask = jax.vmap(mask_of)(examples.positions(x.shape[0]))
        return jnp.where(mask, x / keep, jnp.zeros_like(x))
