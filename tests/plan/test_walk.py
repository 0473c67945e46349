"""The walk over a step on devices, with loops and repeated operations, and its memory."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from dlcore.plan import compiled_cost
from dlcore.plan.step import step_flops
from dlcore.plan.walk import operations

P = PartitionSpec
ROWS, WIDTH, LAYERS = 16, 8, 3
W = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)
X = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)


def make_mesh():
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def scanned(w, x):
    def layer(x, w):
        return jnp.tanh(x @ w), None

    return jax.lax.scan(layer, x, w)[0]


def on_mesh(function, *, axes, spec):
    mapped = functools.partial(
        jax.shard_map,
        mesh=make_mesh(),
        in_specs=(P(), spec),
        out_specs=spec,
        axis_names=axes,
        check_vma=False,
    )
    return mapped(function)


def products(function, *args):
    return [
        operation
        for operation in operations(function, *args)
        if operation.primitive == "dot_general"
    ]


FORWARD = ROWS * WIDTH * WIDTH * LAYERS


@pytest.mark.parametrize(
    "axes, spec, devices, times",
    [
        ({"data"}, P("data"), 2, 1),
        ({"data", "model"}, P(("data", "model")), 4, 1),
        # Over "model" nothing is cut: two devices compute the same, and both count.
        ({"data", "model"}, P("data"), 4, 2),
    ],
)
def test_what_the_devices_of_an_explicit_mesh_do_together(axes, spec, devices, times):
    (operation,) = products(on_mesh(scanned, axes=axes, spec=spec), W, X)
    assert (operation.devices, operation.rounds) == (devices, LAYERS)
    assert operation.multiply_adds == times * FORWARD
    assert operation.shape[0] == ROWS * times // devices  # of one device


def test_meshes_within_each_other_multiply():
    def inner(w, x):
        return jax.shard_map(
            lambda w, x: x @ w[0],
            in_specs=(P(), P(None)),
            out_specs=P(None),
            axis_names={"model"},
            check_vma=False,
        )(w, x)

    (operation,) = products(on_mesh(inner, axes={"data"}, spec=P("data")), W, X)
    assert (operation.devices, operation.multiply_adds) == (4, 2 * ROWS * WIDTH * WIDTH)


def test_pmap_too():
    def function(w, x):
        return jax.pmap(scanned, in_axes=(None, 0))(w, x)

    x = jax.ShapeDtypeStruct((4, ROWS // 4, WIDTH), jnp.float32)
    assert sum(operation.multiply_adds for operation in products(function, W, x)) == FORWARD


@pytest.mark.parametrize("scan", [True, False])
def test_what_the_backward_pass_repeats(scan):
    @functools.partial(jax.checkpoint, prevent_cse=not scan)
    def pair(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w), None

    def loss(w, x):
        if scan:
            return jnp.sum(jax.lax.scan(pair, x, w)[0])
        for i in range(LAYERS):
            x, _ = pair(x, w[i])
        return jnp.sum(x)

    gradient = jax.value_and_grad(loss, (0, 1))
    listed = products(gradient, W, X)
    assert sum(operation.multiply_adds for operation in listed if operation.again) == 2 * FORWARD
    assert (
        sum(operation.multiply_adds for operation in listed if not operation.again) == 6 * FORWARD
    )
    assert step_flops(gradient, W, X) == 12 * FORWARD


@jax.custom_vjp
def product(x, w):
    return x @ w


def both(x, w, g):
    return g @ w.T, x.T @ g


def by_case(x, w, g):
    return jax.lax.cond(x[0, 0] > 0, both, both, x, w, g)


def on_all(x, w, g):
    spec = P("data")
    sums = jax.shard_map(
        lambda x, w, g: (g @ w.T, jax.lax.psum(x.T @ g, "data")),
        mesh=make_mesh(),
        in_specs=(spec, P(), spec),
        out_specs=(spec, P()),
        axis_names={"data"},
        check_vma=False,
    )
    return sums(x, w, g)


@pytest.mark.parametrize("rule", [jax.jit(both), by_case, on_all])
def test_what_a_call_gives_and_nobody_reads_does_not_count(rule):
    """The rule of the product gives the gradient by x too."""
    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: rule(*kept, g))
    gradient = jax.value_and_grad(lambda w, x: jnp.sum(product(x, w[0])))
    assert step_flops(gradient, W, X) == 2 * (2 * ROWS * WIDTH * WIDTH)


@pytest.mark.parametrize("stride, padding, out", [(1, "SAME", 12), (1, "VALID", 8), (2, "SAME", 6)])
def test_each_gradient_of_a_convolution_costs_what_it_does(stride, padding, out):
    def loss(w, x):
        y = jax.lax.conv_general_dilated(
            x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(y**2)

    w = jax.ShapeDtypeStruct((5, 5, 3, 7), jnp.float32)
    x = jax.ShapeDtypeStruct((2, 12, 12, 3), jnp.float32)
    forward = 2 * (2 * out * out * 7) * (5 * 5 * 3)
    assert step_flops(jax.value_and_grad(loss, (0, 1)), w, x) == 3 * forward


def test_the_cost_is_of_one_device():
    """Each device of a mesh runs all rounds of the loop on its part."""
    mesh = on_mesh(scanned, axes={"data", "model"}, spec=P(("data", "model")))
    whole, part = compiled_cost(scanned, W, X), compiled_cost(mesh, W, X)
    assert whole.flops == pytest.approx(2 * FORWARD, rel=0.1)
    assert part.flops == pytest.approx(whole.flops / 4, rel=0.1)


def test_the_peak_holds_all_that_lives_together():
    """Reference: the bytes of a chain of products whose intermediate values must all stay."""

    def function(w, x):
        return jax.grad(lambda w: jnp.sum(scanned(w, x) ** 2))(w)

    cost = compiled_cost(function, W, X)
    weights, rows = 4 * LAYERS * WIDTH * WIDTH, 4 * ROWS * WIDTH
    assert cost.temporary_bytes >= LAYERS * rows
    held = weights + rows + weights + cost.temporary_bytes
    assert cost.peak_bytes == pytest.approx(held, abs=100)


def test_what_is_written_over_an_argument_counts_once():
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    assert compiled_cost(add, X).peak_bytes == 4 * ROWS * WIDTH
