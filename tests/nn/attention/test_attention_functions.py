"""Attention equals loops in NumPy and keeps the promises of its masks; its gradient is right.

Shapes: B batch, Q queries, K keys, H heads, G key heads, D features, E value features.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.attention.functions import attention, attention_weights, weighted_sum

B, Q, K, H, G, D, E = 2, 5, 7, 4, 2, 8, 3
RNG = np.random.default_rng(0)
QUERY = RNG.normal(size=(B, Q, H, D)).astype(np.float32)
KEY = RNG.normal(size=(B, K, G, D)).astype(np.float32)
VALUE = RNG.normal(size=(B, K, G, E)).astype(np.float32)
COTANGENT = RNG.normal(size=(B, Q, H, E)).astype(np.float32)
PADDING = (np.arange(K)[None] < np.array([[7], [4]]))[:, None, None]
RANDOM = RNG.random((B, H, Q, K)) < 0.6
RANDOM[0, 1, 2] = False
SLOPES = np.array([1, 0.5, 0.25, 0], np.float32)
PLACES = RNG.integers(0, K, (B, Q), dtype=np.int32)

CASES = {
    "plain": {},
    "scale": {"scale": 0.7},
    "padding": {"mask": PADDING},
    "mask": {"mask": RANDOM},
    "mask of queries": {"mask": RANDOM[:1, :1, :, :1]},
    "causal": {"causal": True},
    "slopes": {"slopes": SLOPES},
    "causal slopes": {"slopes": SLOPES, "causal": True, "mask": PADDING},
    "places": {"causal": True, "positions": PLACES[0]},
    "places of each": {"causal": True, "slopes": SLOPES, "positions": PLACES},
}


def loops(*, mask=True, slopes=None, positions=None, causal=False, scale=D**-0.5):
    """Computes the weights [B, H, Q, K] and the output [B, Q, H, E], one query at a time."""
    query, key, value = (np.asarray(x, np.float64) for x in (QUERY, KEY, VALUE))
    mask = np.broadcast_to(mask, (B, H, Q, K))
    places = np.broadcast_to(np.arange(K - Q, K) if positions is None else positions, (B, Q))
    weights, out = np.zeros((B, H, Q, K)), np.zeros((B, Q, H, E))
    for b, h, q in np.ndindex(B, H, Q):
        head, total = h // (H // G), 0.0
        for k in range(K):
            if mask[b, h, q, k] and not (causal and k > places[b, q]):
                score = scale * query[b, q, h] @ key[b, k, head]
                score -= 0 if slopes is None else slopes[h] * abs(places[b, q] - k)
                weights[b, h, q, k] = np.exp(score)
                total += weights[b, h, q, k]
        weights[b, h, q] /= total or 1
        out[b, q, h] = weights[b, h, q] @ value[b, :, head]
    return weights, out


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_and_outputs_are_those_of_loops(case):
    @jax.jit
    def run(query, key, value):
        weights = attention_weights(query, key, **case)
        return weights, attention(query, key, value, **case), weighted_sum(weights, value)

    weights, expected = loops(**case)
    found, *outputs = run(QUERY, KEY, VALUE)
    np.testing.assert_allclose(found, weights, atol=1e-6)
    np.testing.assert_array_equal(found == 0, weights == 0)
    for out in outputs:
        np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gradient_is_that_of_automatic_differentiation(case):
    def whole(*inputs):
        return (attention(*inputs, **case) * COTANGENT).sum()

    def parts(query, key, value):
        return (weighted_sum(attention_weights(query, key, **case), value) * COTANGENT).sum()

    @jax.jit
    def gradients(*inputs):
        return [jax.grad(form, (0, 1, 2))(*inputs) for form in (whole, parts)]

    for found, expected in zip(*gradients(QUERY, KEY, VALUE), strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-6)


def test_the_gradient_is_that_of_differences():
    @jax.jit
    def loss(*inputs):
        return (attention(*inputs, causal=True, mask=RANDOM) * COTANGENT).sum()

    inputs, step = (QUERY, KEY, VALUE), 1e-2
    for at, gradient in enumerate(jax.grad(loss, (0, 1, 2))(*inputs)):
        direction = RNG.normal(size=inputs[at].shape).astype(np.float32)
        ends = (
            loss(*inputs[:at], inputs[at] + sign * step * direction, *inputs[at + 1 :])
            for sign in (1, -1)
        )
        slope = (next(ends) - next(ends)) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=2e-3)


@pytest.mark.parametrize("chunk", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_a_query_that_sees_nothing_gives_and_gets_zeros(chunk):
    def loss(*inputs):
        return (attention(*inputs, mask=mask, chunk=chunk) * COTANGENT).sum()

    mask = jnp.ones((B, 1, Q, K), bool).at[1, :, 3].set(False)
    assert (attention(QUERY, KEY, VALUE, mask=mask, chunk=chunk)[1, 3] == 0).all()
    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(QUERY, KEY, VALUE)
    assert all(jnp.isfinite(x).all() for x in gradients)
    assert (gradients[0][1, 3] == 0).all() and (gradients[0][1, 2] != 0).all()
    nothing = jax.jit(jax.grad(lambda x: attention_weights(x, KEY, mask=mask).std()))(QUERY)
    assert jnp.isfinite(nothing).all() and (nothing[1, 3] == 0).all()


@pytest.mark.parametrize("garbage", [0.0, 1e4, -1e30])
@pytest.mark.parametrize("chunk", [None, 3])
def test_masked_keys_change_nothing_and_get_no_gradient(garbage, chunk):
    def loss(key, value):
        return (attention(QUERY, key, value, mask=PADDING, chunk=chunk) * COTANGENT).sum()

    real = PADDING[:, 0, 0, :, None, None]
    key, value = (jnp.where(real, x, garbage) for x in (KEY, VALUE))
    (found, gradients), (expected, clean) = (
        jax.jit(jax.value_and_grad(loss, (0, 1)))(*inputs)
        for inputs in ((key, value), (KEY, VALUE))
    )
    np.testing.assert_array_equal(found, expected)
    for one, other in zip(gradients, clean, strict=True):
        np.testing.assert_array_equal(one, other)
        assert (jnp.where(real, 0, one) == 0).all()
        assert (jnp.where(real, one, 1) != 0).all()


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_future_has_no_gradient_on_the_past(chunk):
    def outputs(key, value):
        return attention(QUERY, key, value, causal=True, chunk=chunk).sum((0, 2, 3))

    for gradient in jax.jit(jax.jacrev(outputs, (0, 1)))(KEY, VALUE):
        seen = np.abs(gradient).max((1, 3, 4)) > 0  # [Q, K]
        # A softmax over several keys has a gradient to each, and the first query sees three.
        np.testing.assert_array_equal(seen, np.tril(np.ones((Q, K), bool), K - Q))


def test_shared_heads_are_repeated_heads():
    key, value = (jnp.repeat(x, H // G, axis=2) for x in (KEY, VALUE))
    np.testing.assert_allclose(
        attention(QUERY, KEY, VALUE, mask=RANDOM),
        attention(QUERY, key, value, mask=RANDOM),
        atol=1e-6,
    )


@pytest.mark.parametrize("slopes", [None, SLOPES])
def test_one_query_on_a_cache_gives_the_last_row(slopes):
    whole = attention(QUERY, KEY[:, :Q], VALUE[:, :Q], causal=True, slopes=slopes)
    for at in range(Q):
        one = attention(
            QUERY[:, at : at + 1],
            KEY,
            VALUE,
            causal=True,
            slopes=slopes,
            positions=jnp.array([at]),
        )
        np.testing.assert_allclose(one[:, 0], whole[:, at], atol=1e-6)


def test_half_precision_has_a_softmax_in_single_precision():
    half = [x.astype(jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
    weights = attention_weights(*half[:2])
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    loss = jax.jit(jax.grad(lambda *x: attention(*x).astype(jnp.float32).sum(), (0, 1, 2)))
    gradients = loss(*half)
    assert all(x.dtype == jnp.bfloat16 for x in (attention(*half), *gradients))
    exact = attention(*(x.astype(jnp.float32) for x in half))
    np.testing.assert_allclose(attention(*half), exact, atol=2**-7)


# Arguments of `attention`, and whether accelerators then call JAX's own function.
SAME = {"query": QUERY, "key": KEY, "value": KEY}
LIBRARY = {
    "plain": (SAME, True),
    "scale": (SAME | {"scale": 0.3}, True),
    "causal": (SAME | {"key": KEY[:, :Q], "value": KEY[:, :Q], "causal": True}, True),
    "fewer queries": (SAME | {"causal": True}, False),
    "mask": (SAME | {"mask": RANDOM}, False),
    "slopes": (SAME | {"slopes": SLOPES}, False),
    "value width": (SAME | {"value": VALUE}, False),
    "chunk": (SAME | {"chunk": 2}, False),
}


@pytest.mark.parametrize("arguments, served", LIBRARY.values(), ids=LIBRARY)
def test_accelerators_take_the_library_where_it_serves(monkeypatch, arguments, served):
    calls, library = [], jax.nn.dot_product_attention

    def counted(*inputs, **options):
        calls.append(1)
        return library(*inputs, **options, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", counted)
    expected = attention(**arguments)
    assert not calls
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(attention(**arguments), expected, atol=1e-6)
    assert bool(calls) == served


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"query": QUERY[0]}, "must be"),
        ({"key": KEY[..., 1:]}, "features must be equal"),
        ({"key": KEY[:1], "value": VALUE[:1]}, "batch"),
        ({"query": QUERY[:, :, 1:]}, "divide"),
        ({"value": VALUE[:, 1:]}, "differ in more than features"),
        ({"mask": PADDING[0]}, "broadcast"),
        ({"mask": PADDING[..., 1:]}, "broadcast"),
        ({"slopes": SLOPES[1:]}, "one for each of 4 heads"),
        ({"positions": jnp.arange(K)}, "positions"),
    ],
)
@pytest.mark.parametrize("chunk", [None, 2])
def test_shapes_that_do_not_fit_are_named(arguments, message, chunk):
    with pytest.raises(ValueError, match=message):
        attention(**({"query": QUERY, "key": KEY, "value": VALUE} | arguments), chunk=chunk)
