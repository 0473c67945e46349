"""Densely connected networks (Huang et al. 2016, Densely connected convolutional networks).

Shapes: B batch, H W image, C channels, K classes; k the growth.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.models.cnn.residual import Unit, convolution
from dlcore.models.image_size import require_image_size
from dlcore.nn import BatchNorm, Dense, Dropout, average_pool, max_pool
from dlcore.nn.remat import remat_module
from dlcore.types import Activations

# The layers of each dense block of the networks for ImageNet (table 1).
BLOCKS = {
    121: (6, 12, 24, 16),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


class DenseLayer(nn.Module):
    """A layer of a dense block, which makes k new maps from all maps so far: BN-ReLU-conv 3x3.

    Attributes:
        growth: k.
        bottleneck: whether a BN-ReLU-conv 1x1 to 4k maps comes before it (DenseNet-B).
        dropout: the dropout rate after each convolution.
    """

    growth: int
    bottleneck: bool
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, k)."""
        convolutions = [(4 * self.growth, 1)] * self.bottleneck + [(self.growth, 3)]
        for i, (features, window) in enumerate(convolutions):
            x = nn.relu(BatchNorm(name=f"norm_{i}")(x, train))
            x = Dropout(self.dropout)(convolution(Unit(features, window), f"conv_{i}")(x), train)
        return x


class Transition(nn.Module):
    """A BN-ReLU-conv 1x1 and a 2x2 average pool between two dense blocks.

    Attributes:
        features: the number of filters of the convolution.
        dropout: the dropout rate after the convolution.
    """

    features: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, H // 2, W // 2, features)."""
        x = nn.relu(BatchNorm(name="norm")(x, train))
        x = Dropout(self.dropout)(convolution(Unit(self.features, 1), "conv")(x), train)
        return average_pool(x, 2)


class DenseTrunk(nn.Module):
    """Dense blocks with transitions between them, then BN-ReLU, the global mean and the classifier.

    A layer of a block sees the maps of all layers before it: from C maps L layers make C + L k
    maps. A transition keeps the share `compression` of them. The trunk's parameters are directly
    those of the network.

    Attributes:
        num_classes: K.
        layers: the number of layers of each dense block.
        growth: k.
        bottleneck: see `DenseLayer`.
        compression: the share of maps that a transition keeps, in (0, 1].
        dropout: the dropout rate after each convolution of layers and transitions.
        remat: the inner values of layers that the backward pass computes again, see
            `dlcore.nn.remat`; in a block of L layers there are on the order of L^2 such maps
            (Pleiss et al. 2017).
    """

    num_classes: int
    layers: tuple[int, ...]
    growth: int
    bottleneck: bool
    compression: float
    dropout: float
    remat: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for a compression outside (0, 1].
        """
        if not 0 < self.compression <= 1:
            raise errors.InputError(
                f"compression {self.compression} is not the share of maps that a transition keeps; "
                "choose it in (0, 1]"
            )

        def new_maps(layer: DenseLayer, x: jax.Array) -> jax.Array:
            return layer(x, train)

        new_maps = remat_module(new_maps, self.remat)
        a = {}
        for block, count in enumerate(self.layers):
            if block:
                name = f"transition_{block - 1}"
                features = int(x.shape[-1] * self.compression)
                a[name] = x = Transition(features, self.dropout, name=name)(x, train)
            for i in range(count):
                name = f"block_{block}_layer_{i}"
                layer = DenseLayer(self.growth, self.bottleneck, self.dropout, name=name)
                a[name] = new = new_maps(layer, x)
                x = jnp.concatenate([x, new], axis=-1)
            a[f"block_{block}"] = x
        a["final"] = x = nn.relu(BatchNorm(name="final_norm")(x, train))
        a["pool"] = x = x.mean((1, 2))
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a


class DenseNet(nn.Module):
    """A strided 7x7 convolution, a max pool and four dense blocks, for ImageNet (table 1).

    It has 7,978,856 parameters with 121 layers, at 1000 classes and 3 channels.

    Attributes:
        num_classes: K.
        depth: 121, 169, 201 or 264.
        growth: k.
        bottleneck: whether each layer is BN-ReLU-conv 1x1 and BN-ReLU-conv 3x3.
        compression: the share of maps that a transition keeps, in (0, 1].
        dropout: the dropout rate after each convolution of layers and transitions.
        remat: the inner values of layers that the backward pass computes again, see
            `dlcore.nn.remat`.
        layers: the number of layers of each dense block; by default those of the depth.
    """

    num_classes: int
    depth: int = 121
    growth: int = 32
    bottleneck: bool = True
    compression: float = 0.5
    dropout: float = 0.0
    remat: str = "none"
    layers: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images too small for the transitions, which is smaller than 29x29 with
                four blocks; for an unknown depth or a compression outside (0, 1].
        """
        layers = self.layers
        if layers is None:
            if self.depth not in BLOCKS:
                raise errors.choose("depth", str(self.depth), BLOCKS)
            layers = BLOCKS[self.depth]
        # The stem rounds up twice, each transition down.
        require_image_size(f"densenet{self.depth}", x, 4 * (2 ** (len(layers) - 1) - 1) + 1)
        a = {}
        x = convolution(Unit(2 * self.growth, 7, 2), "stem")(x)
        a["stem"] = x = nn.relu(BatchNorm(name="stem_norm")(x, train))
        a["stem_pool"] = x = max_pool(x, 3, stride=2, padding=((1, 1), (1, 1)))
        trunk = _trunk(self, layers)
        nn.share_scope(self, trunk)
        logits, rest = trunk(x, train)
        return logits, a | rest


class SmallDenseNet(nn.Module):
    """A 3x3 convolution and three equal dense blocks, for small images (section 4.2).

    It has 1,019,722 parameters with 40 layers, at ten classes and 3 channels.

    Attributes:
        num_classes: K.
        depth: 3n + 4, with bottlenecks 6n + 4: 40, 100, 190 or 250 in the paper.
        growth: k: 12, 24 or 40 in the paper.
        bottleneck: whether each layer is BN-ReLU-conv 1x1 and BN-ReLU-conv 3x3.
        compression: the share of maps that a transition keeps, in (0, 1]; DenseNet-BC has 0.5.
        dropout: the dropout rate after each convolution of layers and transitions; 0.2 in the paper
            where the images are not augmented.
        remat: the inner values of layers that the backward pass computes again, see
            `dlcore.nn.remat`.
    """

    num_classes: int
    depth: int = 40
    growth: int = 12
    bottleneck: bool = False
    compression: float = 1.0
    dropout: float = 0.0
    remat: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 4x4, which are too small for two transitions; for a
                depth that does not fit, or a compression outside (0, 1].
        """
        require_image_size(f"densenet{self.depth}", x, 4)
        step = 6 if self.bottleneck else 3
        count, rest = divmod(self.depth - 4, step)
        if rest or count < 1:
            raise errors.InputError(
                f"depth {self.depth} is not {step}n + 4 with n >= 1; try 40 or 100"
            )
        a = {}
        # DenseNet-BC starts with 2k maps.
        bc = self.bottleneck and self.compression < 1
        a["stem"] = x = convolution(Unit(2 * self.growth if bc else 16, 3), "stem")(x)
        trunk = _trunk(self, (count,) * 3)
        nn.share_scope(self, trunk)
        logits, others = trunk(x, train)
        return logits, a | others


def _trunk(net: DenseNet | SmallDenseNet, layers: tuple[int, ...]) -> DenseTrunk:
    return DenseTrunk(
        net.num_classes,
        layers,
        net.growth,
        net.bottleneck,
        net.compression,
        net.dropout,
        net.remat,
    )
