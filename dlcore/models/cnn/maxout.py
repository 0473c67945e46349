"""Maxout networks (Goodfellow et al. 2013). Shapes: B batch, H W image, C channels, K classes.

The paper does not state the sizes; those here are from its authors' published configurations. Their
limit on the norm of each unit's weights is left out.
"""

import flax.linen as nn
import jax

from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import Dense, Dropout, Maxout, max_pool
from dlcore.types import Activations


class MaxoutMLP(nn.Module):
    """Two dense maxout layers and a linear output, with dropout before each of the three.

    This is the network of section 5.1 for permutation-invariant MNIST, with 0.94 % error there.

    Attributes:
        num_classes: K.
        features: the number of units of a hidden layer.
        pieces: the number of affine functions per unit.
        width: a factor of `features`.
        input_dropout: the share of input values that is dropped in training.
        dropout: the share of hidden values that is dropped in training.
    """

    num_classes: int
    features: int = 240
    pieces: int = 5
    width: float = 1.0
    input_dropout: float = 0.2
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, ...) to logits (B, K) and the activations by name.

        Raises:
            InputError: for a dropout rate outside [0, 1].
        """
        features = scaled_channels(self.features, self.width)
        a = {}
        x = Dropout(self.input_dropout)(x.reshape(x.shape[0], -1), train)
        for name in ("maxout_0", "maxout_1"):
            a[name] = x = Maxout(features, self.pieces, name=name)(x)
            x = Dropout(self.dropout)(x, train)
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a


class MaxoutCNN(nn.Module):
    """Three convolutional maxout layers with max pools, a dense maxout layer, a linear output.

    This is the network of section 5.2 for CIFAR-10, with dropout before each layer and 11.68 %
    error there without augmentation. Convolutions are padded to keep every size and pools to halve
    it, so that the network takes 8x8 images as well as 32x32; the published paddings differ by up
    to a pixel.

    Attributes:
        num_classes: K.
        width: a factor of all numbers of units.
        input_dropout: the share of input values that is dropped in training.
        dropout: the share of hidden values that is dropped in training.
    """

    num_classes: int
    width: float = 1.0
    input_dropout: float = 0.2
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 8x8, or a dropout rate outside [0, 1].
        """
        require_image_size("maxout_cnn", x, 8)
        a = {}
        x = Dropout(self.input_dropout)(x, train)
        # Each layer: the number of units, their window, the window of the pool.
        layers = ((96, 8, 4), (192, 8, 4), (192, 5, 2))
        for i, (features, window, pool) in enumerate(layers):
            units = Maxout(
                scaled_channels(features, self.width),
                pieces=2,
                kernel_size=(window, window),
                padding="same",
                name=f"conv_{i}",
            )
            a[f"conv_{i}"] = x = units(x)
            a[f"pool_{i}"] = x = max_pool(x, pool, stride=2, padding="same")
            x = Dropout(self.dropout)(x, train)
        dense = Maxout(scaled_channels(500, self.width), pieces=5, name="dense")
        a["dense"] = x = dense(x.reshape(x.shape[0], -1))
        x = Dropout(self.dropout)(x, train)
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a
