"""Activation functions, all by name in `ACTIVATIONS`.

They act on each element, but for `softmax`, which acts along one axis, and are safe under jit, vmap
and both modes of differentiation. Shapes: C channels (the last axis), `...` any leading axes.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors

Activation = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def binary_step(x: jax.Array) -> jax.Array:
    """The step of the first neurons: 1 where x >= 0, else 0 (McCulloch & Pitts 1943).

    Its own gradient is 0 everywhere, so nothing could be learned through it. The clipped-identity
    straight-through estimator stands in: the gradient passes unchanged where |x| <= 1 and is 0
    elsewhere (Bengio et al. 2013; Hubara et al. 2016, eq. 4).
    """
    return jnp.heaviside(x, 1.0)


@binary_step.defjvp
def _straight_through(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return binary_step(x), jnp.where(jnp.abs(x) <= 1, tangent, jnp.zeros_like(tangent))


def linear(x: jax.Array) -> jax.Array:
    """The identity."""
    return x


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x/3), which maps +-1 to +-1 (LeCun et al. 1998, appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def leaky_relu(x: jax.Array, *, slope: float = 0.01) -> jax.Array:
    """x where x >= 0, else slope * x (Maas et al. 2013)."""
    return jax.nn.leaky_relu(x, slope)


def elu(x: jax.Array, *, alpha: float = 1.0) -> jax.Array:
    """x where x > 0, else alpha (e^x - 1) (Clevert et al. 2015)."""
    return jax.nn.elu(x, alpha)


def gelu(x: jax.Array) -> jax.Array:
    """x P(z < x) of a standard normal z, by the tanh formula (Hendrycks & Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=True)


def squared_relu(x: jax.Array) -> jax.Array:
    """x^2 where x > 0, else 0 (So et al. 2021)."""
    return jnp.square(jax.nn.relu(x))


def softplus(x: jax.Array, *, beta: float = 1.0) -> jax.Array:
    """log(1 + e^(beta x)) / beta, a smooth ReLU (Dugas et al. 2001); linear for large x."""
    return jax.nn.softplus(beta * x) / beta


def softmax(
    x: jax.Array,
    *,
    axis: int = -1,
    temperature: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
) -> jax.Array:
    """exp(x / temperature), normalised to sum 1 along `axis`.

    Args:
        x: scores of any shape and size; 1e4 is as safe as 1.
        axis: the axis of the alternatives.
        temperature: positive. Towards 0 the largest score takes all, towards infinity all are
            equal.
        mask: True where an alternative is possible, broadcastable to x; the others get 0. Where
            none is possible, all get 0.
    """
    # The maximum goes first: the quotient of a large score and a small temperature is infinite.
    largest = jnp.max(x, axis, keepdims=True, where=mask, initial=-jnp.inf)
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    shifted = (x - jax.lax.stop_gradient(largest)) / temperature
    if mask is None:
        return jax.nn.softmax(shifted, axis)
    return jnp.where(
        jnp.any(mask, axis, keepdims=True), jax.nn.softmax(shifted, axis, where=mask), 0.0
    )


class PReLU(nn.Module):
    """x where x >= 0, else a x with a learned slope a (He et al. 2015, eq. 1).

    The paper puts no weight decay on a: name the parameter `negative_slope` in the decay rules.

    Attributes:
        shared: one slope for all channels instead of one per channel.
        slope_init: the slope at the start.
    """

    shared: bool = False
    slope_init: float = 0.25

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., C) to (..., C)."""
        slope = self.param(
            "negative_slope",
            nn.initializers.constant(self.slope_init),
            (1,) if self.shared else x.shape[-1:],
        )
        slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + slope.shape)
        return jnp.where(x >= 0, x, slope * x)


ACTIVATIONS: dict[str, Activation] = {
    "binary_step": binary_step,
    "linear": linear,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "scaled_tanh": scaled_tanh,
    "relu": jax.nn.relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "silu": jax.nn.silu,
    "squared_relu": squared_relu,
    "softplus": softplus,
    "softmax": softmax,
}


def activation(name: str) -> Activation:
    """The activation function of that name.

    Raises:
        InputError: for a name that is not in `ACTIVATIONS`.
    """
    return errors.pick("activation", name, ACTIVATIONS)
