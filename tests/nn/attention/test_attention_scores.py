"""Attention scores equal loops over single states; padding and windows have no other effects."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.attention.registry import ATTENTIONS, attention
from dlcore.nn.attention.scores import Queries, masked_softmax

B, Q, S, F, M, A, WINDOW = 3, 4, 6, 5, 5, 7, 2
LENGTHS = np.array([6, 3, 1])
MASK = np.arange(S)[None] < LENGTHS[:, None]
POSITIONS = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [2, 2, 9, 0]])
NAMES = (*ATTENTIONS, "coverage")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


STATES, MEMORY, COVERED = normal(0, B, Q, F), normal(1, B, S, M), np.abs(normal(2, B, Q, S))


@functools.cache
def case(name):
    """Returns the attention and parameters, none of which is 0."""
    if name == "coverage":
        made = attention("additive", features=A, coverage=True)
    else:
        made = attention(name, features=A, window=WINDOW)
    shapes = made.init(jax.random.key(0), F, M)
    return made, {k: normal(10 + i, *v.shape) for i, (k, v) in enumerate(sorted(shapes.items()))}


@functools.partial(jax.jit, static_argnums=0)
def look(name, memory=MEMORY, states=STATES, positions=POSITIONS, covered=COVERED, mask=MASK):
    made, params = case(name)
    queries = Queries(states, positions, covered if made.coverage else None)
    return made(params, queries, made.prepare(params, memory, mask))


def score(name, p, s, h, c):
    """Scores one memory step, with its coverage, for one state."""
    match name:
        case "additive":
            hidden = s @ p["query_kernel"] + h @ p["memory_kernel"] + p["bias"]
            return np.tanh(hidden) @ p["score_kernel"]
        case "coverage":
            hidden = s @ p["query_kernel"] + h @ p["memory_kernel"] + p["bias"]
            return np.tanh(hidden + c * p["coverage_kernel"]) @ p["score_kernel"]
        case "dot":
            return s @ h
        case "scaled":
            return s @ h / np.sqrt(F)
    return s @ (h @ p["memory_kernel"])


def weights_by_loops(name):
    _, p = case(name)
    weights = np.zeros((B, Q, S))
    for b in range(B):
        for q in range(Q):
            s, centre = STATES[b, q], POSITIONS[b, q] + 1.0
            if name == "local_predictive":
                net = np.tanh(s @ p["position_kernel"]) @ p["position_score_kernel"]
                centre = LENGTHS[b] / (1 + np.exp(-net))
            local = name.startswith("local")
            places = [i for i in range(LENGTHS[b]) if not local or abs(i + 1 - centre) <= WINDOW]
            e = [np.exp(score(name, p, s, MEMORY[b, i], COVERED[b, q, i])) for i in places]
            for i, value in zip(places, e, strict=True):
                weights[b, q, i] = value / sum(e)
                if name == "local_predictive":
                    sigma = WINDOW / 2
                    weights[b, q, i] *= np.exp(-((i + 1 - centre) ** 2) / (2 * sigma**2))
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_against_loops(name):
    context, weights = look(name)
    expected = weights_by_loops(name)
    np.testing.assert_allclose(weights, expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(
        context, np.einsum("bqs,bsm->bqm", expected, MEMORY), rtol=2e-5, atol=1e-6
    )
    sums = weights.sum(-1)
    assert case(name)[0].normalised == bool(np.allclose(sums, 1, rtol=1e-6))
    assert (weights[~np.broadcast_to(MASK[:, None], weights.shape)] == 0).all()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[pytest.mark.slow] * (name not in ("additive", "local_predictive", "coverage")),
        )
        for name in NAMES
    ],
)
def test_padding_changes_nothing(name):
    """Neither the contents nor the amount of padding change values or gradients."""

    def loss(memory, states, covered, mask):
        context, weights = look(name, memory, states, POSITIONS, covered, mask)
        return jnp.sin(context).sum() + jnp.square(weights).sum(), (context, weights)

    def wider(leaf, axis, value):
        pads = [(0, 2 if i == axis else 0) for i in range(leaf.ndim)]
        return np.pad(leaf, pads, constant_values=value)

    run = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (to_memory, to_states), (context, weights) = run(MEMORY, STATES, COVERED, MASK)
    garbage = np.where(MASK[..., None], MEMORY, np.inf)
    mask = wider(MASK, 1, False)
    (to_wider, to_states_too), (context_too, weights_too) = run(
        wider(garbage, 1, np.nan), STATES, wider(COVERED, 2, 9.0), mask
    )
    np.testing.assert_array_equal(weights_too[..., S:], 0)
    np.testing.assert_array_equal(to_wider[~mask], 0)
    for ours, theirs in (
        (weights, weights_too[..., :S]),
        (context, context_too),
        (to_states, to_states_too),
        (to_memory, to_wider[:, :S]),
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_queries_do_not_see_each_other(name):
    context, weights = look(name)
    for q in range(Q):
        at = slice(q, q + 1)
        alone = look(name, MEMORY, STATES[:, at], POSITIONS[:, at], COVERED[:, at], MASK)
        np.testing.assert_allclose(alone[0], context[:, at], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone[1], weights[:, at], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_queries_meet_matrices_through_the_product_alone(name):
    made, params = case(name)
    attended = made.prepare(params, MEMORY, MASK)
    left = {key: value for key, value in params.items() if key not in made.matrices}
    seen = []

    def product(key, x):
        seen.append(key)
        return x @ params[key]

    queries = Queries(STATES, POSITIONS, COVERED if made.coverage else None)
    context, _ = made(left, queries, attended, product=product)
    np.testing.assert_allclose(context, look(name)[0], rtol=1e-5, atol=1e-6)
    assert tuple(seen) == made.matrices


def test_local_windows_by_hand():
    """With equal scores the window's steps share the weight; far past the end there is none."""
    states = np.zeros((1, 3, F), np.float32)
    memory, mask = normal(3, 1, 5, M), np.array([[True] * 4 + [False]])
    made = attention("local_monotonic", window=1)
    params = {"memory_kernel": normal(4, M, F)}
    queries = Queries(states, np.array([[0, 2, 5]]))
    context, weights = made(params, queries, made.prepare(params, memory, mask))
    thirds = [0, 1 / 3, 1 / 3, 1 / 3, 0]
    np.testing.assert_allclose(weights[0], [[0.5, 0.5, 0, 0, 0], thirds, [0] * 5], rtol=1e-6)
    np.testing.assert_array_equal(context[0, 2], 0)
    # A state of zeros predicts the middle, p = 4 / 2; sigma is 1 / 2.
    made = attention("local_predictive", window=1)
    params |= {"position_kernel": normal(5, F, F), "position_score_kernel": normal(6, F)}
    _, weights = made(params, queries, made.prepare(params, memory, mask))
    side = np.exp(-1 / (2 * 0.25)) / 3
    np.testing.assert_allclose(weights[0], [[side, 1 / 3, side, 0, 0]] * 3, rtol=1e-6)


def test_nowhere_to_look():
    """Contexts, weights and gradients are 0."""

    def loss(scores):
        weights = masked_softmax(scores, jnp.array([False, False]))
        return jnp.sin(weights).sum(), weights

    gradient, weights = jax.grad(loss, has_aux=True)(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: attention("concat"), "unknown attention 'concat'; choose one of: additive, dot"),
        (lambda: attention("dot", coverage=True), "coverage enters additive scores, not dot"),
        (lambda: attention("additive", features=0), "features=0 of an attention is below 1"),
        (lambda: attention("local_monotonic", window=0), "window=0 of an attention is below 1"),
        (
            lambda: attention("scaled").init(jax.random.key(0), 5, 10),
            "not the decoder's 5 with the encoder's 10",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
