"""Clipping gives Optax's results, is exact below the threshold, and hides no failure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.optim import clip_by_global_norm, clip_by_leaf_norm, clip_by_value, reported

KINDS = [clip_by_value, clip_by_global_norm, clip_by_leaf_norm]


def gradients(scale=1.0):
    keys = jax.random.split(jax.random.key(0))
    return {
        "bias": scale * jax.random.normal(keys[0], (3,)),
        "kernel": 5 * scale * jax.random.normal(keys[1], (4, 3)),
    }


def clip(tx, updates):
    clipped, state = jax.jit(tx.update)(updates, tx.init(updates))
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
    clipped = jax.jit(jax.vmap(lambda u: tx.update(u, state)[0]))(updates)
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


@pytest.mark.parametrize("kind", [clip_by_global_norm, clip_by_leaf_norm])
def test_an_overflowing_norm_is_not_a_zero_step(kind):
    clipped, share = clip(kind(1.0), {"a": jnp.full(3, 1e30)})
    assert np.isnan(clipped["a"]).all() and share == 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_threshold_must_be_positive(kind, threshold):
    with pytest.raises(InputError, match="clipping threshold .* is not positive"):
        kind(threshold)
