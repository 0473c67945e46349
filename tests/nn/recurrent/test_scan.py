"""The scan equals the definition: one sequence at a time, one step at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_cases import (
    ALL,
    LENGTHS,
    MASK,
    B,
    D,
    H,
    T,
    carry_of,
    loss_and_gradients,
    normal,
    one_by_one,
    params_of,
    random_noise,
    run,
)

from dlcore.nn.recurrent import LSTM, LayerNormLSTM, Noise, Vanilla, reverse_by_length, scan
from dlcore.nn.recurrent.cell import Hooks

X = normal(0, T, B, D)
# Two more steps, and garbage in all padding.
GARBAGE = np.float32(1e30) * np.asarray(normal(1, T + 2, B, D))
PADDED = GARBAGE.copy()
PADDED[:T][MASK] = np.asarray(X)[MASK]
every_cell = pytest.mark.parametrize("name", ALL)


def cells(*quick):
    """Every cell, those not among `quick` marked as slow."""
    marks = pytest.mark.slow
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[marks] * (name not in quick)) for name in ALL]
    )


both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])


def assert_same(actual, expected, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


@functools.cache
def scanned(name, reverse):
    cell = ALL[name]
    return loss_and_gradients(run, cell, params_of(cell), carry_of(cell), PADDED, reverse=reverse)


def check_against_loop(name, **options):
    cell = ALL[name]
    arguments = cell, params_of(cell), carry_of(cell)
    outputs, gradients = loss_and_gradients(run, *arguments, PADDED, **options)
    expected, expected_gradients = loss_and_gradients(one_by_one, *arguments, X, **options)
    assert_same((outputs[0], outputs[1][:T]), expected)
    d_params, d_carry, d_x = gradients
    assert_same((d_params, d_carry, d_x[:T]), expected_gradients)


@cells("lstm", "lstm_batch_norm", "gru")
def test_scan_of_padded_sequences_is_the_loop_over_each_alone(name):
    """Padding and the other sequences of the batch change no outputs, carries or gradients."""
    check_against_loop(name, reverse=False)


@cells("lstm", "lstm_batch_norm", "gru")
def test_backwards_is_forwards_over_the_reversed_sequences(name):
    cell = ALL[name]
    turned = reverse_by_length(PADDED, LENGTHS)
    (carry, y), (d_params, d_carry, d_x) = loss_and_gradients(
        run, cell, params_of(cell), carry_of(cell), turned, reverse=False
    )
    y, d_x = (reverse_by_length(along, LENGTHS) for along in (y, d_x))
    assert_same(scanned(name, True), ((carry, y), (d_params, d_carry, d_x)))


@cells("lstm", "lstm_batch_norm", "gru")
@both_ways
def test_padding_gives_zero_and_gets_no_gradient(name, reverse):
    (_, y), (_, _, d_x) = scanned(name, reverse)
    for padding in (y, d_x):
        assert not padding[T:].any() and not padding[:T][~MASK].any()


@pytest.mark.parametrize(
    "name, options",
    [
        ("lstm", {"detach": 2}),
        pytest.param("lstm", {"detach": 2, "reverse": True}, marks=pytest.mark.slow),
        ("lstm", {"noise": "state"}),
        *(
            pytest.param(
                name,
                {"noise": "both", "detach": 2, "reverse": "batch" not in name},
                marks=[pytest.mark.slow] * (name != "lstm_batch_norm"),
            )
            for name in ("lstm_batch_norm", "lstm_projection", "gru", "gru_after", "highway")
        ),
    ],
    ids=str,
)
def test_scan_is_the_loop_with(name, options):
    options = dict(options)
    if "noise" in options:
        both = random_noise(ALL[name])
        kind = options["noise"]
        options["noise"] = both if kind == "both" else Noise(**{kind: getattr(both, kind)})
    check_against_loop(name, **options)


def test_a_sequence_of_length_zero_gives_its_carry_back():
    cell = LSTM(H)
    start = carry_of(cell)
    lengths = np.array([LENGTHS[0], 0], np.int32)
    carry, y = run(cell, params_of(cell), start, X, lengths=lengths)
    assert not y[:, 1].any()
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), carry, start)


@cells("lstm", "gru")
def test_jit_changes_nothing(name):
    cell = ALL[name]
    arguments = params_of(cell), carry_of(cell), PADDED
    with jax.disable_jit():
        plain = run(cell, *arguments)
    assert_same(scanned(name, False)[0], plain)


@every_cell
def test_half_precision_beside_a_carry_in_single_precision_traces(name):
    cell = ALL[name]
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params_of(cell), X))

    def loss(params, x):
        return run(cell, params, carry_of(cell), x)[1].sum()

    with jax.numpy_dtype_promotion("standard"):
        gradients = jax.eval_shape(jax.grad(loss, argnums=(0, 1)), *halves)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, halves)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lstm_peephole", marks=pytest.mark.slow),
        "gru_after",
        pytest.param("highway", marks=pytest.mark.slow),
    ],
)
def test_gradients_in_half_precision_are_summed_in_single_precision(name):
    """A sum of bfloat16 over 400 steps is wrong by 4 to 7 percent; that of rounded steps is not."""
    cell, steps = ALL[name], 400
    halves = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16),
        (cell.init(jax.random.key(0), inputs=D), cell.initial_carry(B), normal(0, steps, B, D)),
    )

    @jax.jit
    @jax.grad
    def gradient(params, carry, x):
        _, y = scan(cell, params, carry, cell.prepare(params, {}, x, None, False))
        return (y.astype(jnp.float32) * (1 + normal(1, steps, B, H))).sum()

    found = gradient(*halves)
    expected = gradient(*jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves))
    for path, wanted in expected.items():
        error = jnp.linalg.norm(found[path].astype(jnp.float32) - wanted)
        assert error < 0.02 * jnp.linalg.norm(wanted), path


def test_layer_normalisation_in_half_precision_rounds_its_result_alone():
    """With a mean of bfloat16, numbers around 10 would be off by 3 percent of their deviation."""
    cell = LayerNormLSTM(H)
    params = cell.init(jax.random.key(0), D)
    params["input_kernel"] += 10
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, jnp.eye(D)))
    found = cell.project(*halves)
    expected = cell.project(*jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves))
    np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


def test_the_gradient_is_the_sum_over_the_steps():
    """Back-propagation through time: dL/dW = sum_t dL/dW_t, W_t the parameters of step t alone."""
    cell = LSTM(H)
    params, carry = params_of(cell), carry_of(cell)

    @jax.jit
    @jax.grad
    def by_step(params):
        now, total = carry, 0.0
        for t in range(T):
            now, y = cell(jax.tree.map(lambda leaf, t=t: leaf[t], params), now, X[t])
            total += jnp.sum(y**2)
        return total

    def loss(params):
        return jnp.sum(scan(cell, params, carry, cell.project(params, X))[1] ** 2)

    steps = by_step(jax.tree.map(lambda leaf: jnp.stack([leaf] * T), params))
    assert_same(jax.grad(loss)(params), jax.tree.map(lambda leaf: leaf.sum(0), steps))


def reach(detach, reverse=False):
    """Returns bools (T, T), true where the output of a step has a gradient to an input."""
    cell = LSTM(H)
    params, carry = params_of(cell), carry_of(cell)

    @jax.jit
    @jax.jacobian
    def jacobian(x):
        prepared = cell.prepare(params, {}, x, None, False)
        return scan(cell, params, carry, prepared, detach=detach, reverse=reverse)[1].sum((1, 2))

    return np.any(np.asarray(jacobian(X)) != 0, axis=(2, 3))


def test_truncation_cuts_the_gradient_where_it_says():
    """Gradients reach all of the past within blocks of `detach` steps, and nothing before."""
    past = np.tri(T, dtype=bool)
    block = np.arange(T) // 2
    np.testing.assert_array_equal(reach(None), past)
    np.testing.assert_array_equal(reach(1), np.eye(T, dtype=bool))
    np.testing.assert_array_equal(reach(2), past & (block[:, None] == block[None]))
    block = block[::-1]
    np.testing.assert_array_equal(reach(2, reverse=True), past.T & (block[:, None] == block[None]))


def test_truncation_at_the_window_is_none_inside_it():
    """With detach = T only the carry before the window has no gradient."""
    cell = LSTM(H)
    arguments = cell, params_of(cell), carry_of(cell), X
    outputs, (d_params, d_carry, d_x) = loss_and_gradients(run, *arguments)
    cut_outputs, (cut_d_params, cut_d_carry, cut_d_x) = loss_and_gradients(
        run, *arguments, detach=T
    )
    assert_same((cut_outputs, cut_d_params, cut_d_x), (outputs, d_params, d_x))
    assert all(leaf.any() for leaf in jax.tree.leaves(d_carry))
    assert not any(leaf.any() for leaf in jax.tree.leaves(cut_d_carry))


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5])
def test_vanilla_gradient_goes_with_the_power_of_the_spectral_radius(radius):
    """Near 0 tanh is the identity, so dh_T/dh_0 = U^T, whose size for U = radius * Q is radius^T.

    (Bengio et al. 1994; Pascanu et al. 2013.)
    """
    cell, steps = Vanilla(H), 30
    params = cell.init(jax.random.key(0), D)
    params["recurrent_kernel"] = radius * params["recurrent_kernel"]

    def last(h, x):
        carry, _ = scan(cell, params, {"h": h}, cell.project(params, x))
        return carry["h"]

    @jax.jit
    def size(h, x, g):
        return jnp.linalg.norm(jax.vjp(lambda h: last(h, x), h)[1](g)[0])

    g = normal(2, 1, H)
    at_zero = size(jnp.zeros((1, H)), jnp.zeros((steps, 1, D)), g)
    np.testing.assert_allclose(at_zero, radius**steps * jnp.linalg.norm(g), rtol=1e-4)
    # Saturation only makes gradients smaller.
    assert size(jnp.zeros((1, H)), 3 * normal(3, steps, 1, D), g) < 0.1 * at_zero


def test_lstm_keeps_its_cell_as_long_as_the_forget_bias_says():
    """With no input and no weights c_T = sigmoid(bias)^T c_0, and so is the gradient."""
    steps = 20
    for bias in (0.0, 1.0):
        cell = LSTM(H, forget_bias=bias)
        params = cell.init(jax.random.key(0), D)
        params |= {"recurrent_kernel": jnp.zeros((H, 4 * H))}

        def last(c, cell=cell, params=params):
            carry = {"h": jnp.zeros((1, H)), "c": c}
            prepared = cell.project(params, jnp.zeros((steps, 1, D)))
            return scan(cell, params, carry, prepared)[0]["c"].sum()

        value, slope = jax.value_and_grad(last)(jnp.ones((1, H)))
        kept = (1 / (1 + np.exp(-bias))) ** steps
        np.testing.assert_allclose(value, H * kept, rtol=1e-5)
        np.testing.assert_allclose(slope, np.full((1, H), kept), rtol=1e-5)


def test_one_step_is_the_scan_of_one():
    cell = LSTM(H)
    params, carry = params_of(cell), carry_of(cell)
    hooks = Hooks(lambda name, h: h @ params[name])
    stepped = cell.step(params, carry, cell.project(params, X[0]), hooks)
    scanned_carry, y = scan(cell, params, carry, cell.project(params, X[:1]))
    assert_same((scanned_carry, y[0]), stepped)
