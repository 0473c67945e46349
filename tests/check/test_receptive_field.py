"""Receptive fields: closed form = graph = gradient, on chains, dilation, pools and branches."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.check.receptive_field import (
    expected_boxes,
    measured_receptive_field,
    receptive_field,
)
from dlcore.errors import InputError
from dlcore.plan.walk import walk


class Net(nn.Module):
    """A model of one activation, made of a function."""

    body: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x):
        y = self.body(x)
        return y, {"y": y}


def conv(size, stride=1, dilation=1, padding="VALID"):
    return nn.Conv(3, (size, size), strides=stride, kernel_dilation=dilation, padding=padding)


def chain(*windows: tuple[str, int, int, int]):
    """A function that applies (kind, size, stride, dilation) windows one after another."""

    def body(x):
        for kind, size, stride, dilation in windows:
            if kind == "conv":
                x = nn.relu(conv(size, stride, dilation)(x))
            else:
                pool = nn.max_pool if kind == "max" else nn.avg_pool
                x = pool(x, (size, size), strides=(stride, stride))
        return x

    return body


def residual(x):
    x = conv(3, padding="SAME")(x)
    return x + conv(3, padding="SAME")(nn.relu(conv(3, padding="SAME")(x)))


def option_a(x):
    shortcut = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, 1)))
    return conv(5, 2, padding=(2, 2))(x) + shortcut


def inception(x):
    branches = [conv(1)(x), conv(5, padding="SAME")(x), nn.avg_pool(x, (3, 3), padding="SAME")]
    return jnp.concatenate(branches, axis=-1)


def even_kernels(x):
    return conv(4, padding=((3, 0), (0, 3)))(conv(2, padding=((0, 1), (1, 0)))(x))


def squeeze_and_excite(x):
    x = conv(3)(x)
    return x * nn.sigmoid(nn.Dense(3)(x.mean((1, 2), keepdims=True)))


def pool_by_reshape(x):
    b, h, w, c = x.shape
    return conv(3)(x.reshape(b, h // 2, 2, w // 4, 4, c).max(axis=(2, 4)))


def shifted(x):
    return x[:, 3:-2, ::3] + jnp.flip(jnp.roll(x, 0, 1)[:, 3:-2], 1)[:, :, 1::3]


def dilated_pool(x):
    window, strides, dilation = (1, 3, 2, 1), (1, 2, 1, 1), (1, 2, 3, 1)
    return jax.lax.reduce_window(
        conv(2)(x), 0.0, jax.lax.add, window, strides, "VALID", window_dilation=dilation
    )


def padded_then_joined(x):
    """Places beside places: the units of the second part lie 2 further than their pixels."""
    x = jnp.pad(x, ((0, 0), (3, 1), (0, 0), (0, 0)))
    return conv(3)(jnp.concatenate([x[:, :, :2], x], axis=2))


def two_dense(x):
    return nn.Dense(3)(nn.relu(nn.Dense(8)(conv(3)(x).reshape(x.shape[0], -1))))


def image(height=16, width=16):
    return jax.ShapeDtypeStruct((1, height, width, 2), jnp.float32)


def build(body, inputs) -> tuple[Any, Any]:
    model = Net(body)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros(inputs.shape))
    return model.apply, variables


@pytest.mark.parametrize(
    "sizes, strides, dilations, expected",
    [
        ([3, 3], [1, 1], None, 5),
        ([5, 2, 5, 2, 5], [1, 2, 1, 2, 1], None, 32),  # LeNet-5
        ([11, 3, 5, 3, 3, 3, 3, 3], [4, 2, 1, 2, 1, 1, 1, 2], None, 195),  # AlexNet
        ([3, 3, 2, 3, 3, 2] + [3, 3, 3, 2] * 3, [1, 1, 2, 1, 1, 2] + [1, 1, 1, 2] * 3, None, 212),
        ([3, 3, 3], [1, 1, 1], [1, 2, 4], 15),
        ([2], [7], None, 2),
        ([], [], None, 1),
    ],
)
def test_closed_form(sizes, strides, dilations, expected):
    assert receptive_field(sizes, strides=strides, dilations=dilations) == expected


def test_closed_form_wants_sequences_of_one_length():
    with pytest.raises(ValueError):
        receptive_field([3, 3], strides=[1])


CHAINS = [
    [("conv", 3, 1, 1), ("conv", 3, 1, 1)],
    [("conv", 3, 2, 1), ("conv", 3, 1, 1), ("max", 2, 2, 1)],
    [("conv", 3, 1, 2), ("average", 3, 2, 1), ("conv", 2, 1, 3)],
    [("conv", 1, 3, 1), ("conv", 2, 1, 1)],
    [("max", 3, 2, 1), ("conv", 3, 1, 1)],
]


@pytest.mark.parametrize("windows", CHAINS)
def test_graph_equals_closed_form_and_gradient_on_chains(windows):
    inputs = image(20, 20)
    apply, variables = build(chain(*windows), inputs)
    _, (_, activations) = walk(apply, variables, inputs)
    _, sizes, strides, dilations = zip(*windows, strict=True)
    expected = receptive_field(sizes, strides=strides, dilations=dilations)
    for field in activations["y"]:
        assert (field.start, field.size, field.stride) == (0, expected, np.prod(strides))
    box = measured_receptive_field(
        apply, variables, (20, 20, 2), activation="y", key=jax.random.key(1)
    )
    assert box == expected_boxes(apply, variables, inputs)["y"]
    assert [end - start for start, end in box] == [expected, expected]


@pytest.mark.parametrize(
    "body, size, stride",
    [
        (residual, (7, 7), (1, 1)),
        (option_a, (5, 5), (2, 2)),
        (inception, (5, 5), (1, 1)),
        (even_kernels, (5, 5), (1, 1)),
        (squeeze_and_excite, (16, 16), (0, 0)),
        (pool_by_reshape, (6, 12), (2, 4)),
        (dilated_pool, (6, 5), (2, 1)),
        (two_dense, (16, 16), (0, 0)),
        (lambda x: jnp.swapaxes(conv(3)(x), 1, 2), (3, 3), (1, 1)),
        (lambda x: jnp.einsum("bhwc,cd->bwhd", conv(3, 2)(x), jnp.ones((3, 4))), (3, 3), (2, 2)),
    ],
)
def test_graph_against_gradient_on_branches(body, size, stride):
    inputs = image()
    apply, variables = build(body, inputs)
    _, (_, activations) = walk(apply, variables, inputs)
    assert tuple(field.size for field in activations["y"]) == size
    assert tuple(field.stride for field in activations["y"]) == stride
    expected = expected_boxes(apply, variables, inputs)["y"]
    box = measured_receptive_field(
        apply, variables, inputs.shape[1:], activation="y", key=jax.random.key(1)
    )
    assert box == expected


@pytest.mark.parametrize(
    "body",
    [
        residual,
        pytest.param(option_a, marks=pytest.mark.slow),
        even_kernels,
        pytest.param(inception, marks=pytest.mark.slow),
        shifted,
        pytest.param(dilated_pool, marks=pytest.mark.slow),
        padded_then_joined,
    ],
)
def test_every_unit_lies_in_its_field(body):
    """Not the central unit alone: the start offset and the padding hold at each place."""
    inputs = image(13, 17)
    apply, variables = build(body, inputs)
    _, (_, activations) = walk(apply, variables, inputs)
    values = jax.random.normal(jax.random.key(2), inputs.shape)
    jacobian = jax.jit(jax.jacrev(lambda x: apply(variables, x)[0].sum(-1)))(values)
    depends = np.abs(jacobian[0, :, :, 0]).sum(-1) > 0  # (out H, out W, in H, in W)
    assert depends[2:-2, 2:-2].any((2, 3)).all()
    for i, j in np.ndindex(depends.shape[:2]):
        rows, columns = np.nonzero(depends[i, j])
        for field, positions in zip(activations["y"], (rows, columns), strict=True):
            start, end = field.interval((0, i, j, 0))
            assert np.all((positions >= start) & (positions < end))


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_the_walk_descends_into_calls(wrap):
    apply, variables = build(residual, image())
    assert walk(wrap(apply), variables, image()) == walk(apply, variables, image())


def test_padding_and_concatenation_shift_the_field():
    apply, variables = build(padded_then_joined, image())
    _, (_, activations) = walk(apply, variables, image())
    rows, columns = (field.interval((0, 5, 5, 0)) for field in activations["y"])
    assert rows == (5 - 3, 5 - 3 + 3) and columns == (5 - 2, 5 + 3)


def test_an_operation_without_a_rule_sees_the_whole_image():
    apply, variables = build(lambda x: jnp.cumsum(x, 1), image())
    assert expected_boxes(apply, variables, image())["y"] == ((0, 16), (0, 16))


def test_padding_moves_the_start():
    apply, variables = build(conv(5, 2, padding=(2, 2)), image())
    _, (_, activations) = walk(apply, variables, image())
    assert activations["y"][0].interval((0, 0, 0, 0)) == (-2, 3)
    assert activations["y"][1].interval((0, 0, 3, 0)) == (4, 9)
    assert expected_boxes(apply, variables, image())["y"] == ((6, 11), (6, 11))


def test_a_scan_sees_everything_and_a_constant_nothing():
    def model(variables, x):
        swept, _ = jax.lax.scan(lambda c, row: (c + row, None), x[:, 0], jnp.swapaxes(x, 0, 1))
        return x, {"scan": swept, "constant": variables["w"]}

    variables = {"w": jnp.ones((1, 4, 4, 1))}
    boxes = expected_boxes(model, variables, image())
    assert boxes == {"scan": ((0, 16), (0, 16))}


def test_one_axis_and_three_axes():
    for rank in (1, 3):
        body = partial(lambda x, rank: nn.Conv(2, (3,) * rank, strides=2)(x), rank=rank)
        inputs = jax.ShapeDtypeStruct((1, *[8] * rank, 2), jnp.float32)
        apply, variables = build(body, inputs)
        box = measured_receptive_field(
            apply, variables, inputs.shape[1:], activation="y", key=jax.random.key(0)
        )
        assert box == expected_boxes(apply, variables, inputs)["y"] == ((4, 7),) * rank


def test_unknown_activation_is_an_input_error():
    apply, variables = build(residual, image())
    with pytest.raises(InputError, match="unknown activation 'z'; choose one of: y"):
        measured_receptive_field(
            apply, variables, (16, 16, 2), activation="z", key=jax.random.key(0)
        )
