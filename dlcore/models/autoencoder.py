"""Autoencoders of images: plain ones, whose code is a point, and variational ones.

An encoder is an image classifier with the values of a code in place of its classes. Its parameters
are under the name `ENCODER`, so that a classifier can start from them.

Shapes: B batch, H W image, C channels, K values of a code, S samples, `...` the axes of an image.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import pick
from dlcore.losses.codes import jacobian_norm, sigmoid_jacobian_norm
from dlcore.losses.variational import (
    bernoulli_log_likelihood,
    gaussian_log_likelihood,
    kl_from_standard,
    standard_log_density,
)
from dlcore.models.cnn.strided import StridedCNN, TransposedCNN
from dlcore.nn import Dense
from dlcore.parallel import row_keys
from dlcore.types import Activations, at_least_float32

# The name of the encoder's module, under which its parameters lie.
ENCODER = "encoder"
CODE_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda x: x,
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
}
LIKELIHOODS = ("bernoulli", "gaussian")


class DenseEncoder(nn.Module):
    """Dense layers with rectifiers and a linear layer, with the same parameters as `MLP`.

    Attributes:
        outputs: K.
        hidden: the widths of the hidden layers.
    """

    outputs: int
    hidden: tuple[int, ...]

    def setup(self) -> None:
        self.dense = [Dense(width) for width in self.hidden]
        self.output = Dense(self.outputs)

    def layer(self, number: int, x: jax.Array) -> jax.Array:
        """Maps the input of a layer to its output, [B, D] to [B, D']."""
        if number == len(self.hidden):
            return self.output(x)
        return nn.relu(self.dense[number](x))

    def kernels(self) -> list[jax.Array]:
        """Returns the kernels [D, D'] of the layers in order, which exist after a first call."""
        return [layer.variables["params"]["kernel"] for layer in (*self.dense, self.output)]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps (B, ...) to (B, K) and the activations by name."""
        x = x.reshape(len(x), -1)
        activations = {}
        for number in range(len(self.hidden)):
            activations[f"activation_{number}"] = x = self.layer(number, x)
        activations["output"] = x = self.layer(len(self.hidden), x)
        return x, activations


class DenseDecoder(nn.Module):
    """Dense layers with rectifiers and a linear layer that outputs an image.

    Attributes:
        shape: the shape of the image.
        hidden: the widths of the encoder's layers that it mirrors, in their order.
        tied: whether its kernels are the encoder's, transposed; then its only parameters are
            biases.
    """

    shape: tuple[int, ...]
    hidden: tuple[int, ...]
    tied: bool = False

    def setup(self) -> None:
        widths = [*reversed(self.hidden), int(np.prod(self.shape))]
        if self.tied:
            zeros = nn.initializers.zeros_init()
            self.biases = [self.param(f"bias_{n}", zeros, (w,)) for n, w in enumerate(widths)]
        else:
            self.dense = [Dense(width) for width in widths]

    def layer(self, number: int, x: jax.Array, kernels: Sequence[jax.Array] = ()) -> jax.Array:
        """Maps the input of a layer to its output, [B, D] to [B, D'].

        Tied kernels are passed in the encoder's order.
        """
        if self.tied:
            x = x @ kernels[len(self.hidden) - number].T + self.biases[number][None]
        else:
            x = self.dense[number](x)
        return x if number == len(self.hidden) else nn.relu(x)

    def __call__(self, code: jax.Array, kernels: Sequence[jax.Array] = ()) -> jax.Array:
        """Maps codes (B, K) to images (B, ...)."""
        x = code
        for number in range(len(self.hidden) + 1):
            x = self.layer(number, x, kernels)
        return x.reshape(len(code), *self.shape)


class Autoencoder(nn.Module):
    """An encoder, the code, and a decoder (Rumelhart et al. 1986; Hinton & Salakhutdinov 2006).

    Attributes:
        encoder: maps (B, ...) to (B, K) and activations.
        decoder: maps (B, K) to (B, ...).
        code_activation: the activation of the code, one of `CODE_ACTIVATIONS`.
    """

    encoder: nn.Module
    decoder: nn.Module
    code_activation: str = "linear"

    def encode(self, x: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps images (B, ...) to codes (B, K) and the encoder's activations by name."""
        code, activations = self.encoder(x)
        return self._active(code), activations

    def _active(self, code: jax.Array) -> jax.Array:
        return pick("activation of the code", self.code_activation, CODE_ACTIVATIONS)(code)

    def _kernels(self) -> tuple[Sequence[jax.Array], ...]:
        """Returns the decoder's second argument, if it has one."""
        return (self.encoder.kernels(),) if getattr(self.decoder, "tied", False) else ()

    def decode(self, code: jax.Array) -> jax.Array:
        """Maps codes (B, K) to images (B, ...)."""
        images: jax.Array = self.decoder(code, *self._kernels())
        return images

    def __call__(self, x: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps images (B, ...) to reconstructions (B, ...) and the activations by name."""
        code, activations = self.encode(x)
        return self.decode(code), {**activations, "code": code}

    def contraction(self, x: jax.Array) -> jax.Array:
        """Returns the squared Frobenius norm of the code's Jacobian, (B,), see `jacobian_norm`."""
        if self.code_activation == "sigmoid" and getattr(self.encoder, "hidden", None) == ():
            return sigmoid_jacobian_norm(self.encode(x)[0], self.encoder.kernels()[0])
        return jacobian_norm(lambda x: self.encode(x)[0], x)

    def layer_input(self, number: int, x: jax.Array) -> jax.Array:
        """Maps images (B, ...) to the input of a layer of a dense encoder, [B, D]."""
        x = x.reshape(len(x), -1)
        for below in range(number):
            x = self.encoder.layer(below, x)
        return x

    def redraw_layer(self, number: int, x: jax.Array) -> jax.Array:
        """Maps the input of a layer through it and its mirror layer of the decoder, [B, D]."""
        last = len(self.encoder.hidden)
        code = self.encoder.layer(number, x)
        code = self._active(code) if number == last else code
        redrawn: jax.Array = self.decoder.layer(last - number, code, *self._kernels())
        return redrawn


class Posterior(NamedTuple):
    """The normal distribution q(z | x) of independent latent units.

    Attributes:
        mean: (B, K).
        log_variance: (B, K).
    """

    mean: jax.Array
    log_variance: jax.Array

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Draws z = mean + deviation * noise, (S, B, K), S = `count`, by position in the batch."""
        mean, deviation = self.mean, jnp.exp(0.5 * self.log_variance)

        def draw(own: jax.Array) -> jax.Array:
            return jax.random.normal(own, (count, mean.shape[-1]), mean.dtype)

        noise = jnp.swapaxes(jax.vmap(draw)(row_keys(key, len(mean))), 0, 1)
        return mean[None] + deviation[None] * noise

    def log_density(self, z: jax.Array) -> jax.Array:
        """Returns log q(z | x) of samples (S, B, K), (S, B)."""
        mean, log_variance = (a.astype(at_least_float32(a.dtype))[None] for a in self)
        noise = (z.astype(mean.dtype) - mean) * jnp.exp(-0.5 * log_variance)
        return standard_log_density(noise) - 0.5 * log_variance.sum(-1)


class Terms(NamedTuple):
    """The terms of a variational bound in nats.

    Attributes:
        log_likelihood: log p(x | z) of samples z of q, (S, B).
        log_ratio: log p(z) - log q(z | x) of the same samples, (S, B).
        kl: KL(q(z | x) || p(z)) of each latent unit, exact, (B, K).
    """

    log_likelihood: jax.Array
    log_ratio: jax.Array
    kl: jax.Array


class VariationalAutoencoder(nn.Module):
    """A decoder p(x | z) with the prior N(0, I), and an encoder q(z | x) (Kingma & Welling 2014).

    Attributes:
        encoder: maps (B, ...) to (B, 2 K), means and log variances, and activations.
        decoder: maps (B, K) to (B, ...): logits of bits, or means.
        likelihood: "bernoulli", or "gaussian" with one learned variance of all pixels.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: str = "bernoulli"

    def setup(self) -> None:
        if self.likelihood == "gaussian":
            self.log_variance = self.param("log_variance", nn.initializers.zeros_init(), ())

    def encode(self, x: jax.Array) -> tuple[Posterior, Activations]:
        """Maps images (B, ...) to q(z | x) and the encoder's activations by name."""
        both, activations = self.encoder(x)
        return Posterior(*jnp.split(both, 2, axis=-1)), activations

    def decode(self, z: jax.Array) -> jax.Array:
        """Maps latent values (B, K) to the means of p(x | z), (B, ...)."""
        outputs: jax.Array = self.decoder(z)
        return nn.sigmoid(outputs) if self.likelihood == "bernoulli" else outputs

    def __call__(self, x: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps images to reconstructions from the means of q(z | x), and activations by name."""
        posterior, activations = self.encode(x)
        return self.decode(posterior.mean), {**activations, "code": posterior.mean}

    def log_likelihood(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Returns log p(x | z) of images (B, ...) and samples (S, B, K), (S, B)."""
        outputs = self.decoder(z.reshape(-1, z.shape[-1]))
        x = jnp.broadcast_to(x[None], (len(z), *x.shape)).reshape(outputs.shape)
        if self.likelihood == "bernoulli":
            found = bernoulli_log_likelihood(outputs, x)
        else:
            found = gaussian_log_likelihood(outputs, self.log_variance, x)
        return found.reshape(z.shape[:2])

    def terms(self, x: jax.Array, key: jax.Array, samples: int = 1) -> Terms:
        """Returns the terms of a bound for images (B, ...), estimated by S samples."""
        posterior, _ = self.encode(x)
        z = posterior.sample(key, samples)
        ratio = standard_log_density(z) - posterior.log_density(z)
        return Terms(self.log_likelihood(x, z), ratio, kl_from_standard(*posterior))


def _dense(shape: tuple[int, ...], outputs: int, hidden: tuple[int, ...], tied: bool) -> Any:
    return DenseEncoder(outputs, hidden), DenseDecoder(shape, hidden, tied)


def _convolutional(
    shape: tuple[int, ...], outputs: int, hidden: tuple[int, ...], tied: bool
) -> Any:
    if tied:
        raise ValueError("tied kernels are those of dense layers")
    return StridedCNN(outputs, hidden), TransposedCNN(shape, hidden)


# (shape, outputs of the encoder, widths of the hidden layers, tied) -> (encoder, decoder)
BODIES: dict[str, Callable[[tuple[int, ...], int, tuple[int, ...], bool], Any]] = {
    "dense": _dense,
    "convolutional": _convolutional,
}


def make_autoencoder(
    body: str,
    shape: tuple[int, ...],
    code: int,
    hidden: tuple[int, ...],
    *,
    tied: bool = False,
    code_activation: str = "linear",
) -> Autoencoder:
    """Returns an autoencoder.

    Args:
        body: one of `BODIES`.
        shape: the shape (H, W, C) of the images.
        code: K.
        hidden: the widths or filters of the hidden layers; none for a linear autoencoder.
        tied: whether a dense decoder has the encoder's kernels.
        code_activation: one of `CODE_ACTIVATIONS`.
    """
    encoder, decoder = pick("body", body, BODIES)(shape, code, hidden, tied)
    return Autoencoder(encoder, decoder, code_activation)


def make_variational(
    body: str,
    shape: tuple[int, ...],
    code: int,
    hidden: tuple[int, ...],
    likelihood: str = "bernoulli",
) -> VariationalAutoencoder:
    """Returns a variational autoencoder with K = `code` latent units; see `make_autoencoder`."""
    encoder, decoder = pick("body", body, BODIES)(shape, 2 * code, hidden, False)
    return VariationalAutoencoder(encoder, decoder, likelihood)
