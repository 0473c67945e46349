"""The layer table against hand-counted numbers, and the compiler's cost."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.check.layers import Row, layer_table, render, totals
from dlcore.check.receptive_field import expected_boxes, measured_receptive_field
from dlcore.models import image_model
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.nn.recurrent.scan import scan
from dlcore.paths import leaves_by_path
from dlcore.plan.cost import compiled_cost
from dlcore.plan.walk import walk


class Block(nn.Module):
    def setup(self):
        self.conv = nn.Conv(6, (3, 3), feature_group_count=2)
        self.norm = nn.BatchNorm(use_running_average=True)

    def branch(self, x):
        return nn.relu(self.norm(self.conv(x)))

    def __call__(self, x):
        return x + self.branch(x)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (5, 5), padding="VALID", name="stem")(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        block = Block(name="block")
        x = block(block(x))
        x = nn.remat(Block)(name="again")(x)
        x = nn.Dense(10, name="head")(x.reshape(x.shape[0], -1))
        nn.Dense(3, name="unused")(x)
        return x, {}


def table(model, *shape) -> tuple[list[Row], dict]:
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), inputs)
    return layer_table(model.apply, variables, inputs), variables


def test_rows_by_hand():
    rows, variables = table(Net(), 1, 12, 12, 3)
    conv_adds = 4 * 4 * 6 * 9 * 3  # the second 3: six channels in two groups
    conv, norm = 9 * 3 * 6 + 6, 12
    seen = [(r.path, r.operation, r.parameters, r.multiply_adds, r.receptive_field) for r in rows]
    assert seen == [
        ("stem", "convolution", 75 * 6 + 6, 8 * 8 * 6 * 75, (5, 5)),
        ("", "max pool", 0, 0, (6, 6)),
        ("block/conv", "convolution", conv, conv_adds, (10, 10)),
        ("block/norm", "element-wise", norm, 0, (10, 10)),
        ("block/conv", "convolution", 0, conv_adds, (14, 14)),
        ("again/conv", "convolution", conv, conv_adds, (18, 18)),
        ("again/norm", "element-wise", norm, 0, (18, 18)),
        ("", "flatten", 0, 0, (12, 12)),
        ("head", "matrix product", 970, 960, (12, 12)),
        ("unused", "unused", 33, 0, ()),
    ]
    assert [r.shape for r in rows[:2]] == [(1, 8, 8, 6), (1, 4, 4, 6)]
    assert [r.stride for r in rows[:3]] == [(1, 1), (2, 2), (2, 2)]
    assert rows[0].bytes == 8 * 8 * 6 * 4
    leaves = leaves_by_path(variables["params"]).values()
    assert totals(rows)[0] == sum(leaf.size for leaf in leaves)


def test_multiply_adds_scale_with_the_batch():
    one, four = (totals(table(Net(), b, 12, 12, 3)[0]) for b in (1, 4))
    assert (one[0], 4 * one[1], 4 * one[2]) == four


@pytest.mark.parametrize(
    "name, shape, parameters, multiply_adds",
    [
        # 28^2 6 25 + 10^2 16 150 + 400 120 + 120 84 + 84 10
        ("lenet5", (1, 32, 32, 1), 61_706, 416_520),
        ("lenet5_paper", (1, 32, 32, 1), 60_000, 416_520),
        # 2 * 16 * 144 * 32^2 ...: He et al. 2015 give 0.27M parameters, 40.6M multiply-adds
        ("resnet20", (1, 32, 32, 3), 269_722, 40_551_040),
    ],
)
def test_architectures(name, shape, parameters, multiply_adds):
    rows, variables = table(image_model(name, num_classes=10), *shape)
    assert totals(rows)[:2] == (parameters, multiply_adds)
    assert not [row for row in rows if row.operation == "unused"]
    leaves = leaves_by_path(variables["params"]).values()
    assert totals(rows)[0] == sum(leaf.size for leaf in leaves)


def test_lenet_receptive_fields_are_the_papers():
    rows, _ = table(image_model("lenet5_paper", num_classes=10), 1, 32, 32, 1)
    fields = {row.path: (row.receptive_field[0], row.stride[0]) for row in rows}
    expected = {"c1": (5, 1), "s2": (6, 2), "c3": (14, 2), "s4": (16, 4), "c5": (32, 4)}
    assert {path: fields[path] for path in expected} == expected


@pytest.mark.parametrize(
    "name, size, activation",
    [
        ("lenet5", 32, "c3"),
        pytest.param("lenet5_paper", 32, "s4", marks=pytest.mark.slow),
        pytest.param("resnet20", 32, "stage_1_block_0", marks=pytest.mark.slow),
    ],
)
def test_architectures_by_gradient(name, size, activation):
    model = image_model(name, num_classes=10)
    image = jnp.zeros((1, size, size, 1))
    variables = jax.jit(model.init)(jax.random.key(0), image)
    box = measured_receptive_field(
        model.apply, variables, image.shape[1:], activation=activation, key=jax.random.key(1)
    )
    assert box == expected_boxes(model.apply, variables, image)[activation]


def test_the_text_is_aligned():
    rows, _ = table(Net(), 1, 12, 12, 3)
    lines = render(rows).splitlines()
    assert lines[0].split()[:2] == ["layer", "operation"] and lines[-1].startswith("total")
    column = lines[0].index("multiply-adds") + len("multiply-adds")
    assert lines[2][:column].endswith("28,800") and lines[3][:column].endswith(" -")
    assert "1x8x8x6" in lines[2] and lines[2].endswith("1x1")


def test_loops_count_their_rounds_and_branches_their_costliest():
    w = jnp.ones((3, 3))

    def model(variables, x):
        x, _ = jax.lax.scan(lambda c, _: (c @ variables["w"], None), x, length=5)
        return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x)

    operations, fields = walk(model, {"w": w}, jnp.ones((2, 3)))
    assert sum(operation.multiply_adds for operation in operations) == (5 + 2) * 2 * 3 * 3
    assert fields == ()  # an input without spatial axes has no fields, but is not None either


class Reader(nn.Module):
    """Embeds tokens, reads them with an LSTM and looks back by an einsum."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 6, name="embedding")(tokens)
        x = Recurrence(name="lstm")(x)
        return nn.Dense(3, name="head")(jnp.einsum("btd,bd->bt", x, x[:, -1])), {}


class Recurrence(nn.Module):
    @nn.compact
    def __call__(self, x):
        cell = LSTM(8)
        params = {
            name: self.param(name, lambda key, name=name: cell.init(key, 6)[name])
            for name in cell.init(jax.random.key(0), 6)
        }
        prepared = cell.prepare(params, {}, x.swapaxes(0, 1), None, False)
        return scan(cell, params, cell.initial_carry(len(x)), prepared)[1].swapaxes(0, 1)


def test_a_recurrent_model_by_hand():
    """The scan runs behind a custom derivative; its product counts once for each of the 7 steps."""
    inputs = jax.ShapeDtypeStruct((2, 7), jnp.int32)
    variables = jax.eval_shape(lambda x: Reader().init(jax.random.key(0), x), inputs)
    rows = layer_table(Reader().apply, variables, inputs)
    seen = [(r.path, r.operation, r.shape, r.parameters, r.multiply_adds) for r in rows]
    assert seen == [
        ("embedding", "lookup", (2, 7, 6), 66, 0),
        ("lstm", "matrix product", (7, 2, 32), 6 * 32 + 8 * 32 + 32, 7 * 2 * 6 * 32),
        ("lstm", "matrix product", (2, 7, 8), 0, 7 * 2 * 8 * 32),
        ("", "matrix product", (2, 7), 0, 2 * 7 * 8),
        ("head", "matrix product", (2, 3), 24, 2 * 7 * 3),
    ]
    assert all(row.receptive_field == () for row in rows)


def test_the_compiled_cost_counts_each_round_of_a_loop():
    w, x = jnp.ones((48, 48)), jnp.ones((16, 48))

    def looped(w, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=200)[0]

    assert compiled_cost(looped, w, x).flops == pytest.approx(200 * 2 * 16 * 48 * 48, rel=0.02)
    gradient = compiled_cost(jax.grad(lambda w: looped(w, x).sum()), w).flops
    assert gradient == pytest.approx(3 * 200 * 2 * 16 * 48 * 48, rel=0.03)


def test_dead_code_is_not_counted():
    def model(variables, x):
        _ = x @ variables["w"]
        return x

    assert walk(model, {"w": jnp.ones((3, 3))}, jnp.ones((2, 3)))[0] == []


def test_the_compiler_agrees_on_flops():
    a, b = jnp.ones((64, 48)), jnp.ones((48, 32))
    cost = compiled_cost(jnp.dot, a, b)
    assert cost.flops == pytest.approx(2 * 64 * 48 * 32, rel=0.01)
    assert cost.argument_bytes == a.nbytes + b.nbytes and cost.output_bytes == 64 * 32 * 4
    assert cost.peak_bytes >= cost.argument_bytes
    assert compiled_cost(jax.jit(jnp.dot), a, b) == cost


def test_the_table_agrees_with_the_compiler_on_a_model():
    """Two floating-point operations per multiply-add, and little beside them."""
    rows, variables = table(image_model("lenet5", num_classes=10), 1, 32, 32, 1)
    values = jax.tree.map(lambda s: jnp.asarray(np.zeros(s.shape, s.dtype)), variables)
    apply = image_model("lenet5", num_classes=10).apply
    cost = compiled_cost(apply, values, jnp.zeros((1, 32, 32, 1)))
    assert cost.flops == pytest.approx(2 * totals(rows)[1], rel=0.05)
