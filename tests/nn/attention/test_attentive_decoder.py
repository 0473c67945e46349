"""The decoder equals a plain scan over whole steps, without its optimisations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.attention.decoder import Decoder
from dlcore.nn.attention.registry import attention
from dlcore.nn.attention.scores import Queries
from dlcore.nn.recurrent import cell

B, W, T, S, E, H, M = 2, 3, 4, 5, 3, 4, 6
R = B * W
MASK = np.arange(S)[None] < np.array([[5], [2]])
# The first has input products of its own, the second several matrices, the third two widths.
UNLIKE = ("lstm_layer_norm", "highway", "lstm_projection")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X, MEMORY = normal(0, R, T, E), normal(1, B, S, M)
KEPT = (jnp.asarray(np.random.default_rng(2).integers(0, 2, (R, T, H)), jnp.float32) * 2,)


def decoder(kind, *, cells=("gru", "lstm"), feeding=False, coverage=False):
    made = kind and attention(kind, features=5, window=2, coverage=coverage)
    stack = tuple(cell(name, H) for name in cells)
    width = stack[-1].output_features
    return Decoder(width, stack, made, M, feeding)


DECODERS = {
    "no attention": decoder(None),
    "additive": decoder("additive"),
    "local_monotonic": decoder("local_monotonic"),
    "coverage": decoder("additive", coverage=True),
    "feeding": decoder("local_predictive", feeding=True),
    "feeding and coverage": decoder("additive", feeding=True, coverage=True),
    **{f"feeding {name}": decoder("general", cells=(name,), feeding=True) for name in UNLIKE},
}


def start(made):
    """Returns parameters and a carry, none of which is 0."""
    shapes = jax.eval_shape(functools.partial(made.init, inputs=E), jax.random.key(0))
    leaves, shape = jax.tree.flatten(shapes)
    params = [0.6 * normal(10 + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    carry = made.initial_carry(R, S)
    layers = [
        normal(50 + i, *leaf.shape) for i, leaf in enumerate(jax.tree.leaves(carry["layers"]))
    ]
    carry["layers"] = jax.tree.unflatten(jax.tree.structure(carry["layers"]), layers)
    if "feed" in carry:
        carry["feed"] = normal(60, R, made.features)
    return jax.tree.unflatten(shape, params), carry


def attended(made, params, memory):
    return made.attention and made.attention.prepare(params.get("attention", {}), memory, MASK)


def by_steps(made, params, carry, x, memory, kept):
    """Computes h~ [R, T, F], the weights [R, T, S] and the last carry, one memory per row."""
    look = attended(made, params, memory)
    rows = look and jax.tree.map(lambda leaf: jnp.repeat(leaf, W, axis=0), look)

    def step(state, now):
        layers, covered, feed = state
        x, kept, t = now
        h = x if feed is None else jnp.concatenate([x, feed], axis=-1)
        after = {}
        for i, one in enumerate(made.cells):
            h = h * kept[i - 1] if i else h
            after[f"layer_{i}"], h = one(params[f"layer_{i}"], layers[f"layer_{i}"], h)
        if rows is None:
            return (after, covered, feed), (h, None)
        queries = Queries(h[:, None], jnp.full((R, 1), t), covered[:, None])
        context, weights = made.attention(params.get("attention", {}), queries, rows)
        h = jnp.tanh(jnp.concatenate([context[:, 0], h], axis=-1) @ params["combine_kernel"])
        covered = covered + weights[:, 0]
        return (after, covered, None if feed is None else h), (h, weights[:, 0])

    state = (carry["layers"], carry.get("covered"), carry.get("feed"))
    over_time = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), (x, kept))
    (layers, *_), steps = jax.lax.scan(step, state, (*over_time, jnp.arange(T)))
    return *jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), steps), layers


QUICK = {"coverage", "feeding lstm_projection"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in DECODERS],
)
def test_equals_single_steps(name):
    """Values and gradients of parameters, carry, inputs and memory agree; W rows share a memory."""
    made = DECODERS[name]
    params, carry = start(made)
    kept = KEPT if len(made.cells) > 1 else ()

    def whole(params, layers, x, memory):
        state = carry | {"layers": layers}
        last, steps = made.run(params, state, x, attended(made, params, memory), kept=kept)
        return steps.vectors, steps.weights, last["layers"]

    def stepwise(params, layers, x, memory):
        return by_steps(made, params, carry | {"layers": layers}, x, memory, kept)

    results = []
    for f in (whole, stepwise):

        def loss(*arguments, f=f):
            out = f(*arguments)
            return sum(jnp.sin(3 * leaf).sum() for leaf in jax.tree.leaves(out)), out

        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
        results.append(run(params, carry["layers"], X, MEMORY))
    (ours, ours_grad), (theirs, theirs_grad) = results
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), ours, theirs)
    check = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(check, ours_grad, theirs_grad)
    for path, leaf in jax.tree.leaves_with_path(ours_grad[0]):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ["additive", "feeding and coverage"])
def test_the_future_has_no_gradient_on_the_past(name):
    made = DECODERS[name]
    params, carry = start(made)

    def outputs(x):
        _, steps = made.run(params, carry, x, attended(made, params, MEMORY))
        return steps.vectors.sum((0, 2))

    gradient = np.abs(jax.jit(jax.jacobian(outputs))(X)).max((1, 3))  # [T of y, T of x]
    np.testing.assert_array_equal(gradient, np.tril(gradient))
    assert (np.diag(gradient) > 0).all() and (gradient[-1] > 0).all()


@pytest.mark.parametrize("name", ["no attention", "local_monotonic", "feeding and coverage"])
def test_the_carry_is_all_that_goes_from_piece_to_piece(name):
    made = DECODERS[name]
    params, carry = start(made)
    look = attended(made, params, MEMORY)
    run = jax.jit(lambda carry, x: made.run(params, carry, x, look))
    last, steps = run(carry, X)
    middle, first = run(carry, X[:, :3])
    end, second = run(middle, X[:, 3:])
    check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(check, end, last)
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), first, second)
    jax.tree.map(check, both, steps)
    if steps.weights is not None:
        check(last["covered"], steps.weights.sum(1))
        np.testing.assert_array_equal(last["step"], T)
