"""The ladder network: a classifier that also learns to remove noise from each of its layers.

Rasmus et al. 2015, algorithm 1. Shapes: B batch, D features of a layer, K classes. Layer 0 is the
input; the others have the widths of the hidden layers and, the last, K.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.nn import Dense
from dlcore.nn.normalisation import batch_average, centre
from dlcore.types import at_least_float32

# Which layers are denoised: all, the top one (the Gamma model, section 3.1 of the paper), or none.
LADDERS = ("all", "top", "none")
# Added to the batch's variance, as `BatchNorm` does.
_EPSILON = 1e-5


class Encoded(NamedTuple):
    """The outputs of an encoder.

    Attributes:
        logits: (B, K).
        layers: z of each layer (B, D): normalised, with its noise, before bias and activation.
        means: the means by which each layer was normalised (1, D); those of the input are 0.
        deviations: the standard deviations likewise (1, D); those of the input are 1.
    """

    logits: jax.Array
    layers: list[jax.Array]
    means: list[jax.Array]
    deviations: list[jax.Array]


class GaussianCombinator(nn.Module):
    """A combinator (z - mu(u)) v(u) + mu(u), where mu and v are sigmoids of u plus lines (eq. 2).

    It is the best estimate of a normal z from a noisy one if mu and v are right.
    """

    @nn.compact
    def __call__(self, z: jax.Array, u: jax.Array) -> jax.Array:
        """Maps z and u (B, D) to the estimate (B, D)."""
        # a1 .. a5 of mu, a6 .. a10 of v, at first mu = 0 and v = 1.
        start = jnp.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
        shape = (10, z.shape[-1])
        table = self.param("a", lambda _: jnp.broadcast_to(start[:, None], shape) + 0.0)
        a = table.astype(z.dtype)[:, None]
        mu = a[0] * nn.sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
        v = a[5] * nn.sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
        return (z - mu) * v + mu


class VanillaCombinator(nn.Module):
    """A combinator that adds a line and a sigmoid of z, u and z u (Pezeshki et al. 2016, eq. 4).

    It is b0 + w0z z + w0u u + w0zu z u + w sigmoid(b1 + w1z z + w1u u + w1zu z u).
    """

    @nn.compact
    def __call__(self, z: jax.Array, u: jax.Array) -> jax.Array:
        """Maps z and u (B, D) to the estimate (B, D)."""
        # b0, w0z, w0u, w0zu, w, b1, w1z, w1u, w1zu; at first the line is z.
        start = jnp.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
        shape = (9, z.shape[-1])
        table = self.param("w", lambda _: jnp.broadcast_to(start[:, None], shape) + 0.0)
        w = table.astype(z.dtype)[:, None]
        inner = w[5] + w[6] * z + w[7] * u + w[8] * z * u
        return w[0] + w[1] * z + w[2] * u + w[3] * z * u + w[4] * nn.sigmoid(inner)


# By name.
COMBINATORS: dict[str, type[GaussianCombinator | VanillaCombinator]] = {
    "gaussian": GaussianCombinator,
    "vanilla": VanillaCombinator,
}


class Whitening(nn.Module):
    """A layer (x - mean) / deviation for each feature, without scale and bias.

    Training uses the moments of the batch, evaluation running ones, as in `BatchNorm`.

    Attributes:
        momentum: the share of the old running moments that is kept.
    """

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps (B, D) to the normalised (B, D), the mean and the deviation (1, D), float32.

        Args:
            x: the features.
            train: whether the moments are those of the batch, towards which the running ones move.
        """
        mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
        var = self.variable("batch_stats", "var", jnp.ones, x.shape[-1:])
        wide = x.astype(at_least_float32(x.dtype))
        if not train:
            at, variance = mean.value[None], var.value[None]
            centred = wide - at
        else:
            average, _ = batch_average(x, alone=self.is_initializing())
            centred, at, variance = centre(wide, average)
            if not self.is_initializing():
                for running, new in ((mean, at), (var, variance)):
                    old = self.momentum * running.value
                    running.value = old + (1 - self.momentum) * jax.lax.stop_gradient(new[0])
        deviation = jnp.sqrt(variance + _EPSILON)
        return (centred / deviation).astype(x.dtype), at, deviation


class LadderNetwork(nn.Module):
    """Dense layers with batch normalisation, and a decoder beside them.

    Attributes:
        inputs: D of the input.
        num_classes: K.
        hidden: the widths of the hidden layers.
        denoise: one of `LADDERS`.
        combinator: one of `COMBINATORS`.
    """

    inputs: int
    num_classes: int
    hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)
    denoise: str = "all"
    combinator: str = "gaussian"

    @property
    def widths(self) -> tuple[int, ...]:
        """D of each layer."""
        return (self.inputs, *self.hidden, self.num_classes)

    def setup(self) -> None:
        widths = self.widths
        up, top = widths[1:], len(widths) - 1
        # A bias before the normalisation has no effect.
        self.up = [Dense(width, use_bias=False) for width in up]
        self.whiten = [Whitening() for _ in up]
        zeros = nn.initializers.zeros_init()
        self.bias = [self.param(f"bias_{n + 1}", zeros, (width,)) for n, width in enumerate(up)]
        # A scale before a rectifier has no effect on what the next layer normalises.
        self.scale = self.param("scale", nn.initializers.ones_init(), up[-1:])
        layers = {"all": [*range(top + 1)], "top": [top], "none": []}[self.denoise]
        combine = COMBINATORS[self.combinator]
        self.combine = {str(layer): combine() for layer in layers}
        self.down = {str(n): Dense(widths[n], use_bias=False) for n in layers if n < top}

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps inputs (B, D) to logits (B, K) and makes all variables."""
        encoded = self.encode(x, train=self.is_initializing())
        if self.is_initializing():
            self.costs(encoded, encoded, train=True)
        return encoded.logits

    def encode(
        self,
        x: jax.Array,
        noise: list[jax.Array] | None = None,
        *,
        train: bool = False,
    ) -> Encoded:
        """Encodes inputs (B, D), with noise added to each layer or without.

        Args:
            x: the inputs.
            noise: (B, D) for each layer; None for the clean encoder.
            train: whether to normalise by the moments of the batch. The running moments should come
                from the clean encoder: drop the state that the noisy one returns.
        """
        z = x if noise is None else x + noise[0]
        layers, h = [z], z
        wide = at_least_float32(x.dtype)
        means = [jnp.zeros((1, self.inputs), wide)]
        deviations = [jnp.ones((1, self.inputs), wide)]
        for number, (dense, whiten) in enumerate(zip(self.up, self.whiten, strict=True), 1):
            z, mean, deviation = whiten(dense(h), train)
            if noise is not None:
                z = z + noise[number]
            y = z + self.bias[number - 1][None].astype(z.dtype)
            h = nn.relu(y) if number < len(self.up) else self.scale[None].astype(z.dtype) * y
            layers.append(z)
            means.append(mean)
            deviations.append(deviation)
        return Encoded(h, layers, means, deviations)

    def costs(self, clean: Encoded, noisy: Encoded, *, train: bool) -> dict[int, jax.Array]:
        """Returns the squared error (B,) of the decoder's reconstruction of each noisy layer.

        It is the mean over the layer's features of (z - (estimate - mean) / deviation)^2, with z,
        mean and deviation of the clean encoder: the estimate, normalised like the clean layer,
        should equal the clean layer (eq. 3).

        Args:
            clean: the outputs of the clean encoder.
            noisy: the outputs of the noisy encoder for the same inputs.
            train: whether to normalise by the moments of the batch.
        """
        found: dict[int, jax.Array] = {}
        estimate = nn.softmax(noisy.logits)
        for layer in sorted(map(int, self.combine), reverse=True):
            vertical = estimate
            if layer < len(self.up):
                vertical = self.down[str(layer)](estimate)
            u = _normalised(vertical, train and not self.is_initializing())
            estimate = self.combine[str(layer)](noisy.layers[layer], u)
            kind = clean.means[layer].dtype
            again = (estimate.astype(kind) - clean.means[layer]) / clean.deviations[layer]
            errors = clean.layers[layer].astype(kind) - again
            found[layer] = jnp.square(errors).mean(-1)
        return found


def _normalised(x: jax.Array, everywhere: bool) -> jax.Array:
    """Returns x (B, D) with mean 0 and variance 1 over the batch, on all devices or this one."""
    wide = x.astype(at_least_float32(x.dtype))
    centred, _, variance = centre(wide, batch_average(x, alone=not everywhere)[0])
    return (centred / jnp.sqrt(variance + _EPSILON)).astype(x.dtype)
