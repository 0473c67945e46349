"""The moving average of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import optim
from dlcore.errors import InputError

PARAMS = {"body": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "head": {"bias": jnp.ones(2)}}


def walk(tx, steps):
    """Returns parameters and state after each step on random gradients."""
    params, state = PARAMS, tx.init(PARAMS)
    for number in range(steps):
        rng = np.random.default_rng(number)
        gradient = jax.tree.map(
            lambda leaf, rng=rng: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params
        )
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        yield params, state


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9])
def test_it_is_the_loop(decay):
    tx = optim.optimizer("momentum", 0.1, average=decay)
    expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    for number, (params, state) in enumerate(walk(tx, 30)):
        now = min(decay, (1 + number) / (10 + number))
        expected = jax.tree.map(
            lambda old, new, now=now: now * old + (1 - now) * np.asarray(new), expected, params
        )
        got = optim.averaged(state, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, expected)


def test_it_starts_anew_at_other_weights():
    """What else the optimizer keeps stays, and no buffer is shared: a step donates all."""
    tx = optim.optimizer("adam", 0.1, frozen=[("^body/", True)], average=0.9)
    *_, (_, state) = walk(tx, 2)
    other = jax.tree.map(lambda leaf: leaf + 5, PARAMS)
    new = optim.start_average(state, other)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, optim.averaged(new, other), other)
    changed = [
        np.array_equal(old, now)
        for old, now in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True)
    ]
    assert changed.count(False) == 1  # the average of the one leaf that is trained
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(other)}
    assert not pointers & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(new)}
    plain = optim.optimizer("adam", 0.1).init(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, optim.start_average(plain, other), plain)


def test_it_changes_no_step():
    plain = [params for params, _ in walk(optim.optimizer("adam", 0.1), 5)]
    beside = [params for params, _ in walk(optim.optimizer("adam", 0.1, average=0.9), 5)]
    jax.tree.map(np.testing.assert_array_equal, plain, beside)


def test_frozen_parameters_have_no_average_and_are_their_own():
    tx = optim.optimizer("sgd", 0.1, average=0.9, frozen=[("^head/", True)])
    *_, (params, state) = walk(tx, 3)
    got = optim.averaged(state, params)
    np.testing.assert_array_equal(got["head"]["bias"], PARAMS["head"]["bias"])
    assert (got["body"]["kernel"] != params["body"]["kernel"]).all()
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(state)]
    assert shapes.count((2, 3)) == 1 and (2,) not in shapes


def test_without_an_average_it_is_the_parameters():
    *_, (params, state) = walk(optim.optimizer("adam", 0.1), 1)
    assert optim.averaged(state, params) is params


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_impossible_decay(decay):
    with pytest.raises(InputError, match=r"never learns; give one in \[0, 1\)"):
        optim.optimizer("sgd", 0.1, average=decay)
