"""Receptive fields of whole networks: what their windows add up to is what the gradient reaches.

A field does not depend on the width, so the networks have one channel wherever they can.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.check.receptive_field import centre, measured_receptive_field, receptive_field
from dlcore.models import (
    VGG,
    AlexNet,
    AlexNetOneTower,
    DenseNet,
    GoogLeNet,
    HighwayCNN,
    LeNet5,
    LeNet5Modern,
    MaxoutCNN,
    ResNet,
    SmallDenseNet,
    SmallResNet,
)
from dlcore.models.cnn.densenet import BLOCKS
from dlcore.models.cnn.resnet import STAGES
from dlcore.plan.walk import walk

NARROW = 1e-4
# Table 1 of VGG's paper, column by column: the filter sizes of each stage before its pool.
VGG_TABLE = {
    "A": ("3", "3", "33", "33", "33"),
    "B": ("33", "33", "33", "33", "33"),
    "C": ("33", "33", "331", "331", "331"),
    "D": ("33", "33", "333", "333", "333"),
    "E": ("33", "33", "3333", "3333", "3333"),
}


class Window(NamedTuple):
    """A layer along one axis: its window, its stride, and the padding before the first value."""

    size: int
    stride: int = 1
    before: int = 0


def conv(size, stride=1):
    return Window(size, stride, size // 2)


def pool(size, before=0):
    return Window(size, 2, before)


STEM = [conv(7, 2), pool(3, 1)]


def alexnet(before):
    one, two = [Window(11, 4, before), pool(3), conv(5), pool(3)], [conv(3)] * 3 + [pool(3)]
    return one + two


def vgg(column):
    stages = ([*(conv(int(size)) for size in sizes), pool(2)] for sizes in VGG_TABLE[column])
    return sum(stages, [])


def googlenet(widest, last_pool):
    """Through the widest branch of each module: 2, 5 and 2 of them."""
    stem = [conv(7, 2), pool(3), conv(1), conv(3), pool(3)]
    first, second, third = ([conv(1), conv(widest)] * modules for modules in (2, 5, 2))
    return [*stem, *first, pool(3), *second, pool(last_pool), *third]


def residual(stages, block):
    """Through the branches; the first block of all stages but the first halves the image."""
    strides = [[1 + (stage > 0)] + [1] * (n - 1) for stage, n in enumerate(stages)]
    return sum((block(stride) for stage in strides for stride in stage), [])


def basic(stride):
    return [conv(3, stride), conv(3)]


def bottleneck(stride):
    return [conv(1), conv(3, stride), conv(1)]


def paper_bottleneck(stride):
    return [conv(1, stride), conv(3), conv(1)]


def dense(blocks):
    """Through all layers; a 2x2 pool is between two blocks."""
    return sum(([pool(2)] * (i > 0) + [conv(3)] * count for i, count in enumerate(blocks)), [])


class Network(NamedTuple):
    """A network, the name of its last map, its windows and its field in pixels."""

    model: nn.Module
    activation: str
    windows: list[Window]
    field: int


def resnet(depth, field, version=1, stride_in="3x3"):
    # Scanned, because that compiles faster.
    model = ResNet(2, depth=depth, version=version, stride_in=stride_in, width=NARROW, scan_from=1)
    wide = bottleneck if stride_in == "3x3" else paper_bottleneck
    windows = STEM + residual(STAGES[depth], basic if depth < 50 else wide)
    last = f"stage_3_block_{STAGES[depth][3] - 1}" if version == 1 else "final"
    return Network(model, last, windows, field)


def small_resnet(depth, field, version=1):
    model = SmallResNet(2, depth=depth, version=version, width=NARROW, scan_from=1)
    blocks = (depth - 2) // 6
    last = f"stage_2_block_{blocks - 1}" if version == 1 else "final"
    return Network(model, last, [conv(3), *residual((blocks,) * 3, basic)], field)


def densenet(layers, field):
    return Network(DenseNet(2, growth=1, layers=layers), "final", STEM + dense(layers), field)


def small_densenet(depth, layers, field, **attributes):
    model = SmallDenseNet(2, depth, growth=1, **attributes)
    return Network(model, "final", [conv(3), *dense((layers,) * 3)], field)


def vgg_network(column, field):
    model = VGG(2, column, width=NARROW, hidden=1)
    return Network(model, "pool5", vgg(column), field)


BC = {"bottleneck": True, "compression": 0.5}
LENET = [Window(5), pool(2), Window(5), pool(2)]
HIGHWAY = [*[conv(3)] * 3, pool(2)] * 3
# "same" pads an even window by one more after the values than before them.
MAXOUT = [Window(8, 1, 3), pool(4, 1), Window(8, 1, 3), pool(4, 1), conv(5), pool(2)]
NETWORKS = {
    "lenet5": Network(LeNet5Modern(2), "s4", LENET, 16),
    "lenet5_paper": Network(LeNet5(10), "c5", [*LENET, Window(5)], 32),
    "highway_cnn": Network(HighwayCNN(2, features=1), "pool_2", HIGHWAY, 50),
    "maxout_cnn": Network(MaxoutCNN(2, width=NARROW), "pool_2", MAXOUT, 51),
    "alexnet": Network(AlexNet(2, width=NARROW, hidden=1), "pool5", alexnet(1), 195),
    "alexnet_one_tower": Network(
        AlexNetOneTower(2, width=NARROW, hidden=1), "pool5", alexnet(2), 195
    ),
    "vgg16": vgg_network("D", 212),
    "resnet50": resnet(50, 427),
    "resnet20": small_resnet(20, 81),
    "densenet of 10 layers": densenet((1, 2, 1, 1), 175),
    "densenet10": small_densenet(10, 2, 34),
}
SLOW = {
    "vgg11": vgg_network("A", 150),
    "vgg13": vgg_network("B", 156),
    "vgg16_c": vgg_network("C", 156),
    "vgg19": vgg_network("E", 268),
    "googlenet": Network(
        GoogLeNet(2, auxiliary=False, width=NARROW), "inception_5b", googlenet(5, 3), 715
    ),
    "googlenet of today": Network(
        GoogLeNet(2, auxiliary=False, batch_norm=True, width=NARROW),
        "inception_5b",
        googlenet(3, 2),
        379,
    ),
    **{f"resnet{depth}": resnet(depth, field) for depth, field in {18: 435, 34: 899}.items()},
    "resnet50 of the paper": resnet(50, 483, stride_in="1x1"),
    "resnet101": resnet(101, 971),
    "resnet101 of the paper": resnet(101, 1027, stride_in="1x1"),
    "resnet152": resnet(152, 1451),
    "resnet152 of the paper": resnet(152, 1507, stride_in="1x1"),
    **{
        f"resnet{depth} of version 2": resnet(depth, field, version=2)
        for depth, field in {18: 435, 34: 899, 50: 427, 101: 971, 152: 1451}.items()
    },
    **{f"resnet{d}": small_resnet(d, field) for d, field in {32: 137, 44: 193, 56: 249}.items()},
    "resnet110": small_resnet(110, 501),
    "resnet20 of version 2": small_resnet(20, 81, version=2),
    "resnet110 of version 2": small_resnet(110, 501, version=2),
    "densenet40": small_densenet(40, 12, 174),
    "densenet100": small_densenet(100, 32, 454),
    "densenet100_bc": small_densenet(100, 16, 230, **BC),
    "densenet121": densenet(BLOCKS[121], 2071),
}
ALL = [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def chain(windows):
    """The field of the windows, in pixels, and the distance of two neighbouring units."""
    sizes, strides, _ = zip(*windows, strict=True)
    return receptive_field(sizes, strides=strides), int(np.prod(strides))


def images_for(windows):
    """Images of a size that holds the central unit's field with room around it."""
    field, stride = chain(windows)
    size = (field // (2 * stride) + 2) * 2 * stride
    return jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)


def pixels(windows, unit):
    """The pixels of one axis that the unit sees: the first, and the one after the last."""
    jumps = np.cumprod([1, *(window.stride for window in windows)])
    padding = sum(w.before * jump for w, jump in zip(windows, jumps[:-1], strict=True))
    first = unit * int(jumps[-1]) - int(padding)
    return first, first + chain(windows)[0]


def at_the_ends(shape):
    """A kernel (F, F, C, K) of a half at both ends of each axis of its window, divided by K.

    So a layer keeps the sum over the channels, and after n layers the gradient of a pixel at the
    edge of the field is about 2^-n; in ResNet-110 weights all over the window would make it 3^-109,
    which is 0 in single precision. Nothing is negative: no two paths cancel, no rectifier closes.
    """
    kernel = np.full(shape, 1 / shape[-1], np.float32)
    for axis in range(2 if len(shape) > 2 else 0):
        ends = {0, shape[axis] - 1}
        taps = [(i in ends) / len(ends) for i in range(shape[axis])]
        kernel *= np.reshape(taps, (-1,) + (1,) * (len(shape) - 1 - axis))
    return kernel


def variables_of(model, images):
    """Variables with such kernels, and normalisations that change nothing."""

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            # Before these axes is that of the stacked blocks.
            return np.broadcast_to(at_the_ends(shape[-4:]), shape)
        return np.full(shape, name in ("scale", "var", "coefficient"), np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def on_ramps(model, size):
    """The model at two images, whatever it is given, with its gradient there.

    One becomes brighter downwards and to the right, the other darker: so does every map, and each
    max pool passes the gradient to the end of its window, in one image this and in one that.
    """
    ramp = (jnp.arange(size).reshape(-1, 1, 1) + jnp.arange(size).reshape(1, -1, 1)) / size
    ramps = 1 + jnp.stack([ramp, 2 - ramp])
    return lambda variables, x: model.apply(variables, x - jax.lax.stop_gradient(x) + ramps)


DEARER = NETWORKS.keys() - {"lenet5", "alexnet", "resnet20"}


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=[pytest.mark.slow] * (name in DEARER)) for name in NETWORKS),
        *ALL[len(NETWORKS) :],
    ],
)
def test_formula_and_gradient_agree(name):
    model, activation, windows, field = (NETWORKS | SLOW)[name]
    assert chain(windows)[0] == field
    images = images_for(windows)
    variables = variables_of(model, images)
    _, shapes = jax.eval_shape(model.apply, variables, images)
    first, end = pixels(windows, centre(shapes[activation].shape)[1])
    assert 0 < first and end < images.shape[1]
    box = measured_receptive_field(
        on_ramps(model, images.shape[1]),
        variables,
        images.shape[1:],
        activation=activation,
        key=jax.random.key(0),
        draws=2,
    )
    assert box == ((first, end),) * 2


@pytest.mark.parametrize("name", ALL)
def test_formula_and_graph_agree(name):
    """Nothing is computed. A loop hides the blocks from the graph, so here they are unrolled."""
    model, activation, windows, field = (NETWORKS | SLOW)[name]
    if hasattr(model, "scan_from"):
        model = model.clone(scan_from=1000)
    images = images_for(windows)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    _, (_, fields) = walk(model.apply, variables, images)
    found = [(each.size, each.stride) for each in fields[activation]]
    assert found == [chain(windows)] * 2
