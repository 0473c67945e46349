"""Normalisation layers. Shapes: B batch, C channels (the last axis), `...` any axes between."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from dlcore import parallel
from dlcore.types import at_least_float32


class BatchNorm(nn.Module):
    """A layer (x - mean) / sqrt(variance + epsilon) * scale + bias, for each channel.

    Training uses the mean and (biased) variance of the whole batch, which under pmap lies on all
    devices; under gradient accumulation it uses those of the micro-batch. Examples of weight 0,
    the padding of the batch, do not count in them (`parallel.row_weights`). Evaluation uses
    the running statistics in the collection `batch_stats`, which training updates by
    running = momentum * running + (1 - momentum) * batch. (PyTorch calls 1 - momentum the
    momentum.) The layer learns `scale` and `bias`, the paper's gamma and beta
    (Ioffe & Szegedy 2015).

    Attributes:
        momentum: the share of the old running statistics that is kept.
        epsilon: added to the variance.
        scale_init: draws the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, weight: jax.Array | None = None
    ) -> jax.Array:
        """Maps (B, ..., C) to (B, ..., C).

        Args:
            x: the inputs.
            train: whether to use the statistics of the batch.
            weight: (B,), 0 for examples that do not count; by default the weights of the batch
                that the training step traces.
        """
        channels = x.shape[-1:]
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, channels),
            "var": self.variable("batch_stats", "var", jnp.ones, channels),
        }
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", nn.initializers.zeros_init(), channels)
        wide = x.astype(at_least_float32(x.dtype))
        if train:
            # A CPU reduces over the first of two axes twice as fast as over all but the last of
            # many.
            average, count = batch_average(x, weight, alone=self.is_initializing())
            centred, mean, variance = centre(wide.reshape(-1, x.shape[-1]), average)
            if not self.is_initializing():
                for name, value in (("mean", mean), ("var", variance)):
                    old = running[name].value
                    new = self.momentum * old + (1 - self.momentum) * value[0]
                    running[name].value = new if count is None else jnp.where(count > 0, new, old)
            y = _scaled(centred, variance[0], self.epsilon, scale, bias).reshape(x.shape)
        else:
            y = _scaled(
                wide - _along(running["mean"].value, wide),
                running["var"].value,
                self.epsilon,
                scale,
                bias,
            )
        return y.astype(jnp.result_type(x, scale, bias))


def batch_average(
    x: jax.Array, weight: jax.Array | None = None, *, alone: bool = False
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array | None]:
    """Returns the mean over the rows (N, C) of x that count, and their number if that varies.

    The mean is (1, C), over all devices.

    Args:
        x: (B, ..., C); its rows are all N positions, B times the axes in between.
        weight: (B,), 0 for examples that do not count; by default the weights of the batch that the
            training step traces.
        alone: whether to leave out other devices' parts of the batch, as when variables are made.
    """
    axis = None if alone else parallel.axis_name()
    weight = parallel.row_weights(len(x)) if weight is None else weight
    if weight is None:

        def average(values: jax.Array) -> jax.Array:
            mean = values.mean(0, keepdims=True)
            return mean if axis is None else jax.lax.pmean(mean, axis)

        return average, None
    mask = weight != 0
    each = x.size // (x.shape[0] * x.shape[-1])
    count = each * mask.sum(dtype=jnp.float32)
    count = count if axis is None else jax.lax.psum(count, axis)
    repeated = jnp.repeat(mask, each)[:, None]

    def average_of_counted(values: jax.Array) -> jax.Array:
        # Not a product with the mask: 0 times padding that is not finite would be NaN.
        total = jnp.where(repeated, values, jnp.zeros_like(values)).sum(0, keepdims=True)
        total = total if axis is None else jax.lax.psum(total, axis)
        return total / jnp.maximum(count, 1).astype(total.dtype)

    return average_of_counted, count


class LayerNorm(nn.Module):
    """A layer (x - mean) / sqrt(variance + epsilon) * scale + bias, over each position's channels.

    The layer learns `scale` and, where it has one, `bias`, the paper's g and b (Ba et al. 2016).

    Attributes:
        epsilon: added to the variance.
        use_bias: whether there is a bias.
    """

    epsilon: float = 1e-6
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., C) to (..., C)."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), channels)
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, channels) if self.use_bias else None
        wide = x.astype(at_least_float32(x.dtype))
        centred, _, variance = centre(wide, lambda values: values.mean(-1, keepdims=True))
        y = _scaled(centred, variance, self.epsilon, scale, bias)
        return y.astype(jnp.result_type(*(a for a in (x, scale, bias) if a is not None)))


class InstanceNorm(nn.Module):
    """A layer (x - mean) / sqrt(variance + epsilon) * scale + bias, for each example's channels.

    Mean and (biased) variance are taken over the example's own positions, in training and after it,
    so that the contrast of a picture does not count (Ulyanov et al. 2016, Instance Normalization:
    The Missing Ingredient for Fast Stylization, equation 4). The layer learns `scale` and `bias`.

    Attributes:
        epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, ..., C) to (B, ..., C), with one or more axes of positions in between."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), channels)
        bias = self.param("bias", nn.initializers.zeros_init(), channels)
        wide = x.astype(at_least_float32(x.dtype))
        places = tuple(range(1, x.ndim - 1))
        centred, _, variance = centre(wide, lambda values: values.mean(places, keepdims=True))
        y = _scaled(centred, variance, self.epsilon, scale, bias)
        return y.astype(jnp.result_type(x, scale, bias))


def centre(
    x: jax.Array, average: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns x - mean, the mean and the (biased) variance, without cancellation.

    E[x^2] - E[x]^2 loses two digits for each factor of ten between mean and deviation. After the
    rounded mean is subtracted, the same formula is exact, and corrects that rounding as well (the
    shifted and corrected algorithms of Chan, Golub & LeVeque 1983). The result does not depend on
    the shift, so neither does the gradient.

    Args:
        x: float32 at least.
        average: takes the mean over the axes that share statistics and keeps them with size 1.
    """
    shift = jax.lax.stop_gradient(average(x))
    x = x - shift
    rest, square = average(x), average(jnp.square(x))
    return x - rest, shift + rest, jnp.maximum(square - jnp.square(rest), 0.0)


def _scaled(
    centred: jax.Array,
    variance: jax.Array,
    epsilon: float,
    scale: jax.Array,
    bias: jax.Array | None,
) -> jax.Array:
    """Returns centred / sqrt(variance + epsilon) * scale + bias, in the type of `centred`."""
    inverse = jax.lax.rsqrt(_along(variance, centred) + epsilon)
    y = centred * (inverse * _along(scale, centred))
    return y if bias is None else y + _along(bias, centred)


def _along(leaf: jax.Array, x: jax.Array) -> jax.Array:
    """Returns a leaf (C,), or an array with the rank of x, in a shape that broadcasts to x."""
    return leaf.astype(x.dtype).reshape((1,) * (x.ndim - leaf.ndim) + leaf.shape)
