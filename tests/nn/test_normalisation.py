"""Batch and instance normalisation equal NumPy and hand-worked numbers, in every layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import nn, parallel

NORM = nn.BatchNorm(momentum=0.75, epsilon=1e-3)
PARAMS = {"scale": jnp.array([2.0, -1.0, 0.5]), "bias": jnp.array([0.0, 3.0, -1.0])}
STATS = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 9.0])}
X = 2 * jax.random.normal(jax.random.key(0), (8, 3, 2, 3)) + 1


def train(x, params=PARAMS, stats=STATS):
    variables = {"params": params, "batch_stats": stats}
    y, updated = NORM.apply(variables, x, train=True, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def numpy_norm(x, mean, variance):
    scale, bias = np.asarray(PARAMS["scale"]), np.asarray(PARAMS["bias"])
    return (np.asarray(x) - mean) / np.sqrt(variance + 1e-3) * scale + bias


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 2, 3)])
def test_training(shape):
    x = X[:, 0, 0] if len(shape) == 2 else X
    axes = tuple(range(x.ndim - 1))
    x_ = np.asarray(x)
    mean, variance = x_.mean(axes), x_.var(axes)
    y, stats = train(x)
    np.testing.assert_allclose(y, numpy_norm(x, mean, variance), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.75 * STATS["mean"] + 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.75 * STATS["var"] + 0.25 * variance, rtol=1e-5)


def test_running_statistics_by_hand():
    """The batch 0, 4 of mean 2 and biased variance 4 moves 0 and 1 at momentum 0.75."""
    x = jnp.array([[0.0], [4.0]])
    params = {"scale": jnp.ones(1), "bias": jnp.zeros(1)}
    y, stats = train(x, params, {"mean": jnp.zeros(1), "var": jnp.ones(1)})
    np.testing.assert_allclose(y, np.array([[-2], [2]]) / np.sqrt(4.001), rtol=1e-6)
    assert stats["mean"] == 0.5 and stats["var"] == 1.75


def test_evaluation():
    variables = {"params": PARAMS, "batch_stats": STATS}
    expected = numpy_norm(X, np.array([1, 2, 3]), np.array([4, 1, 9]))
    np.testing.assert_allclose(NORM.apply(variables, X), expected, rtol=1e-5, atol=1e-5)


def test_evaluation_is_training_when_the_statistics_are_the_batch():
    stats = {"mean": X.mean((0, 1, 2)), "var": X.var((0, 1, 2))}
    evaluated = NORM.apply({"params": PARAMS, "batch_stats": stats}, X)
    np.testing.assert_allclose(train(X)[0], evaluated, rtol=1e-4, atol=1e-5)


def test_initialisation_leaves_the_statistics_alone():
    variables = NORM.init(jax.random.key(0), X, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))


def test_gradient():
    """The gradient equals the derivation of Ioffe & Szegedy 2015, section 3, in NumPy."""
    g = jax.random.normal(jax.random.key(1), X.shape)
    (dx, dparams) = jax.vjp(lambda x, p: train(x, p)[0], X, PARAMS)[1](g)
    axes = (0, 1, 2)
    x, g = np.asarray(X), np.asarray(g)
    inverse = 1 / np.sqrt(x.var(axes) + 1e-3)
    normal = (x - x.mean(axes)) * inverse
    dnormal = g * np.asarray(PARAMS["scale"])
    expected = inverse * (dnormal - dnormal.mean(axes) - normal * (dnormal * normal).mean(axes))
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dparams["scale"], (g * normal).sum(axes), rtol=1e-4)
    np.testing.assert_allclose(dparams["bias"], g.sum(axes), rtol=1e-4)


def test_devices_share_their_statistics():
    """Four devices with two examples each give the results and gradients of one with eight."""

    def step(params, x, g):
        (y, stats), vjp = jax.vjp(lambda p: train(x, p), params)
        return y, stats, vjp((g, jax.tree.map(jnp.zeros_like, stats)))[0]

    def part(params, x, g):
        with parallel.part_of_batch(
            parallel.Part(2 * jax.lax.axis_index("data"), axis_name="data")
        ):
            y, stats, gradient = step(params, x, g)
        return y, stats, jax.lax.psum(gradient, "data")

    g = jax.random.normal(jax.random.key(1), X.shape)
    y, stats, gradient = jax.jit(step)(PARAMS, X, g)
    parted = jax.pmap(part, "data", in_axes=(None, 0, 0), out_axes=(0, None, None))(
        PARAMS, X.reshape(4, 2, 3, 2, 3), g.reshape(4, 2, 3, 2, 3)
    )
    np.testing.assert_allclose(parted[0].reshape(X.shape), y, rtol=1e-6, atol=1e-6)
    for name in ("mean", "var"):
        np.testing.assert_allclose(parted[1][name], stats[name], rtol=1e-6)
    for name in ("scale", "bias"):
        np.testing.assert_allclose(parted[2][name], gradient[name], rtol=1e-6, atol=1e-5)


# What float32 can do at a mean of M deviations: M itself has an error of 6e-8 M there.
FAR = [100, 1000, 3000]


def far_from_zero(mean, shape):
    """Numbers of deviation 1 and float32, and the same in float64."""
    x = jax.random.normal(jax.random.key(2), shape) + mean
    return x, np.asarray(x, np.float64)


@pytest.mark.parametrize("mean", FAR)
@pytest.mark.parametrize("shape", [(64, 3), (16, 8, 8, 3)])
def test_batch_statistics_far_from_zero(mean, shape):
    x, wide = far_from_zero(mean, shape)
    axes = tuple(range(x.ndim - 1))
    y, stats = train(x)
    expected = numpy_norm(wide, wide.mean(axes), wide.var(axes))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6 * mean)
    running = 0.75 * np.asarray(STATS["var"]) + 0.25 * wide.var(axes)
    np.testing.assert_allclose(stats["var"], running, rtol=1e-6)


@pytest.mark.parametrize("mean", FAR)
def test_evaluation_after_training_far_from_zero(mean):
    """After many steps of the same batch the running statistics are those of the batch."""
    x, wide = far_from_zero(mean, (64, 3))
    stats = STATS
    for _ in range(80):
        stats = train(x, stats=stats)[1]
    y = NORM.apply({"params": PARAMS, "batch_stats": stats}, x)
    expected = numpy_norm(wide, wide.mean(0), wide.var(0))
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * mean)


@pytest.mark.parametrize("mean", FAR)
def test_gradients_far_from_zero(mean):
    x, wide = far_from_zero(mean, (64, 3))
    g = np.asarray(jax.random.normal(jax.random.key(1), x.shape))
    dx = jax.vjp(lambda x: train(x)[0], x)[1](jnp.asarray(g))[0]
    inverse = 1 / np.sqrt(wide.var(0) + 1e-3)
    normal, dnormal = (wide - wide.mean(0)) * inverse, g * np.asarray(PARAMS["scale"])
    expected = inverse * (dnormal - dnormal.mean(0) - normal * (dnormal * normal).mean(0))
    np.testing.assert_allclose(dx, expected, rtol=0, atol=1e-6 * mean)


@pytest.mark.parametrize("mean", FAR)
@pytest.mark.parametrize("shape", [(4, 64), (2, 3, 64)])
def test_layer_norm_far_from_zero(mean, shape):
    x, wide = far_from_zero(mean, shape)
    g = np.asarray(jax.random.normal(jax.random.key(1), shape))
    params = {"scale": jnp.linspace(0.5, 2, 64), "bias": jnp.linspace(-1, 1, 64)}
    y, vjp = jax.vjp(jax.jit(lambda x: nn.LayerNorm().apply({"params": params}, x)), x)
    scale, bias = (np.asarray(params[name]) for name in ("scale", "bias"))
    inverse = 1 / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    normal, dnormal = (wide - wide.mean(-1, keepdims=True)) * inverse, g * scale
    np.testing.assert_allclose(y, normal * scale + bias, rtol=0, atol=1e-6 * mean)
    means = dnormal.mean(-1, keepdims=True), (dnormal * normal).mean(-1, keepdims=True)
    expected = inverse * (dnormal - means[0] - normal * means[1])
    np.testing.assert_allclose(vjp(jnp.asarray(g))[0], expected, rtol=0, atol=1e-6 * mean)


def test_devices_far_from_zero_and_from_one_another():
    """Two pairs of devices see other means than the whole batch has."""
    x, _ = far_from_zero(1000, (8, 5, 3))
    x += jnp.repeat(jnp.array([0.0, 3.0]), 4)[:, None, None]
    wide = np.asarray(x, np.float64)

    def part(x):
        where = parallel.Part(2 * jax.lax.axis_index("data"), axis_name="data")
        with parallel.part_of_batch(where):
            return train(x)[0]

    y = jax.pmap(part, "data")(x.reshape(4, 2, 5, 3)).reshape(x.shape)
    expected = numpy_norm(wide, wide.mean((0, 1)), wide.var((0, 1)))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("ambient", [False, True])
@pytest.mark.parametrize("padding", [0.0, 1e6, jnp.nan])
def test_rows_of_weight_0_are_not_counted(padding, ambient):
    weight = jnp.array([1.0, 0.5, 0.0, 2.0, 0.0, 1.0, 1.0, 0.0])
    x = jnp.where((weight == 0)[:, None, None, None], padding, X)
    variables = {"params": PARAMS, "batch_stats": STATS}
    how = {"train": True, "mutable": ["batch_stats"]}
    if ambient:
        with parallel.part_of_batch(parallel.Part(weight=weight)):
            y, updated = NORM.apply(variables, x, **how)
    else:
        y, updated = NORM.apply(variables, x, weight=weight, **how)
    kept = np.flatnonzero(weight)
    expected, stats = train(X[kept])
    np.testing.assert_allclose(y[kept], expected, rtol=1e-5, atol=1e-6)
    for name in ("mean", "var"):
        np.testing.assert_allclose(updated["batch_stats"][name], stats[name], rtol=1e-6)


def test_a_batch_of_padding_alone_leaves_the_statistics():
    with parallel.part_of_batch(parallel.Part(weight=jnp.zeros(8))):
        y, stats = train(X)
    assert np.isfinite(y).all()
    for name in ("mean", "var"):
        np.testing.assert_array_equal(stats[name], STATS[name])


def test_second_derivatives():
    """The rule of the moments can itself be differentiated: against central differences."""

    @jax.jit
    def slope(x):
        return jax.grad(lambda x: (jnp.sin(train(x[:, None], *ONE)[0]) ** 3).sum())(x)

    with jax.enable_x64(True):
        x = jnp.array([0.3, -1.0, 2.0, 0.5], jnp.float64)
        hessian = jax.jit(jax.jacfwd(slope))(x)
        steps = 1e-6 * jnp.eye(4)
        differences = [(slope(x + step) - slope(x - step)) / 2e-6 for step in steps]
        np.testing.assert_allclose(hessian, jnp.stack(differences), rtol=1e-6, atol=1e-8)


ONE = (
    {"scale": np.ones(1), "bias": np.zeros(1)},
    {"mean": np.zeros(1), "var": np.ones(1)},
)


@pytest.mark.parametrize("shape", [(3, 4, 3), (2, 5, 4, 3)])
def test_instance_normalisation(shape):
    """Each channel of each example by its own mean and variance, also far from 0."""
    x = np.random.default_rng(0).normal(1000, 1, shape).astype(np.float32)
    x[0] *= 20
    places = tuple(range(1, x.ndim - 1))
    wide = x.astype(np.float64)
    mean, variance = wide.mean(places, keepdims=True), wide.var(places, keepdims=True)
    scale, bias = (np.asarray(PARAMS[name]) for name in ("scale", "bias"))
    expected = (wide - mean) / np.sqrt(variance + 1e-3) * scale + bias
    y = jax.jit(nn.InstanceNorm(epsilon=1e-3).apply)({"params": PARAMS}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3)
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), ({"params": PARAMS}, x))
    assert jax.jit(nn.InstanceNorm().apply)(*half).dtype == jnp.bfloat16
