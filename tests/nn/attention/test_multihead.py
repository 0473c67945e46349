"""Multi-head attention equals loops over rows, steps and heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.attention import alibi_slopes
from dlcore.nn.attention.multihead import KeyValue, MultiHeadAttention

B, T, S, C, H = 3, 5, 7, 24, 4
D = C // H
CASES = {
    "plain": {},
    "biases": {"bias": True},
    "two groups": {"groups": 2, "bias": True},
    "one group": {"groups": 1},
    "qk norm": {"qk_norm": True},
    "rotary": {"rotary": True},
    "alibi": {"alibi": True},
    "all": {"groups": 2, "rotary": True, "alibi": True, "qk_norm": True, "bias": True},
}
# The rows start at different positions; neighbouring steps have distance 1 everywhere.
POSITIONS = np.arange(T)[None] + np.array([[0], [3], [40]])
MASK = np.random.default_rng(5).random((B, T, T)) < 0.7


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = normal(0, B, T, C)


@functools.cache
def case(name):
    """Returns the module and variables, none of which is 0."""
    layer = MultiHeadAttention(C, H, **CASES[name])
    leaves, structure = jax.tree.flatten(layer.init(jax.random.key(0), X, positions=POSITIONS))
    return layer, structure.unflatten([normal(i, *leaf.shape) / 2 for i, leaf in enumerate(leaves)])


@functools.partial(jax.jit, static_argnames=("name", "method", "causal"))
def apply(name, *args, method="__call__", **options):
    layer, variables = case(name)
    return layer.apply(variables, *args, method=method, **options)


def turned(x, position):
    """Multiplies a head's features, as complex numbers, by e^(i angle)."""
    rates = 10_000.0 ** (-2 * np.arange(D // 2) / D)
    z = (x[: D // 2] + 1j * x[D // 2 :]) * np.exp(1j * position * rates)
    return np.concatenate([z.real, z.imag])


def by_loops(name, x, memory, sees, positions=None):
    """Returns output and weights; query t of row b attends to memory step s if sees(b, t, s)."""
    layer, variables = case(name)
    p = jax.tree.map(np.asarray, variables["params"])
    groups = layer.groups or H
    positions = np.zeros((len(x), S)) if positions is None else positions

    def dense(part, row):
        return row @ p[part]["kernel"] + p[part].get("bias", 0.0)

    def prepared(head, norm, position):
        if layer.qk_norm:
            head = head / np.sqrt(np.mean(head**2) + 1e-6) * p[norm]["scale"]
        return turned(head, position) if layer.rotary else head

    output = np.zeros((*x.shape[:2], C))
    weights = np.zeros((len(x), H, x.shape[1], memory.shape[1]))
    for b in range(len(x)):
        projected = [(dense("key", row), dense("value", row)) for row in memory[b]]
        for t in range(x.shape[1]):
            queries, contexts = dense("query", x[b, t]), []
            for h in range(H):
                g = h // (H // groups)
                query = prepared(queries[h * D : (h + 1) * D], "query_norm", positions[b, t])
                score, value = {}, {}
                for s, (keys, values) in enumerate(projected):
                    if sees(b, t, s):
                        key = prepared(keys[g * D : (g + 1) * D], "key_norm", positions[b, s])
                        score[s] = query @ key / np.sqrt(D)
                        if layer.alibi:
                            score[s] -= alibi_slopes(H)[h] * abs(t - s)
                        value[s] = values[g * D : (g + 1) * D]
                divisor = sum(np.exp(score[s]) for s in score)
                for s in score:
                    weights[b, h, t, s] = np.exp(score[s]) / divisor
                contexts.append(sum((weights[b, h, t, s] * value[s] for s in score), np.zeros(D)))
            output[b, t] = dense("output", np.concatenate(contexts))
    return output, weights


@pytest.mark.parametrize(
    ("causal", "name"),
    [
        pytest.param(causal, name, marks=[pytest.mark.slow] * (not causal and name != "all"))
        for causal in (False, True)
        for name in CASES
    ],
)
def test_self_attention_against_loops(name, causal):
    def sees(b, t, s):
        return MASK[b, t, s] and (s <= t or not causal)

    y, weights = apply(name, X, positions=POSITIONS, mask=MASK[:, None], causal=causal)
    expected, expected_weights = by_loops(name, X, X, sees, POSITIONS)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-6)
    assert not np.asarray(weights)[expected_weights == 0].any()


@pytest.mark.parametrize("name", ["biases", "two groups", "qk norm"])
def test_beams_are_queries_on_one_memory(name):
    """Three beams per row give the results of loops in which each beam has its own memory."""
    beams = 3
    memory, x = normal(1, B, S, C), normal(2, B * beams, T, C)
    lengths = np.array([7, 4, 1])
    keys_values = apply(name, memory, method="project_keys_values")
    assert keys_values.key.shape == keys_values.value.shape == (B, case(name)[0].groups or H, S, D)
    mask = (np.arange(S)[None] < lengths[:, None])[:, None, None]
    y, weights = apply(name, x, keys_values, mask=mask, method="attend")
    expected, expected_weights = by_loops(
        name, x, np.repeat(memory, beams, 0), lambda row, t, s: s < lengths[row // beams]
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert weights.shape == (B, H, beams * T, S)
    split = weights.reshape(B, H, beams, T, S).swapaxes(1, 2).reshape(B * beams, H, T, S)
    np.testing.assert_allclose(split, expected_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "pieces", "room"),
    [
        *((name, (1,) * T, T) for name in CASES),
        *(
            pytest.param(name, (3, 1, 1), 3000, marks=[pytest.mark.slow] * (name != "all"))
            for name in CASES
        ),
    ],
)
def test_a_cache_changes_nothing(name, pieces, room):
    """The cache has room for exactly the steps, or for thousands that never come."""
    zeros, at = jnp.zeros((B, case(name)[0].groups or H, room, D)), 0
    cache = KeyValue(zeros, zeros)
    expected, _ = apply(name, X, positions=np.arange(T), causal=True)
    for steps in pieces:
        positions = np.broadcast_to(np.arange(at, at + steps), (B, steps))
        y, cache = apply(name, X[:, at : at + steps], cache, positions, method="attend_cached")
        np.testing.assert_allclose(y, expected[:, at : at + steps], rtol=1e-5, atol=1e-5)
        at += steps
    assert not any(leaf[:, :, T:].any() for leaf in cache)


def test_a_step_past_the_cache_is_not_seen():
    cache = apply("plain", X, method="project_keys_values")
    y, after = apply("plain", X[:, :1], cache, np.full((B, 1), T), method="attend_cached")
    jax.tree.map(np.testing.assert_array_equal, after, cache)
    np.testing.assert_allclose(
        y, apply("plain", X[:, :1], cache, method="attend")[0], rtol=1e-6, atol=1e-6
    )


def test_chunks_change_nothing():
    _, variables = case("all")
    chunked = MultiHeadAttention(C, H, **CASES["all"], chunk=2)
    options = {"positions": np.arange(T), "mask": MASK[:, None], "causal": True}
    y, weights = jax.jit(functools.partial(chunked.apply, **options))(variables, X)
    assert weights is None
    np.testing.assert_allclose(y, apply("all", X, **options)[0], rtol=1e-5, atol=1e-5)


def test_starts_as_zero():
    layer = MultiHeadAttention(C, H)
    y, weights = layer.apply(layer.init(jax.random.key(0), X), X)
    assert not y.any() and weights.any()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"heads": 5}, "5 heads cannot share 24 features; give a divisor"),
        ({"heads": 0}, "0 heads cannot share 24 features"),
        ({"heads": 4, "groups": 3}, "3 key and value heads cannot serve 4 heads; give a divisor"),
        ({"heads": 4, "groups": 0}, "0 key and value heads cannot serve 4 heads"),
        ({"heads": 4, "groups": 8}, "8 key and value heads cannot serve 4 heads"),
        ({"heads": 8, "rotary": True}, "heads of 3 features cannot be rotated in pairs"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        MultiHeadAttention(C, **options).init(jax.random.key(0), X, positions=np.arange(T))


def test_rotation_needs_positions():
    with pytest.raises(ValueError, match="rotary attention was given no positions"):
        MultiHeadAttention(C, H, rotary=True).init(jax.random.key(0), X)
