"""Stochastic depth: its probabilities, its expectation, and the same draws in every layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import parallel
from dlcore.errors import InputError
from dlcore.nn.stochastic_depth import StochasticDepth, survival_probabilities

X = jax.random.normal(jax.random.key(0), (8, 5, 4)) + 3


def drop(x, survival=0.6, drop="example", key=None):
    key = jax.random.key(3) if key is None else key
    return StochasticDepth(survival, drop).apply({}, x, train=True, rngs={"dropout": key})


def test_linear_decay():
    """Equation 4 by hand gives 0.75 for the middle block and the sum (3 L - 1) / 4."""
    assert survival_probabilities(4, 0.5) == (0.875, 0.75, 0.625, 0.5)
    assert survival_probabilities(5, 1.0) == (1.0,) * 5
    assert survival_probabilities(54, 0.5)[26] == 0.75
    np.testing.assert_allclose(sum(survival_probabilities(54, 0.5)), (3 * 54 - 1) / 4)


@pytest.mark.parametrize("mode", ["example", "batch"])
@pytest.mark.parametrize("survival", [0.2, 0.75])
def test_evaluation_is_the_expectation(survival, mode):
    """Only two outcomes occur; weighted by their probabilities they give the evaluation's."""
    outcomes = jax.vmap(lambda key: drop(X, survival, mode, key))(
        jax.random.split(jax.random.key(3), 50)
    )
    outcomes = np.asarray(outcomes)
    kept = (outcomes == np.asarray(X)).all((2, 3))
    dropped = (outcomes == 0).all((2, 3))
    assert (kept ^ dropped).all() and kept.any() and dropped.any()
    assert (kept.all(1) | dropped.all(1)).all() == (mode == "batch")
    evaluated = StochasticDepth(survival, mode).apply({}, X)
    np.testing.assert_allclose(survival * X + (1 - survival) * 0, evaluated, rtol=1e-6)


@pytest.mark.parametrize(
    "mode, draws", [("example", 1), pytest.param("batch", 4000, marks=pytest.mark.slow)]
)
def test_measured_depth_is_three_quarters(mode, draws):
    """In 4000 draws at p_L = 0.5, (3 L - 1) / 4 of 54 blocks survive on average."""
    probabilities = jnp.array(survival_probabilities(54, 0.5))
    branch = jnp.ones((4000 // draws, 1))

    @jax.jit
    @jax.vmap
    def survivors(key):
        keys = jax.random.split(key, 54)
        return jax.vmap(lambda key, p: drop(branch, p, mode, key))(keys, probabilities).sum(0)

    depth = survivors(jax.random.split(jax.random.key(3), draws))
    spread = np.sqrt((probabilities * (1 - probabilities)).sum())
    assert abs(depth.mean() - (3 * 54 - 1) / 4) < 4 * spread / np.sqrt(4000)
    assert abs(depth.std() / spread - 1) < 0.1  # Blocks and examples draw independently.


@pytest.mark.parametrize("mode", ["example", "batch"])
def test_a_traced_probability_is_the_same(mode):
    for train in (False, True):

        def call(survival, train=train):
            return StochasticDepth(survival, mode).apply(
                {}, X, train, rngs={"dropout": jax.random.key(3)}
            )

        np.testing.assert_array_equal(jax.jit(call)(jnp.float32(0.6)), call(0.6))


def test_edges():
    np.testing.assert_array_equal(StochasticDepth(1.0).apply({}, X, train=True), X)
    np.testing.assert_array_equal(drop(X, 0.0), jnp.zeros_like(X))
    gradient = jax.grad(lambda x: drop(x).sum())(X)
    np.testing.assert_array_equal(gradient * X, drop(X))
    assert drop(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert StochasticDepth(0.5).apply({}, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("offset, stride", [(0, 1), (6, 1), (3, 4)])
def test_micro_batches(offset, stride):
    def part(offset):
        with parallel.part_of_batch(parallel.Part(offset, stride)):
            return drop(X[jnp.array([0, stride]) + offset])

    expected = drop(X)[offset : offset + 2 * stride : stride]
    np.testing.assert_array_equal(jax.jit(part)(offset), expected)


@pytest.mark.parametrize("survival", [-0.1, 1.5])
def test_bad_probability(survival):
    for call in (lambda: drop(X, survival), lambda: survival_probabilities(3, survival)):
        with pytest.raises(InputError, match=f"survival probability {survival} is not a prob"):
            call()


def test_unknown_drop():
    with pytest.raises(InputError, match="unknown drop 'image'; choose one of: batch, example"):
        drop(X, 0.5, "image")
