"""The autoencoder that finds structure, against a plain one in NumPy, one sentence at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.trees import GreedyAutoencoder

V, D, K = 9, 4, 3
WORDS = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [2, 0, 0, 0, 0], [5, 5, 1, 3, 0]])
LENGTHS = np.array([5, 3, 1, 4])


def unit(x):
    return x / np.linalg.norm(x)


def plain(params, words):
    """Joins (left, right), their errors and the vectors of all nodes of a sentence."""

    def join(left, right):
        (_, n1, c1), (_, n2, c2) = left, right
        p = unit(np.tanh(np.concatenate([c1, c2]) @ params["kernel"] + params["bias"]))
        guess = p @ params["decoder"] + params["decoder_bias"]
        error = n1 / (n1 + n2) * ((guess[:D] - c1) ** 2).sum()
        return p, error + n2 / (n1 + n2) * ((guess[D:] - c2) ** 2).sum()

    nodes = [(n + 1, 1, unit(params["table"][w])) for n, w in enumerate(words)]
    vectors, joins, errors = [v for _, _, v in nodes], [], []
    while len(nodes) > 1:
        tried = [join(nodes[i], nodes[i + 1]) for i in range(len(nodes) - 1)]
        best = int(np.argmin([error for _, error in tried]))
        left, right = nodes[best : best + 2]
        joins.append((left[0], right[0]))
        errors.append(tried[best][1])
        vectors.append(tried[best][0])
        nodes[best : best + 2] = [(f"join {len(joins) - 1}", left[1] + right[1], tried[best][0])]
    return joins, errors, vectors


apply = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


@functools.cache
def drawn():
    model = GreedyAutoencoder(V, D, K)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.array(WORDS), jnp.array(LENGTHS))
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
        variables["params"],
    )
    return model, {"params": params}


def test_it_finds_what_the_plain_one_finds():
    model, variables = drawn()
    found = apply(model, variables, jnp.array(WORDS), jnp.array(LENGTHS))
    params = {
        k: np.asarray(v, np.float64)
        for k, v in variables["params"].items()
        if "bed" not in k and k != "output"
    }
    params["table"] = np.asarray(variables["params"]["embedding"]["embedding"], np.float64)
    output = variables["params"]["output"]
    for row, length in enumerate(LENGTHS):
        joins, errors, vectors = plain(params, WORDS[row, :length])
        names = {n: n for n in range(6)} | {6 + n: f"join {n}" for n in range(4)}
        assert [
            tuple(names[int(c)] for c in pair) for pair in found.joins[row, : length - 1]
        ] == joins
        assert not found.joins[row, length - 1 :].any()
        np.testing.assert_allclose(found.errors[row, : length - 1], errors, atol=1e-5)
        logits = np.array(vectors) @ np.asarray(output["kernel"]) + np.asarray(output["bias"])
        rows = [*range(length), *range(5, 5 + length - 1)]
        np.testing.assert_allclose(found.logits[row, np.array(rows)], logits, atol=1e-5)


def test_the_structures_of_a_test_differ():
    model, variables = drawn()
    found = apply(model, variables, jnp.array(WORDS), jnp.array(LENGTHS))
    left = [[1, 2], [6, 3], [7, 4], [8, 5]]
    assert found.joins[0].tolist() != left or found.joins[3, :3].tolist() != left[:3]


@pytest.mark.slow
def test_padding_changes_nothing_and_gradients_are_finite():
    model, variables = drawn()
    wide = np.pad(WORDS, ((0, 0), (0, 3)))
    plain_found = apply(model, variables, jnp.array(WORDS), jnp.array(LENGTHS))
    found = apply(model, variables, jnp.array(wide), jnp.array(LENGTHS))
    np.testing.assert_allclose(found.errors[0, :4], plain_found.errors[0], atol=1e-6)

    @jax.jit
    def loss(params):
        found = apply(model, {"params": params}, jnp.array(WORDS), jnp.array(LENGTHS))
        real = np.arange(4) < LENGTHS[:, None] - 1
        return jnp.where(real, found.errors, 0).sum()

    gradient = jax.grad(loss)(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    key = jax.random.key(9)
    params = variables["params"]
    way = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), params)
    step = 1e-3
    ends = [
        loss(jax.tree.map(lambda leaf, d, s=s: leaf + s * step * d, params, way)) for s in (1, -1)
    ]
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, way)))
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=5e-3)
