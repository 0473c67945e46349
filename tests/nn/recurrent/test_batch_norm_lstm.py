"""The LSTM with batch normalisation at each step: NumPy, padding, devices, running statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_cases import D, H, normal, params_of, state_of

from dlcore import parallel
from dlcore.nn.recurrent import BatchNormLSTM, reverse_by_length, scan

T, B = 4, 8
CELL = BatchNormLSTM(H, steps=3, momentum=0.75, epsilon=1e-3)
X = normal(0, T, B, D)
LENGTHS = np.array([4, 4, 3, 3, 2, 2, 2, 1], np.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@functools.partial(jax.jit, static_argnames="train")
def apply(params, state, x, lengths, train=True):
    mask = jnp.arange(len(x))[:, None] < lengths[None]
    prepared = CELL.prepare(params, state, x, mask, train)
    carry, outputs = scan(CELL, params, CELL.initial_carry(x.shape[1]), prepared, mask=mask)
    y, state = CELL.finish(state, outputs, train)
    return y, state, carry


def numpy_net(x, lengths, train):
    """Computes Cooijmans et al. 2016, eq. 6-8, with each step's statistics over its real rows."""
    p, state = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), (params_of(CELL), state_of(CELL))
    )
    rows = x.shape[1]
    h, c, ys = np.zeros((rows, H)), np.zeros((rows, H)), np.zeros((len(x), rows, H))
    for t, now in enumerate(np.asarray(x, np.float64)):
        on = t < np.asarray(lengths)

        def normalise(site, v, t=t, on=on):
            slot = min(t, 2)
            mean, var = state[site]["mean"][slot], state[site]["var"][slot]
            if train:
                mean, var = v[on].mean(0), v[on].var(0)
                if t < 3:
                    running = state[site]
                    running["mean"][t] = 0.75 * running["mean"][t] + 0.25 * mean
                    running["var"][t] = 0.75 * running["var"][t] + 0.25 * var
            return (v - mean) / np.sqrt(var + 1e-3) * p[f"{site}_scale"]

        pre = normalise("input", now @ p["input_kernel"])
        pre = pre + normalise("recurrent", h @ p["recurrent_kernel"]) + p["bias"]
        i, f, g, o = np.split(pre, 4, axis=1)
        new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        out = sigmoid(o) * np.tanh(normalise("cell", new) + p["cell_bias"])
        c, h = np.where(on[:, None], new, c), np.where(on[:, None], out, h)
        ys[t] = np.where(on[:, None], out, 0)
    return ys, state, {"h": h, "c": c}


def assert_close(actual, expected, tolerance=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluation"])
def test_numpy(train):
    """After the third step evaluation uses the statistics of the third."""
    assert_close(
        apply(params_of(CELL), state_of(CELL), X, LENGTHS, train), numpy_net(X, LENGTHS, train)
    )


def test_steps_that_no_sequence_reaches_leave_their_statistics():
    lengths = jnp.minimum(LENGTHS, 1)
    _, state, _ = apply(params_of(CELL), state_of(CELL), X, lengths)
    for site in ("input", "recurrent", "cell"):
        for name in ("mean", "var"):
            old, new = state_of(CELL)[site][name], state[site][name]
            np.testing.assert_array_equal(new[1:], old[1:])
            assert not np.array_equal(new[0], old[0])


def test_padding_counts_for_nothing_in_training():
    """Garbage in the padding enters no statistics, and so no outputs and no gradients."""
    mask = (jnp.arange(T)[:, None] < LENGTHS[None])[..., None]

    @jax.jit
    def both(params, x):
        def loss(params, x):
            y, state, _ = apply(params, state_of(CELL), x, LENGTHS)
            return jnp.sum(jnp.sin(3 * y)), (y, state)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    results = [
        both(params_of(CELL), jnp.where(mask, X, size * normal(1, T, B, D))) for size in (0, 1e30)
    ]
    assert_close(results[1], results[0], 1e-6)
    assert not np.any(np.where(mask, 0, results[1][1][1]))


def test_evaluation_of_one_is_that_of_the_batch():
    whole, _, _ = apply(params_of(CELL), state_of(CELL), X, LENGTHS, train=False)
    for row, length in ((0, 4), (4, 2)):
        alone, _, _ = apply(
            params_of(CELL), state_of(CELL), X[:length, row : row + 1], jnp.array([length]), False
        )
        assert_close(alone[:, 0], whole[:length, row], 1e-6)


@pytest.mark.slow
def test_devices_share_their_statistics():
    """Four devices with two sequences each give the results and gradients of one with eight."""

    def step(params, x, lengths):
        def loss(params):
            y, state, _ = apply(params, state_of(CELL), x, lengths)
            return jnp.sum(jnp.sin(3 * y)), (y, state)

        gradient, (y, state) = jax.grad(loss, has_aux=True)(params)
        return y, state, gradient

    def part(params, x, lengths):
        with parallel.part_of_batch(
            parallel.Part(2 * jax.lax.axis_index("data"), axis_name="data")
        ):
            y, state, gradient = step(params, x, lengths)
        return y, state, jax.lax.psum(gradient, "data")

    y, state, gradient = jax.jit(step)(params_of(CELL), X, LENGTHS)
    parts = X.reshape(T, 4, 2, D).swapaxes(0, 1), LENGTHS.reshape(4, 2)
    parted_y, parted_state, parted_gradient = jax.pmap(
        part, "data", in_axes=(None, 0, 0), out_axes=(0, None, None)
    )(params_of(CELL), *parts)
    assert_close(parted_y.swapaxes(0, 1).reshape(T, B, H), y, 1e-6)
    assert_close(parted_state, state, 1e-6)
    assert_close(parted_gradient, gradient)


def test_start():
    params = CELL.init(jax.random.key(0), D)
    for name in ("input_scale", "recurrent_scale", "cell_scale"):
        np.testing.assert_array_equal(params[name], np.full_like(params[name], 0.1))
    state = CELL.init_state()
    assert state["recurrent"]["mean"].shape == (3, 4 * H) and state["cell"]["var"].shape == (3, H)
    assert not state["input"]["mean"].any() and (state["input"]["var"] == 1).all()


def test_a_step_alone_is_refused():
    with pytest.raises(ValueError, match="prepare, scan and finish"):
        CELL(params_of(CELL), CELL.initial_carry(B), X[0])


def test_reverse_by_length():
    x = jnp.arange(8).reshape(4, 2)
    turned = reverse_by_length(x, jnp.array([3, 0]))
    np.testing.assert_array_equal(turned, [[4, 1], [2, 3], [0, 5], [6, 7]])
    lengths = jnp.array([4, 2])
    np.testing.assert_array_equal(reverse_by_length(reverse_by_length(x, lengths), lengths), x)
