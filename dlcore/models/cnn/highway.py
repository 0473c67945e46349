"""Highway networks, dense and convolutional (Srivastava et al. 2015a, Highway networks; 2015b,
Training very deep networks). Shapes: B batch, H W image, C channels, F features, K classes.
"""

import flax.linen as nn
import jax
from flax.typing import Initializer

from dlcore.errors import InputError
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import Conv, Dense, activation, initialiser, max_pool
from dlcore.nn.highway import Highway
from dlcore.types import Activations, Params


def _require_depth(depth: int, least: int) -> None:
    if depth < least:
        raise InputError(f"a highway network of {depth} layers is too shallow; choose {least} up")


class PlainLayer(nn.Module):
    """A dense layer with its activation.

    Attributes:
        features: F.
        activation: the name of the activation.
    """

    features: int
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, C) to (B, F)."""
        dense = Dense(self.features, kernel_init=initialiser("he_normal"))
        nn.share_scope(self, dense)
        return activation(self.activation, layer="activation")(dense(x))


class HighwayMLP(nn.Module):
    """A plain dense layer that sets the width, `depth` - 1 highway layers, and a linear output.

    On these networks the paper shows that depth stops hurting (2015a, section 3.1): 50 features per
    layer. Its plain networks, `gated=False`, have the same layers without gates and 71 features, so
    that a layer has about as many parameters, 5,112 instead of 5,100.

    The equal layers run in a loop, so that the compile time does not grow with the depth; their
    parameters are stacked: those under `layers` have a leading axis of `depth` - 1.

    Attributes:
        num_classes: K.
        depth: the number of layers before the output.
        features: F of each layer.
        gated: whether the layers after the first are highway layers; False makes them plain ones.
        activation: the name of the activation.
        transform_bias: the initial value of the biases of the transform gates; -4 suits 50 layers.
    """

    num_classes: int
    depth: int = 50
    features: int = 50
    gated: bool = True
    activation: str = "tanh"
    transform_bias: float = -4.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, ...) to logits (B, K) and the activations by name.

        `gate_i` is the transform gate T of `layer_i`, (B, F); the paper's figure 2 draws its mean
        over a data set.

        Raises:
            InputError: for a depth below 2, or an unknown activation.
        """
        _require_depth(self.depth, 2)
        he = initialiser("he_normal")
        a = {}
        x = x.reshape(x.shape[0], -1)
        act = activation(self.activation, layer="activation_0")
        a["layer_0"] = x = act(Dense(self.features, kernel_init=he, name="layer_0")(x))

        layer = (
            Highway(None, self.activation, self.transform_bias, name="layers", parent=None)
            if self.gated
            else PlainLayer(self.features, self.activation, name="layers", parent=None)
        )

        def initial(key: jax.Array) -> Params:
            keys = jax.random.split(key, self.depth - 1)
            return jax.vmap(lambda key: layer.init(key, x)["params"])(keys)

        def call(x: jax.Array, params: Params) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            y = layer.apply({"params": params}, x)
            outputs = y if self.gated else (y,)
            return outputs[0], outputs

        # The layer runs as a pure function, for within Flax's `nn.scan` its operations lose their
        # paths.
        x, outputs = jax.lax.scan(call, x, self.param("layers", initial))
        for i, values in enumerate(zip(*outputs, strict=True), start=1):
            a |= dict(zip((f"layer_{i}", f"gate_{i}"), values, strict=False))
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a


class HighwayCNN(nn.Module):
    """A plain 3x3 convolution, `depth` - 2 highway ones, and a linear output.

    Three 2x2 max pools divide the convolutions into equal parts; the last one ends them. At 28x28x1
    and 10 classes it has 38,730 parameters with 16 filters per layer and 151,178 with 32: the 39 K
    and 151 K of the two 10-layer networks of 2015b, section 3.2 and table 1. The paper does not say
    where their pools stand.

    Attributes:
        num_classes: K.
        depth: the number of layers including the output; 1 more than a multiple of 3 divides
            evenly.
        features: the number of filters of each convolution.
        gated: whether the convolutions after the first are highway layers; False makes them plain.
        width: a factor of `features`.
        activation: the name of the activation.
        transform_bias: the initial value of the biases of the transform gates.
    """

    num_classes: int
    depth: int = 10
    features: int = 32
    gated: bool = True
    width: float = 1.0
    activation: str = "relu"
    transform_bias: float = -2.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        `gate_i` is the transform gate T of `conv_i` and has its shape.

        Raises:
            InputError: for images smaller than 8x8, a depth below 4, or an unknown activation.
        """
        require_image_size("highway_cnn", x, 8)
        _require_depth(self.depth, 4)
        he: Initializer = initialiser("he_normal")
        features = scaled_channels(self.features, self.width)
        convolutions = self.depth - 1
        a = {}
        for i in range(convolutions):
            name = f"conv_{i}"
            if i and self.gated:
                layer = Highway(
                    (3, 3),
                    activation=self.activation,
                    transform_bias=self.transform_bias,
                    name=name,
                )
                x, a[f"gate_{i}"] = layer(x)
            else:
                conv = Conv(features, (3, 3), padding="same", kernel_init=he, name=name)
                x = activation(self.activation, layer=f"activation_{i}")(conv(x))
            a[name] = x
            # The three pools follow a third, two thirds and all of the convolutions, as nearly as
            # the number allows.
            before, after = (3 * n // convolutions for n in (i, i + 1))
            if after > before:
                a[f"pool_{after - 1}"] = x = max_pool(x, 2)
        a["output"] = x = Dense(self.num_classes, name="output")(x.reshape(x.shape[0], -1))
        return x, a
