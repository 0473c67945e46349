"""Equal blocks in a loop: the same variables and results as one after another, and remat."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.cnn.residual import ResidualBlock, Stage, basic, bottleneck
from dlcore.models.cnn.resnet import ResNet
from dlcore.models.cnn.small_resnet import SmallResNet
from dlcore.nn.stochastic_depth import survival_probabilities

X = jax.random.normal(jax.random.key(1), (3, 5, 5, 4))
CASES = {
    "version 1": (basic(4), {}, 1.0),
    "version 2": (basic(4), {"version": 2}, 0.5),
    "bottlenecks": (bottleneck(1), {"drop": "batch", "zero_init": True}, 0.7),
}


def images(size=8):
    return jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)


def step(model, variables):
    """Evaluation; a training step's loss, outputs and new statistics; its gradient."""

    @jax.jit
    def run(params, stats):
        def loss_fn(params, x):
            outputs, new = model.apply(
                {"params": params, "batch_stats": stats},
                x,
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(7)},
            )
            return (outputs[-1] ** 3).sum(), (new, outputs)

        evaluated = model.apply({"params": params, "batch_stats": stats}, X)
        return evaluated, jax.value_and_grad(loss_fn, (0, 1), has_aux=True)(params, X)

    return run(variables["params"], variables["batch_stats"])


def close(a, b, tolerance=2e-4):
    """Equal to rounding, on the scale of each array."""

    def compare(a, b):
        scale = float(np.abs(b).max()) or 1
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)

    jax.tree.map(compare, a, b)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name != "version 2")) for name in CASES],
)
def case(request):
    """An unrolled stage of three blocks, its variables and its step."""
    units, attributes, survival = CASES[request.param]
    block = functools.partial(ResidualBlock, units, **attributes)
    model = Stage(block, block, survival_probabilities(3, survival), scan_from=99)
    variables = jax.jit(model.init)(jax.random.key(0), X)
    return model, variables, step(model, variables)


def loops(model, variables, x):
    jaxpr = jax.make_jaxpr(lambda v: model.apply(v, x))(variables)
    return sum(eqn.primitive.name == "scan" for eqn in jaxpr.jaxpr.eqns)


def test_scanned_is_unrolled(case):
    model, variables, expected = case
    scanned = model.clone(scan_from=2)
    assert loops(model, variables, X) == 0 and loops(scanned, variables, X) == 1
    assert loops(model.clone(scan_from=3), variables, X) == 0
    close(step(scanned, variables), expected)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["full", pytest.param("dots", marks=pytest.mark.slow)])
def test_remat_is_plain(case, policy):
    model, variables, expected = case
    for scan_from in (1, 99)[: 1 + (model.survival[-1] == 0.5)]:
        close(step(model.clone(remat=policy, scan_from=scan_from), variables), expected)


def test_blocks_see_their_own_variables(case):
    """The unrolled stage against its blocks one by one, in evaluation."""
    model, variables, (evaluated, _) = case
    x = X
    for i, survival in enumerate(model.survival):
        block = model.rest(survival=survival)
        name, of = ("rest", lambda leaf, i=i: leaf[i - 1]) if i else ("first", lambda leaf: leaf)
        own = {each: jax.tree.map(of, tree[name]) for each, tree in variables.items()}
        x = block.apply(own, x)
        close(x, evaluated[i], 1e-5)


@pytest.mark.parametrize(
    "net",
    [
        SmallResNet(10, depth=20),
        pytest.param(ResNet(10, depth=50, width=1 / 16), marks=pytest.mark.slow),
    ],
)
def test_networks_have_one_structure(net):
    """Scanned or unrolled, version 2 or not: the same variables and activations."""
    scanned = net.clone(scan_from=1)
    (_, a), variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images())
    (_, of_scanned), same = jax.eval_shape(scanned.init_with_output, jax.random.key(0), images())
    assert variables == same and a == of_scanned
    stages = sum(name.startswith("stage") for name in variables["params"])
    x = jnp.zeros(images().shape)
    assert loops(net, variables, x) == 0 and loops(scanned, variables, x) == stages


def test_equal_blocks_start_apart_with_hes_variance():
    block = functools.partial(ResidualBlock, basic(64))
    model = Stage(block, block, (1.0,) * 4)
    kernels = jax.jit(model.init)(jax.random.key(0), X)["params"]["rest"]["conv_0"]["kernel"]
    assert kernels.shape == (3, 3, 3, 64, 64)
    assert np.abs(np.corrcoef(kernels[0].ravel(), kernels[1].ravel())[0, 1]) < 0.02
    np.testing.assert_allclose(kernels.std((1, 2, 3, 4)), np.sqrt(2 / (9 * 64)), rtol=0.02)


@pytest.mark.slow
def test_the_deepest_has_no_more_operations():
    """The program for the compiler does not grow with the depth, the gradient included."""

    def size(depth):
        model = SmallResNet(10, depth=depth, scan_from=1)
        variables = jax.eval_shape(model.init, jax.random.key(0), images())

        def loss(params, stats):
            variables = {"params": params, "batch_stats": stats}
            x = jnp.zeros(images().shape)
            return model.apply(variables, x, True, mutable=["batch_stats"])[0][0].sum()

        gradient = jax.jit(jax.grad(loss))
        return len(gradient.lower(variables["params"], variables["batch_stats"]).as_text())

    assert size(110) < 1.2 * size(20)
