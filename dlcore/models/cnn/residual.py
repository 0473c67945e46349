"""Residual blocks and stages of them, which all residual networks share.

Version 1 is He et al. 2015 (Deep residual learning for image recognition), version 2 He et al. 2016
(Identity mappings in deep residual networks). Shapes: B batch, H W image, C channels, S the stride
of a block, K its output channels, N equal blocks.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.nn import BatchNorm, Conv
from dlcore.nn.initialisers import initialiser
from dlcore.nn.remat import remat, remat_module
from dlcore.nn.stochastic_depth import StochasticDepth
from dlcore.types import PyTree

# The number of equal blocks from which on a stage is scanned. Each unrolled block adds 0.1 to 0.3 s
# to the time to compile; a scan stores 1.5 times as much for the gradient and hides from
# `dlcore.check` which pixels a block sees. So the short stages of ResNet-20 to 38 and ResNet-50 are
# unrolled.
SCAN_FROM = 6

VERSIONS = (1, 2)
SHORTCUTS = ("identity", "projection", "none")
STRIDE_PLACES = ("1x1", "3x3")


class Unit(NamedTuple):
    """A convolution of a block with its batch normalisation and ReLU."""

    features: int
    window: int
    stride: int = 1


def basic(features: int, stride: int = 1) -> tuple[Unit, ...]:
    """Returns the two 3x3 convolutions of a basic block."""
    return Unit(features, 3, stride), Unit(features, 3)


def bottleneck(features: int, stride: int = 1, *, stride_in: str = "3x3") -> tuple[Unit, ...]:
    """Returns the 1x1, 3x3 and 1x1 convolutions of a bottleneck; K = 4 features.

    Args:
        features: the filters of the first two.
        stride: S.
        stride_in: the convolution that strides: "1x1", the first one, as in the paper; or "3x3", as
            in later practice (ResNet v1.5), which costs more and skips no pixel.

    Raises:
        InputError: for any other `stride_in`.
    """
    if stride_in not in STRIDE_PLACES:
        raise errors.choose("stride_in", stride_in, STRIDE_PLACES)
    first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
    return Unit(features, 1, first), Unit(features, 3, second), Unit(4 * features, 1)


def convolution(unit: Unit, name: str, *, zero: bool = False) -> Conv:
    """Makes the unit's convolution, padded so that only the stride makes the image smaller.

    It has no bias, since the batch normalisation beside it has one.

    Args:
        unit: the filters, window and stride of the convolution.
        name: the name of the module.
        zero: whether the kernel starts at zero.
    """
    pad = unit.window // 2
    return Conv(
        unit.features,
        (unit.window, unit.window),
        stride=unit.stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        kernel_init=nn.initializers.zeros_init() if zero else initialiser("he_normal"),
        name=name,
    )


class ResidualBlock(nn.Module):
    """A residual block: a branch f of convolutions beside a shortcut h.

    Version 1 is relu(h(x) + f(x)); in f each convolution is followed by batch normalisation and,
    except for the last, ReLU. Version 2 is h(x) + f(x); in f each convolution follows a batch
    normalisation and ReLU.

    Attributes:
        units: the convolutions of f.
        version: 1 or 2.
        shortcut: h where S > 1 or K differs from C; elsewhere it is the identity. "identity" takes
            every S-th pixel and sets new channels to zero (option A), which needs K >= C;
            "projection" is a 1x1 convolution, in version 1 with batch normalisation (option B);
            "none" leaves h out everywhere, for a plain network.
        preactivation: which paths see the first normalisation and ReLU of version 2: "branch";
            "both", for the first block of a stage; "none", which leaves them out, for a block after
            a stem that has them.
        zero_init: whether f starts at zero, so that the block starts as its shortcut: the last
            scale of version 1 (Goyal et al. 2017), the last kernel of version 2, in which a scale
            of zero before a ReLU would stay there.
        survival: the probability that f survives a training step (`StochasticDepth`).
        drop: whether f is dropped for each "example" or for the whole "batch".
    """

    units: tuple[Unit, ...]
    version: int = 1
    shortcut: str = "identity"
    preactivation: str = "branch"
    zero_init: bool = False
    survival: float | jax.Array = 1.0
    drop: str = "example"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, ceil(H / S), ceil(W / S), K).

        Raises:
            InputError: for an unknown version or shortcut.
        """
        if self.version not in VERSIONS:
            raise errors.choose("version", str(self.version), VERSIONS)
        y = x
        last = len(self.units) - 1
        for i, unit in enumerate(self.units):
            if self.version == 2 and (i > 0 or self.preactivation != "none"):
                y = nn.relu(BatchNorm(name=f"norm_{i}")(y, train))
            if i == 0 and self.preactivation == "both":
                x = y
            zero = self.zero_init and i == last
            y = convolution(unit, f"conv_{i}", zero=zero and self.version == 2)(y)
            if self.version == 1:
                scale = nn.initializers.zeros_init() if zero else nn.initializers.ones_init()
                y = BatchNorm(scale_init=scale, name=f"norm_{i}")(y, train)
                y = y if i == last else nn.relu(y)
        y = StochasticDepth(self.survival, self.drop)(y, train)
        if self.shortcut != "none":
            y = y + self._shortcut(x, train)
        return nn.relu(y) if self.version == 1 else y

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        if self.shortcut not in SHORTCUTS:
            raise errors.choose("shortcut", self.shortcut, SHORTCUTS)
        features = self.units[-1].features
        stride = math.prod(unit.stride for unit in self.units)
        if stride == 1 and features == x.shape[-1]:
            return x
        if self.shortcut == "projection":
            x = convolution(Unit(features, 1, stride), "projection")(x)
            return BatchNorm(name="projection_norm")(x, train) if self.version == 1 else x
        new = features - x.shape[-1]
        return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, new)))


class Stage(nn.Module):
    """A stage of blocks one after another, which are equal except for the first.

    The variables of the N equal blocks are stacked: those under `rest` have a leading axis of N.
    Where N is at least `scan_from`, one traced block runs in a loop (`jax.lax.scan`), so that the
    compile time does not grow with the depth; fewer blocks are unrolled. Neither the variables nor
    the results depend on this.

    Attributes:
        first: makes the first block from its `name`, `parent` and `survival`.
        rest: makes each of the other blocks, which keep the shape of their input.
        survival: the survival probabilities of the 1 + N blocks.
        remat: the inner values of blocks that the backward pass computes again, see
            `dlcore.nn.remat`.
        scan_from: the N from which on the blocks are scanned.
    """

    first: Callable[..., ResidualBlock]
    rest: Callable[..., ResidualBlock]
    survival: tuple[float, ...]
    remat: str = "none"
    scan_from: int = SCAN_FROM

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> list[jax.Array]:
        """Returns the outputs of the 1 + N blocks, each (B, H', W', K), for x (B, H, W, C)."""

        def call(block: ResidualBlock, x: jax.Array) -> jax.Array:
            return block(x, train)

        first = self.first(survival=self.survival[0], name="first")
        outputs = [remat_module(call, self.remat)(first, x)]
        count = len(self.survival) - 1
        return outputs + self._rest(outputs[0], train, count) if count else outputs

    def _rest(self, x: jax.Array, train: bool, count: int) -> list[jax.Array]:
        # The blocks run as pure functions of their slice of the variables. Flax's own `nn.scan`
        # has no unrolled form with the same variables, which `dlcore.check` needs.
        scanned = count >= self.scan_from
        block = self.rest(name="rest", parent=None)
        stacked = {
            collection: self.variable(collection, "rest", self._initial, block, collection, x)
            for collection in ("params", "batch_stats")
        }
        updates = self.is_mutable_collection("batch_stats") and not self.is_initializing()
        noisy = min(self.survival[1:]) < 1
        keys = jax.random.split(self.make_rng("dropout"), count) if noisy and train else None
        survival = jnp.asarray(self.survival[1:], jnp.float32) if noisy else None

        def step(x: jax.Array, block_inputs: PyTree) -> tuple[jax.Array, PyTree]:
            variables, key, survival = block_inputs
            kept = block if survival is None else block.clone(survival=survival)
            rngs = None if key is None else {"dropout": key}
            mutable = ["batch_stats"] if updates else []
            y, new = kept.apply(variables, x, train, rngs=rngs, mutable=mutable)
            # The scan collects x, which the gradient stores anyway, and not y, which it would store
            # in addition.
            return y, (x, new)

        step = remat(step, self.remat, looped=scanned)
        xs = ({name: variable.value for name, variable in stacked.items()}, keys, survival)
        if scanned:
            last, (inputs, new) = jax.lax.scan(step, x, xs)
            outputs = [*inputs[1:], last]
        else:
            outputs, news = [], []
            for i in range(count):
                x, (_, new) = step(x, jax.tree.map(lambda leaf, i=i: leaf[i], xs))
                outputs.append(x)
                news.append(new)
            new = jax.tree.map(lambda *leaves: jnp.stack(leaves), *news)
        if updates:
            stacked["batch_stats"].value = new["batch_stats"]
        return outputs

    def _initial(self, block: ResidualBlock, collection: str, x: jax.Array) -> PyTree:
        """Draws the stacked initial variables of the equal blocks, each by its own key."""
        keys = jax.random.split(self.make_rng("params"), len(self.survival) - 1)
        return jax.vmap(lambda key: block.init(key, x)[collection])(keys)


class ResidualNetwork(Protocol):
    """The attributes that all residual networks share, see `ResNet`."""

    version: int
    zero_init: bool
    drop: str
    remat: str
    scan_from: int


def stage_of(
    net: ResidualNetwork,
    number: int,
    features: int,
    units: Callable[..., tuple[Unit, ...]],
    survival: tuple[float, ...],
    *,
    shortcut: str,
) -> Stage:
    """Returns a stage of a residual network.

    Args:
        net: the network, whose stem ends with an activation.
        number: the number of the stage; all stages except 0 halve the image.
        features: the features to pass to `units`.
        units: (features, stride) -> the convolutions of a block.
        survival: the survival probability of each block.
        shortcut: see `ResidualBlock`.
    """

    def block(stride: int, preactivation: str) -> Callable[..., ResidualBlock]:
        return functools.partial(
            ResidualBlock,
            units=units(features, stride),
            version=net.version,
            shortcut=shortcut,
            preactivation=preactivation,
            zero_init=net.zero_init,
            drop=net.drop,
        )

    return Stage(
        block(2, "both") if number else block(1, "none"),
        block(1, "branch"),
        survival=survival,
        remat=net.remat,
        scan_from=net.scan_from,
        name=f"stage_{number}",
    )
