"""Dropout that draws the same mask in every layout. Shapes: B batch, `...` any other axes."""

import contextlib
import contextvars
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import parallel
from dlcore.errors import InputError

# The rates of the dropout that was met where evaluation samples it; None where it does not.
_sampled: contextvars.ContextVar[list[float] | None] = contextvars.ContextVar(
    "sampled_dropout", default=None
)


@contextlib.contextmanager
def sampled_dropout() -> Iterator[list[float]]:
    """Makes dropout draw in evaluation too, for models called or traced while open.

    Everything else behaves as in evaluation, so that batch normalisation uses its running
    statistics. All examples share one mask for each key: a key selects one thinned network, and an
    example's output does not depend on the other examples (Monte Carlo dropout, Gal & Ghahramani
    2016).

    Yields:
        The rates of the dropout layers that drew, in order; none where the model has no dropout.

    >>> with sampled_dropout() as rates:
    ...     y = Dropout(0.5).apply({}, jnp.ones((2, 3)), rngs={"dropout": jax.random.key(0)})
    >>> rates, bool((y[0] == y[1]).all())
    ([0.5], True)
    """
    rates: list[float] = []
    token = _sampled.set(rates)
    try:
        yield rates
    finally:
        _sampled.reset(token)


def draws(rate: float, train: bool) -> bool:
    """Returns whether dropout of a rate draws: in training, or where evaluation samples it."""
    rates = _sampled.get()
    if rate == 0 or (rates is None and not train):
        return False
    if rates is not None:
        rates.append(rate)
    return True


def mask_positions(count: int) -> jax.Array:
    """Returns the positions in the global batch by which `count` examples draw masks, (count,)."""
    return parallel.positions(count) if _sampled.get() is None else jnp.zeros(count, jnp.int32)


def require_rate(rate: float) -> None:
    """Checks that a dropout rate is a probability.

    Raises:
        InputError: when the rate is outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise InputError(f"dropout rate {rate} is not a probability; choose it in [0, 1)")


def drop(x: jax.Array, kept: jax.Array, rate: float) -> jax.Array:
    """Returns x / (1 - rate) where `kept` is true, else 0, which has the expectation x.

    Args:
        x: of any shape.
        kept: false with probability `rate`, with as many axes as x.
        rate: in [0, 1].

    >>> drop(jnp.array([1.0, 2.0]), jnp.array([True, False]), 0.5).tolist()
    [2.0, 0.0]
    """
    # At rate 1 nothing is kept and the divisor does not matter, but 0 would make the gradient NaN.
    return jnp.where(kept, x / ((1 - rate) or 1), jnp.zeros_like(x))


class Dropout(nn.Module):
    """A layer that zeroes each value with probability `rate` in training (Srivastava et al. 2014).

    It divides the others by 1 - rate, which keeps the expectation, so evaluation needs no change.
    The mask of an example depends on the key and on its position in the global batch alone, so it
    is the same under jit, on a mesh, under pmap and under gradient accumulation. `sampled_dropout`
    lets evaluation draw as well.

    Attributes:
        rate: the probability of a zero, in [0, 1].
        broadcast_dims: axes other than 0 that share one draw: with axis 1 of (B, T, D) every step
            drops the same features (variational dropout, Gal & Ghahramani 2016).
    """

    rate: float
    broadcast_dims: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, ...) to (B, ...); draws from the stream "dropout".

        Raises:
            InputError: when the rate is outside [0, 1].
        """
        require_rate(self.rate)
        if not draws(self.rate, train):
            return x
        key = self.make_rng("dropout")
        shape = [1 if axis in self.broadcast_dims else n for axis, n in enumerate(x.shape)][1:]

        def kept_of(position: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, position), 1 - self.rate, shape)

        return drop(x, jax.vmap(kept_of)(mask_positions(x.shape[0])), self.rate)
