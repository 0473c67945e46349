"""The neural Turing machine, beside plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.recurrent import LSTM, Recurrent, TuringMachine
from dlcore.nn.recurrent.turing import (
    Heads,
    access,
    address,
    circular_convolution,
    cosine_similarity,
    read,
    sharpen,
    trace,
    write,
)

B, T, D, H, N, W = 3, 5, 4, 6, 7, 5


def machine(controller="lstm", reads=2, writes=2, reach=1):
    inner = LSTM(H) if controller == "lstm" else None
    return TuringMachine(
        H, controller=inner, rows=N, width=W, read_heads=reads, write_heads=writes, reach=reach
    )


def parameters(cell, scale=1.0):
    params = cell.init(jax.random.key(0), D)
    keys = jax.random.split(jax.random.key(1), len(params))
    noise = {
        name: scale * jax.random.normal(key, params[name].shape)
        for name, key in zip(sorted(params), keys, strict=True)
    }
    return {name: leaf + noise[name] for name, leaf in params.items()}


def inputs(steps=T, batch=B):
    return jax.random.normal(jax.random.key(2), (batch, steps, D))


# The paper's equations for one sequence, with loops.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(-abs(x))) + max(x, 0)


def plain_step(cell, p, state, x):
    pre = x @ p["input_kernel"] + p["bias"] + state["reads"] @ p["read_kernel"]
    if cell.controller is None:
        h = np.tanh(pre)
    else:
        i, f, g, o = np.split(pre + state["h"] @ p["recurrent_kernel"], 4)
        state["c"] = sigmoid(f) * state["c"] + sigmoid(i) * np.tanh(g)
        h = state["h"] = sigmoid(o) * np.tanh(state["c"])
    told = [*(h @ p["head_kernel"] + p["head_bias"])]
    heads, shifts = cell.read_heads + cell.write_heads, 2 * cell.reach + 1

    def take(count, width):
        return [np.array([told.pop(0) for _ in range(width)]) for _ in range(count)]

    keys, strengths, gates = take(heads, W), take(heads, 1), take(heads, 1)
    moves, sharpenings = take(heads, shifts), take(heads, 1)
    erases, adds = take(cell.write_heads, W), take(cell.write_heads, W)
    assert not told
    memory, after = state["memory"], []
    for head in range(heads):
        key = np.tanh(keys[head])
        norms = [np.linalg.norm(key) * np.linalg.norm(row) for row in memory]
        found = np.exp(
            softplus(strengths[head][0])
            * np.array([key @ row / norm for row, norm in zip(memory, norms, strict=True)])
        )
        found /= found.sum()
        gate = sigmoid(gates[head][0])
        gated = gate * found + (1 - gate) * state["weights"][head]
        shift = np.exp(moves[head]) / np.exp(moves[head]).sum()
        moved = np.zeros(N)
        for i in range(N):
            for place, step in enumerate(range(-cell.reach, cell.reach + 1)):
                moved[i] += gated[(i - step) % N] * shift[place]
        sharp = moved ** (1 + softplus(sharpenings[head][0]))
        after.append(sharp / sharp.sum())
    writing = after[cell.read_heads :]
    for weights, erase in zip(writing, erases, strict=True):
        memory = memory * (1 - np.outer(weights, sigmoid(erase)))
    for weights, add in zip(writing, adds, strict=True):
        memory = memory + np.outer(weights, np.tanh(add))
    reads = np.concatenate([weights @ memory for weights in after[: cell.read_heads]])
    state.update(memory=memory, weights=after, reads=reads)
    return np.concatenate([h, reads])


def plain(cell, params, x, memory):
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    first = np.zeros(N)
    first[0] = 1
    state = {
        **{"h": np.zeros(H), "c": np.zeros(H), "memory": memory},
        "weights": [first] * cell.heads,
        "reads": np.full(cell.read_heads * W, 1e-6),
    }
    return np.stack([plain_step(cell, p, state, now) for now in np.asarray(x, np.float64)])


@pytest.mark.parametrize(
    ("reads", "writes", "reach", "controller"),
    [
        pytest.param(1, 1, 1, "feed_forward", marks=pytest.mark.slow),
        pytest.param(1, 1, 1, "lstm", marks=pytest.mark.slow),
        (3, 2, 2, "lstm"),
        pytest.param(3, 2, 2, "feed_forward", marks=pytest.mark.slow),
    ],
)
def test_the_machine_is_that_of_the_paper(controller, reads, writes, reach):
    cell = machine(controller, reads, writes, reach)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), parameters(cell))
        carry = cell.initial_carry(B)
        # Rows long enough that the eps inside the cosine is less than the tolerance.
        memory = jax.random.normal(jax.random.key(3), (B, W, N))
        carry = jax.tree.map(lambda a: a.astype(jnp.float64), carry | {"memory": memory})
        net, x = Recurrent(cell), inputs().astype(jnp.float64)
        found = jax.jit(lambda x: net.apply({"params": params}, x, carry=carry)[1])(x)
        for row in range(B):
            start = np.asarray(memory[row], np.float64).T
            expected = plain(cell, params, x[row], start)
            np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-6)


def composed(memory, before, heads):
    """The same as `access`, from its parts, for automatic differentiation."""
    told = heads.strength, heads.gate, heads.shift, heads.sharpening
    weights = address(cosine_similarity(heads.key, memory), before, *told)
    readers = weights.shape[1] - heads.erase.shape[1]
    new = write(memory, weights[:, readers:], heads.erase, heads.add)
    return new, weights, read(new, weights[:, :readers])


@pytest.mark.parametrize(("reads", "writes"), [pytest.param(1, 1, marks=pytest.mark.slow), (2, 3)])
def test_the_gradient_of_an_access_is_that_of_its_parts(reads, writes):
    k = reads + writes
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def draw(*shape):
        return jax.random.normal(next(keys), (B, *shape))

    memory, before = draw(W, N), jax.nn.softmax(draw(k, N))
    heads = Heads(
        draw(k, W),
        jax.nn.softplus(draw(k)),
        jax.nn.sigmoid(draw(k)),
        jax.nn.softmax(draw(k, 3)),
        1 + jax.nn.softplus(draw(k)),
        jax.nn.sigmoid(draw(writes, W)),
        draw(writes, W),
    )
    cotangents = draw(W, N), draw(k, N), draw(reads, W)
    found, expected = (
        jax.jit(lambda cotangents, one=one: pulled(one, (memory, before, heads), cotangents))(
            cotangents
        )
        for one in (access, composed)
    )
    networks.assert_close(found, expected, tolerance=2e-5)


def pulled(function, arguments, cotangents):
    """The results of a function and the cotangents of its arguments."""
    out, pull = jax.vjp(function, *arguments)
    return out, pull(cotangents)


@pytest.mark.slow
@pytest.mark.parametrize(
    "controller", ["lstm", pytest.param("feed_forward", marks=pytest.mark.slow)]
)
def test_the_gradient_is_that_of_differences(controller):
    cell = machine(controller)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), parameters(cell, 0.5))
        x = inputs().astype(jnp.float64)
        factor = jax.random.normal(jax.random.key(5), (B, T, cell.output_features), jnp.float64)

        @jax.jit
        def loss(params):
            carry = jax.tree.map(lambda a: a.astype(jnp.float64), cell.initial_carry(B))
            return (factor * Recurrent(cell).apply({"params": params}, x, carry=carry)[1]).sum()

        gradient = jax.grad(loss)(params)
        direction = parameters(cell, 1.0)
        moved = [
            loss(jax.tree.map(lambda a, d, s=s: a + s * d, params, direction))
            for s in (-1e-5, 1e-5)
        ]
        parts = jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)
        slope = sum(jax.tree.leaves(parts))
        assert float((moved[1] - moved[0]) / 2e-5) == pytest.approx(float(slope), rel=1e-6)


def test_equations_at_hand_worked_numbers():
    memory = jnp.array([[[3.0, 0, 1], [4, 2, 0]]])  # the rows (3, 4), (0, 2), (1, 0)
    cosines = cosine_similarity(jnp.array([[[1.0, 0]]]), memory)
    np.testing.assert_allclose(cosines, [[[0.6, 0, 1]]], atol=1e-6)
    weights = jnp.array([[[0.0, 0.5, 0.5]]])
    new = write(memory, weights, jnp.array([[[1.0, 0]]]), jnp.array([[[0, 10.0]]]))
    np.testing.assert_allclose(new, [[[3, 0, 0.5], [4, 7, 5]]])
    np.testing.assert_allclose(read(new, weights), [[[0.25, 6]]])
    moved = circular_convolution(weights, jnp.array([[[0.2, 0.8, 0]]]))
    np.testing.assert_allclose(moved, [[[0.1, 0.5, 0.4]]], rtol=1e-6)
    sharp = sharpen(jnp.array([[[0.2, 0.8, 0]]]), jnp.array([[2.0]]))
    np.testing.assert_allclose(sharp, [[[1 / 17, 16 / 17, 0]]], atol=1e-6)
    # All erase first and then all add: the second head does not erase what the first one added.
    one = jnp.ones((1, 2, 1))
    both = write(jnp.array([[[5.0]]]), one, one, jnp.array([[[1.0], [2.0]]]))
    np.testing.assert_allclose(both, [[[3.0]]])


def test_all_stays_finite():
    zeros, extreme = jnp.zeros((B, W, N)), 1e4
    weights = jnp.zeros((B, 2, N)).at[:, :, 0].set(1)
    ones = jnp.ones((B, W, N)), jnp.ones((B, 2, N)), jnp.ones((B, 1, W))
    step = jax.jit(lambda heads: pulled(access, (zeros, weights, heads), ones))
    for key in (0.0, 1.0):
        for size in (0.0, extreme):
            told = jnp.full((B, 2), size)
            heads = Heads(
                jnp.full((B, 2, W), key),
                told,
                jnp.zeros((B, 2)),
                jnp.zeros((B, 2, 3)).at[..., 1].set(1),
                1 + told,
                jnp.ones((B, 1, W)),
                jnp.ones((B, 1, W)),
            )
            for leaf in jax.tree.leaves(step(heads)):
                assert np.isfinite(leaf).all()


def test_a_batch_is_its_rows_and_padding_changes_nothing():
    cell = machine()
    net, params, x = Recurrent(cell), parameters(cell), inputs()
    run = jax.jit(functools.partial(net.apply, {"params": params}))
    carry, found = run(x)
    for row in range(B):
        own_carry, own = run(x[row : row + 1])
        np.testing.assert_allclose(own[0], found[row], atol=2e-6)
    padded = jnp.concatenate([x, jnp.full((B, 2, D), 9.0)], axis=1)
    np.testing.assert_allclose(run(padded)[1][:, :T], found, atol=2e-6)
    masked, cut = run(padded, lengths=jnp.full(B, T))
    networks.assert_close(masked, carry, tolerance=1e-5)
    assert (np.asarray(cut[:, T:]) == 0).all()


@pytest.mark.slow
def test_the_trace_ends_with_the_carry():
    cell = machine()
    params, x = parameters(cell), inputs()
    states = jax.jit(functools.partial(trace, cell))(params, x)
    carry, _ = jax.jit(Recurrent(cell).apply)({"params": params}, x)
    networks.assert_close(jax.tree.map(lambda leaf: leaf[:, -1], states), carry, tolerance=1e-5)
    assert states["weights"].shape == (B, T, 4, N)
    np.testing.assert_allclose(states["weights"].sum(-1), 1, rtol=1e-5)


def test_a_machine_starts_on_row_0_with_nothing_written():
    carry = machine().initial_carry(2)
    np.testing.assert_array_equal(carry["weights"][1, 3], np.eye(N)[0])
    assert float(carry["memory"].min()) == float(carry["memory"].max()) == np.float32(1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows=0 of a Turing machine"),
        ({"width": 0}, "width=0"),
        ({"features": 0}, "features=0"),
        ({"read_heads": 0}, "read_heads=0"),
        ({"write_heads": -1}, "write_heads=-1"),
        ({"rows": 4, "reach": 2}, "go from 0 to 1"),
        ({"reach": -1}, "reach=-1"),
        ({"controller": LSTM(5)}, "outputs 5 features, not 6"),
    ],
)
def test_bad_sizes_are_one_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        TuringMachine(**{"features": 6, "rows": 7, "width": 5} | options)
    assert "\n" not in str(error.value)
