"""Reversible instance normalisation. Shapes: B batch, T steps, H steps ahead, D columns."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32

# Is added to the variance of a window.
EPSILON = 1e-5


class ReversibleNorm(nn.Module):
    """A layer that removes level and scale from each window of a series and restores its forecast.

    Each column of a window gets mean 0 and variance 1 over its steps and then a learned scale and
    bias (Kim et al. 2022, eq. 2); `restore` undoes both on the forecast from the window (eq. 3). So
    a series whose level drifts looks alike everywhere. The scale is the exponential of its
    parameter, while the paper learns the scale itself: so it is never 0, by which `restore` would
    divide.

    Parameters: `log_scale` (D,) and `bias` (D,), both 0 at first.

    Attributes:
        columns: D.
        epsilon: the constant added to the variance, in the square of the columns' unit.
    """

    columns: int
    epsilon: float = EPSILON

    def setup(self) -> None:
        zeros = nn.initializers.zeros_init()
        self.log_scale = self.param("log_scale", zeros, (self.columns,))
        self.bias = self.param("bias", zeros, (self.columns,))

    def __call__(self, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Normalises windows [B, T, D]; returns them with their mean and deviation [B, 1, D]."""
        wide = x.astype(at_least_float32(x.dtype))
        mean = wide.mean(axis=1, keepdims=True)
        deviation = jnp.sqrt(wide.var(axis=1, keepdims=True) + self.epsilon)
        scale, bias = self._affine(wide)
        return ((wide - mean) / deviation * scale + bias).astype(x.dtype), (mean, deviation)

    def restore(self, y: jax.Array, moments: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Maps forecasts [B, H, D] from normalised windows to forecasts of the series itself."""
        mean, deviation = moments
        wide = y.astype(mean.dtype)
        scale, bias = self._affine(wide)
        return (wide - bias) / scale * deviation + mean

    def _affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale, bias = jnp.exp(self.log_scale.astype(x.dtype)), self.bias.astype(x.dtype)
        return scale[None, None], bias[None, None]
