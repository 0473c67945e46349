"""Highway layers (Srivastava et al. 2015). Shapes: B batch, C channels, `...` any other axes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from dlcore.nn.activations import activation
from dlcore.nn.convolution import Conv
from dlcore.nn.dense import Dense


class Highway(nn.Module):
    """A layer y = T(x) h(x) + (1 - T(x)) x, whose gates mix the input with a layer's output.

    h is an ordinary layer with an activation, and T another layer with a sigmoid; the carry gate is
    coupled to the transform gate, 1 - T (equations 2-4). Both keep the shape of x, and both are
    dense or, with a kernel size, convolutions padded with zeros. The bias of T starts below 0, so
    that at first most of x passes through (section 2.2).

    Parameters: `affine/kernel` (C, 2C), or (F..., C, 2C) with a kernel size F, and `affine/bias`
    (2C,), in the order h, T: one product for both; `activation/negative_slope` (C,) where the
    activation is "prelu".

    Attributes:
        kernel_size: the window of the convolutional form; None for the dense one.
        activation: the name of the activation of h.
        transform_bias: the initial biases of T; the deeper the network, the lower.
        kernel_init: draws the kernel.
    """

    kernel_size: tuple[int, ...] | None = None
    activation: str = "relu"
    transform_bias: float = -1.0
    kernel_init: Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps (..., C), or (B, I..., C) with a kernel size, to y and T(x), both of x's shape.

        Raises:
            InputError: for an unknown activation.
        """
        act = activation(self.activation, layer="activation")
        h, gate = jnp.split(self._affine(x), 2, axis=-1)
        gate = jax.nn.sigmoid(gate)
        return gate * act(h) + (1 - gate) * x, gate

    def _affine(self, x: jax.Array) -> jax.Array:
        width = 2 * x.shape[-1]

        def bias(
            key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
        ) -> jax.Array:
            return jnp.repeat(jnp.array([0.0, self.transform_bias], dtype), width // 2)

        affine: nn.Module = (
            Dense(width, kernel_init=self.kernel_init, bias_init=bias, name="affine")
            if self.kernel_size is None
            else Conv(
                width,
                self.kernel_size,
                padding="same",
                kernel_init=self.kernel_init,
                bias_init=bias,
                name="affine",
            )
        )
        return affine(x)
