"""Activations by name: functions, in `ACTIVATIONS`, and layers with parameters, in `LEARNED`.

All act on each element except `softmax`, which acts along one axis. All work under jit, vmap and
both modes of differentiation. Shapes: C channels (the last axis), `...` any leading axes.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors

Activation = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def binary_step(x: jax.Array) -> jax.Array:
    """Returns 1 where x >= 0, else 0, as the first model neurons did (McCulloch & Pitts 1943).

    The true gradient is 0 everywhere, so nothing could be learned through it. The clipped-identity
    straight-through estimator replaces it: the gradient passes unchanged where |x| <= 1 and is 0
    elsewhere (Bengio et al. 2013; Hubara et al. 2016, eq. 4).

    >>> binary_step(jnp.array([-0.5, 0.0, 2.0])).tolist()
    [0.0, 1.0, 1.0]
    >>> float(jax.grad(binary_step)(0.5)), float(jax.grad(binary_step)(2.0))
    (1.0, 0.0)
    """
    return jnp.heaviside(x, 1.0)


@binary_step.defjvp
def _straight_through(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return binary_step(x), jnp.where(jnp.abs(x) <= 1, tangent, jnp.zeros_like(tangent))


def linear(x: jax.Array) -> jax.Array:
    """Returns x itself."""
    return x


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Returns 1.7159 tanh(2x/3), which maps +-1 to +-1 (LeCun et al. 1998, appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def leaky_relu(x: jax.Array, *, slope: float = 0.01) -> jax.Array:
    """Returns x where x >= 0, else slope * x (Maas et al. 2013).

    >>> leaky_relu(jnp.array([-2.0, 3.0]), slope=0.5).tolist()
    [-1.0, 3.0]
    """
    return jax.nn.leaky_relu(x, slope)


def elu(x: jax.Array, *, alpha: float = 1.0) -> jax.Array:
    """Returns x where x > 0, else alpha (e^x - 1) (Clevert et al. 2015)."""
    return jax.nn.elu(x, alpha)


def gelu(x: jax.Array) -> jax.Array:
    """Returns x P(z < x) for a standard normal z, by the tanh formula (Hendrycks & Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=True)


def squared_relu(x: jax.Array) -> jax.Array:
    """Returns x^2 where x > 0, else 0 (So et al. 2021).

    >>> squared_relu(jnp.array([-2.0, 3.0])).tolist()
    [0.0, 9.0]
    """
    return jnp.square(jax.nn.relu(x))


def softplus(x: jax.Array, *, beta: float = 1.0) -> jax.Array:
    """Returns log(1 + e^(beta x)) / beta, a smooth ReLU (Dugas et al. 2001)."""
    return jax.nn.softplus(beta * x) / beta


def softmax(
    x: jax.Array,
    *,
    axis: int = -1,
    temperature: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Returns exp(x / temperature), normalised to sum to 1 along `axis`.

    Args:
        x: scores of any shape; large ones do not overflow.
        axis: the axis of the alternatives.
        temperature: positive. Towards 0 the largest score takes all, towards infinity all shares
            become equal.
        mask: true where an alternative is possible, broadcastable to x; the others get 0. Where
            no alternative is possible, all get 0.

    >>> softmax(jnp.array([1e4, 1e4, 0.0])).tolist()
    [0.5, 0.5, 0.0]
    >>> softmax(jnp.zeros(3), mask=jnp.array([True, False, True])).tolist()
    [0.5, 0.0, 0.5]
    """
    # Subtracting the maximum before dividing: a large score over a small temperature is infinite.
    largest = jnp.max(x, axis, keepdims=True, where=mask, initial=-jnp.inf)
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    shifted = (x - jax.lax.stop_gradient(largest)) / temperature
    if mask is None:
        return jax.nn.softmax(shifted, axis)
    return jnp.where(
        jnp.any(mask, axis, keepdims=True), jax.nn.softmax(shifted, axis, where=mask), 0.0
    )


class PReLU(nn.Module):
    """A leaky ReLU, x where x >= 0, else a x, with a learned slope a (He et al. 2015, eq. 1).

    The paper puts no weight decay on a: exclude the parameter `negative_slope` by a decay rule.

    Attributes:
        shared: whether all channels share one slope instead of having one each.
        slope_init: the initial slope.
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


# The activation functions by name; `LEARNED` has those with parameters.
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


# Activations with parameters.
LEARNED: dict[str, type[nn.Module]] = {"prelu": PReLU}


def activation(name: str, *, layer: str | None = None) -> Activation:
    """Returns the named activation: a function, or a new layer where it is learned.

    A layer must be made in the compact method that calls it, once for each place where it is used;
    otherwise several places would share its parameters.

    Args:
        name: a name in `ACTIVATIONS` or `LEARNED`.
        layer: the name of the layer, where it is one; by default Flax's.

    Raises:
        InputError: for an unknown name.
    """
    if name in LEARNED:
        return LEARNED[name](name=layer)
    if name not in ACTIVATIONS:
        raise errors.choose("activation", name, [*ACTIVATIONS, *LEARNED])
    return ACTIVATIONS[name]
