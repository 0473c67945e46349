"""LeNet-5, in the paper's form and in today's.

The paper is LeCun et al. 1998, Gradient-based learning applied to document recognition, section
II.B. Shapes: B batch, H W image, C channels, K classes.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer

from dlcore.models.cnn.digit_codes import output_codes
from dlcore.models.image_size import require_image_size
from dlcore.nn import Conv, Dense, average_pool, max_pool
from dlcore.nn.activations import scaled_tanh
from dlcore.types import Activations

# Table I of the paper: the maps of S2 (0 to 5) that each of the 16 maps of C3 sees.
C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def paper_uniform(fan_in: int | np.ndarray) -> Initializer:
    """Returns the paper's initialiser: uniform in +-2.4 / fan in (appendix A)."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        bound = jnp.broadcast_to(jnp.asarray(2.4 / fan_in, dtype), shape)
        return jax.random.uniform(key, shape, dtype, -1, 1) * bound

    return draw


class TrainableSubsampling(nn.Module):
    """A layer that sums 2x2 inputs, times a coefficient, plus a bias: two parameters per map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H // 2, W // 2, C)."""
        maps = x.shape[-1]
        coefficient = self.param("coefficient", paper_uniform(4), (maps,))
        bias = self.param("bias", nn.initializers.zeros_init(), (maps,))
        total = 4 * average_pool(x, 2)
        return total * coefficient.reshape(1, 1, 1, maps) + bias.reshape(1, 1, 1, maps)


class PartialConv(nn.Module):
    """A convolution whose every map sees only some of the input maps (C3, Table I).

    Parameters: `kernel` (F, F, N), one kernel for each of the N connections, and `bias` (K,).

    Attributes:
        inputs: the input maps that each of the K output maps sees.
        window: F.
    """

    inputs: tuple[tuple[int, ...], ...]
    window: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H - F + 1, W - F + 1, K)."""
        sources = np.concatenate(self.inputs)
        targets = np.repeat(np.arange(len(self.inputs)), [len(i) for i in self.inputs])
        fan_in = self.window**2 * np.bincount(targets)[targets]
        shape = (self.window, self.window, len(sources))
        kernel = self.param("kernel", paper_uniform(fan_in.reshape(1, 1, -1)), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (len(self.inputs),))
        full = jnp.zeros((*shape[:2], x.shape[-1], len(self.inputs)), kernel.dtype)
        full = full.at[:, :, sources, targets].set(kernel)
        y = jax.lax.conv_general_dilated(
            x, full, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias.reshape(1, 1, 1, -1)


class LeNet5(nn.Module):
    """The paper's LeNet-5: 60,000 parameters at 10 classes and one channel.

    Its subsampling is trainable, C3 is connected in part, every layer up to F6 goes through the
    scaled tanh, and each output unit measures the squared distance y_i of F6 to a fixed code of
    +-1, the picture of its digit (`digit_codes.output_codes`), so the output has no parameters.
    The logits are -y_i: their softmax cross-entropy is the paper's discriminative criterion (eq. 9)
    without its constant.

    Attributes:
        num_classes: K; unless K is ten the codes are drawn at random from a fixed seed.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by the paper's names.

        Raises:
            InputError: for images smaller than 32x32.
        """
        require_image_size("lenet5_paper", x, 32)
        a = {}

        def conv(features: int, fan_in: int, name: str) -> Conv:
            return Conv(features, (5, 5), kernel_init=paper_uniform(fan_in), name=name)

        a["c1"] = x = scaled_tanh(conv(6, 25 * x.shape[-1], "c1")(x))
        a["s2"] = x = scaled_tanh(TrainableSubsampling(name="s2")(x))
        a["c3"] = x = scaled_tanh(PartialConv(C3_INPUTS, 5, name="c3")(x))
        a["s4"] = x = scaled_tanh(TrainableSubsampling(name="s4")(x))
        a["c5"] = x = scaled_tanh(conv(120, 25 * 16, "c5")(x))
        x = x.reshape(x.shape[0], -1)
        f6 = Dense(84, kernel_init=paper_uniform(x.shape[-1]), name="f6")
        a["f6"] = x = scaled_tanh(f6(x))
        codes = jnp.asarray(output_codes(self.num_classes), x.dtype)
        # |x - w|^2 multiplied out: one small matrix product instead of a (B, K, 84) array.
        squares = jnp.sum(x * x, -1, keepdims=True)
        a["output"] = x = 2 * x @ codes.T - (squares + codes.shape[-1])
        return x, a


class LeNet5Modern(nn.Module):
    """LeNet-5 as it is trained today: ReLU, max pooling, full connections and softmax.

    It has 61,706 parameters at 10 classes and 32x32x1.

    Attributes:
        num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by the paper's names.

        Raises:
            InputError: for images smaller than 16x16.
        """
        require_image_size("lenet5", x, 16)
        a = {}
        a["c1"] = x = nn.relu(Conv(6, (5, 5), name="c1")(x))
        a["s2"] = x = max_pool(x, 2)
        a["c3"] = x = nn.relu(Conv(16, (5, 5), name="c3")(x))
        a["s4"] = x = max_pool(x, 2)
        a["c5"] = x = nn.relu(Dense(120, name="c5")(x.reshape(x.shape[0], math.prod(x.shape[1:]))))
        a["f6"] = x = nn.relu(Dense(84, name="f6")(x))
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a
