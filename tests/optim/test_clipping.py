"""Clipping gives Optax's results, is exact below the threshold, and hides no failure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.optim import (
    clip_adaptively,
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_value,
    reported,
)

KINDS = [clip_by_value, clip_by_global_norm, clip_by_leaf_norm, clip_adaptively]


def gradients(scale=1.0):
    keys = jax.random.split(jax.random.key(0))
    return {
        "bias": scale * jax.random.normal(keys[0], (3,)),
        "kernel": 5 * scale * jax.random.normal(keys[1], (4, 3)),
    }


def of_norm_one(leaf):
    return jnp.zeros_like(leaf).at[0].set(1.0)


def clip(tx, updates, params=None):
    """Clips; by default the norm of the weights of each vector is exactly 1."""
    params = jax.tree.map(of_norm_one, updates) if params is None else params
    clipped, state = jax.jit(tx.update)(updates, tx.init(updates), params)
    return clipped, float(reported(state)["clipped"].compute())


def assert_trees_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def optax_by_leaf(threshold, tree):
    alone = optax.clip_by_global_norm(threshold)
    return jax.tree.map(lambda leaf: alone.update(leaf, alone.init(leaf))[0], tree)


def optax_by(tx, tree):
    return tx.update(tree, tx.init(tree))[0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (clip_by_value, lambda c, tree: optax_by(optax.clip(c), tree)),
        (clip_by_global_norm, lambda c, tree: optax_by(optax.clip_by_global_norm(c), tree)),
        (clip_by_leaf_norm, optax_by_leaf),
    ],
)
def test_is_optaxs(ours, theirs, scale):
    clipped, _ = clip(ours(2.0), gradients(scale))
    assert_trees_close(clipped, theirs(2.0, gradients(scale)))


def test_shares_by_hand():
    updates = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[0.6, -0.8, 0.0]])}
    assert clip(clip_by_value(0.7), updates)[1] == pytest.approx(3 / 5)
    assert clip(clip_by_global_norm(5.0), updates)[1] == 1.0
    assert clip(clip_by_global_norm(5.2), updates)[1] == 0.0
    assert clip(clip_by_leaf_norm(2.0), updates)[1] == 0.5
    clipped, _ = clip(clip_by_leaf_norm(2.0), updates)
    np.testing.assert_allclose(clipped["a"], [1.2, 1.6], rtol=1e-6)
    np.testing.assert_array_equal(clipped["b"], updates["b"])


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_the_bits_up_to_the_threshold(kind):
    # The norm of 7 equal elements is not exact: at the threshold, dividing would change bits.
    updates = {"w": jnp.full(7, 0.3, jnp.float32).at[:2].set([-0.0, 1e-40])}
    norm = float(optax.tree.norm(updates))
    clipped, share = clip(kind(0.3 if kind is clip_by_value else norm), updates)
    np.testing.assert_array_equal(
        np.asarray(clipped["w"]).view(np.uint32), np.asarray(updates["w"]).view(np.uint32)
    )
    assert share == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_never_scales_up(kind):
    """This matters most just over the threshold, where rounding could scale up."""
    directions = jax.random.normal(jax.random.key(0), (1000, 50))
    norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
    length = 1 + jnp.array([[1e-7], [1e-6], [1e-3], [-0.5], [10.0]]).repeat(200, axis=0)
    updates = directions / norms * length
    tx = kind(1.0 if kind is not clip_by_value else 0.1)
    state = tx.init(updates[0])
    params = of_norm_one(updates[0])
    clipped = jax.jit(jax.vmap(lambda u: tx.update(u, state, params)[0]))(updates)
    assert (np.abs(clipped) <= np.abs(updates)).all()
    np.testing.assert_array_equal(np.sign(clipped), np.sign(updates))
    assert (np.abs(clipped) < np.abs(updates)).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_hides_nothing_that_is_not_finite(kind, bad):
    updates = {"a": jnp.array([1.0, bad]), "b": jnp.ones(2)}
    clipped, share = clip(kind(0.5), updates)
    assert not np.isfinite(clipped["a"][1])
    assert share > 0


def of_kernels(scale):
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = {"bias": (5,), "dense": (4, 3), "conv": (3, 3, 2, 5), "zero": (4, 3)}
    return {
        name: {"kernel": scale * jax.random.normal(key, shape)}
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def test_adaptive_clipping_is_optaxs():
    params, updates = of_kernels(1.0), of_kernels(0.3)
    params["zero"]["kernel"] *= 0
    clipped, share = clip(clip_adaptively(0.2), updates, params)
    theirs = optax.adaptive_grad_clip(0.2)
    expected, _ = theirs.update(updates, theirs.init(params), params)
    assert_trees_close(clipped, expected)
    # The gradients of 12 units are 0.3 of their weights; the other weights are 0.
    assert share == 1.0
    assert clip(clip_adaptively(0.31), updates, params)[1] == pytest.approx(3 / 12)


@pytest.mark.parametrize(
    ("path", "shape", "unit"),
    [
        ("embedding", (3, 4), np.s_[1]),
        ("rest/conv/kernel", (2, 3, 3, 4, 5), np.s_[0, ..., 2]),
        ("rest/dense/kernel", (2, 4, 5), np.s_[1, :, 3]),
        ("rest/norm/scale", (2, 5), np.s_[1]),
        ("norm/scale", (5,), np.s_[:]),
    ],
)
def test_a_unit_is_what_leads_to_one_output(path, shape, unit):
    """The gradient of one unit is large, that of all others small: only this one is scaled."""
    gradient = np.full(shape, 1e-4, np.float32)
    gradient[unit] = 1.0
    expected = gradient.copy()
    expected[unit] = 0.1 / np.sqrt(gradient[unit].size)
    weights = np.zeros(shape, np.float32)
    weights[unit] = 1 / np.sqrt(gradient[unit].size)
    outer, _, inner = path.rpartition("/")
    trees = [{outer: {inner: jnp.asarray(leaf)}} for leaf in (gradient, weights)]
    clipped, share = clip(clip_adaptively(0.1, least_norm=1e-2), *trees)
    np.testing.assert_allclose(jax.tree.leaves(clipped)[0], expected, rtol=1e-5)
    assert share == pytest.approx(gradient[unit].size / gradient.size)


@pytest.mark.parametrize("kind", [clip_by_global_norm, clip_by_leaf_norm, clip_adaptively])
def test_an_overflowing_norm_is_not_a_zero_step(kind):
    clipped, share = clip(kind(1.0), {"a": jnp.full(3, 1e30)})
    assert np.isnan(clipped["a"]).all() and share == 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_threshold_must_be_positive(kind, threshold):
    with pytest.raises(InputError, match="clipping threshold .* is not positive"):
        kind(threshold)
