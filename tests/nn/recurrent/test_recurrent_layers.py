"""Recurrent layers equal a plain loop over the cell, with padding and with noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import parallel
from dlcore.errors import InputError
from dlcore.nn.recurrent.layers import (
    Bidirectional,
    Recurrent,
    RecurrentStack,
    repeat_input,
    reset_carry,
)
from dlcore.nn.recurrent.lstm import LSTM

B, T, D, F = 4, 6, 3, 5
X = jax.random.normal(jax.random.key(0), (B, T, D))
LENGTHS = jnp.array([6, 3, 1, 0])
CELL = LSTM(F)

LAYERS = {
    "forward": Recurrent(CELL),
    "reverse": Recurrent(CELL, reverse=True),
    "concat": Bidirectional(CELL),
    "stack": RecurrentStack(
        (CELL, CELL), residual=True, dropout=0.3, state_dropout=0.3, candidate_dropout=0.3
    ),
    "bidirectional stack": RecurrentStack(
        (CELL, LSTM(F + 1)), bidirectional=True, merge="sum", dropout=0.3, variational=True
    ),
}


SLOW = {"reverse", "stack", "bidirectional stack"}  # "concat" is both directions


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LAYERS],
)
def case(request):
    """Returns the module, its variables and `apply`, compiled and in training mode."""
    module = LAYERS[request.param]
    variables = jax.jit(module.init)(jax.random.key(1), X)

    @jax.jit
    def apply(variables, x, lengths):
        rngs = {"dropout": jax.random.key(2)}
        return module.apply(variables, x, lengths=lengths, train=True, rngs=rngs)

    return module, variables, apply


def loop(cell, params, x, length, reverse):
    """Computes carry and outputs of one sequence, step by step, without padding."""
    carry, ys = cell.initial_carry(1), [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, ys[t] = cell(params, carry, x[None, t])
    return carry, jnp.concatenate([*ys, jnp.zeros((len(x) - length, cell.output_features))])


def same(a, b, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), a, b)


@pytest.mark.parametrize("reverse", [False, True])
def test_each_sequence_runs_as_alone(reverse):
    layer = Recurrent(CELL, reverse=reverse)
    params = jax.jit(layer.init)(jax.random.key(1), X)["params"]
    assert set(params) == {"input_kernel", "recurrent_kernel", "bias"}
    carry, y = layer.apply({"params": params}, X, lengths=LENGTHS)
    for row, length in enumerate(map(int, LENGTHS)):
        expected = loop(CELL, params, X[row], length, reverse)
        got = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], carry), y[row]
        same(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge", ["concat", "sum", "product", "mean"])
def test_bidirectional(merge):
    layer = Bidirectional(CELL, merge=merge)
    params = jax.jit(layer.init)(jax.random.key(1), X)["params"]
    carry, y = layer.apply({"params": params}, X, lengths=LENGTHS)
    ways = {
        way: Recurrent(CELL, reverse=way == "backward").apply(
            {"params": params[way]}, X, lengths=LENGTHS
        )
        for way in ("forward", "backward")
    }
    (_, forward), (_, backward) = ways.values()
    assert (forward[0] != backward[0]).all()
    expected = {
        "concat": np.concatenate([forward, backward], -1),
        "sum": np.add(forward, backward),
        "product": np.multiply(forward, backward),
        "mean": np.mean([forward, backward], 0),
    }[merge]
    np.testing.assert_array_equal(y, expected)
    assert not y[np.arange(y.shape[1]) >= np.asarray(LENGTHS)[:, None]].any()
    same(carry, {way: carry for way, (carry, _) in ways.items()}, rtol=0)


def test_unknown_merge():
    with pytest.raises(
        InputError, match="unknown merge 'max'; choose one of: concat, mean, product, sum"
    ):
        Bidirectional(CELL, merge="max").init(jax.random.key(1), X)


@pytest.mark.parametrize(
    ("bidirectional", "residual"),
    [
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
        (True, True),
    ],
)
def test_stack_is_layers_one_by_one(bidirectional, residual):
    cells = (CELL, LSTM(F), LSTM(F))
    stack = RecurrentStack(cells, bidirectional=bidirectional, residual=residual, dropout=0.5)
    params = jax.jit(stack.init)(jax.random.key(1), X)["params"]
    carry, y, activations = stack.apply({"params": params}, X, lengths=LENGTHS)
    same(
        jax.tree.map(jnp.shape, stack.initial_carry(B)),
        jax.tree.map(jnp.shape, carry),
    )
    x = X
    for i, kind in enumerate(cells):
        layer = Bidirectional(kind) if bidirectional else Recurrent(kind)
        one, above = layer.apply({"params": params[f"layer_{i}"]}, x, lengths=LENGTHS)
        x = above + x if residual and i > 0 else above
        np.testing.assert_array_equal(activations[f"layer_{i}"], x)
        same(carry[f"layer_{i}"], one, rtol=0)
    np.testing.assert_array_equal(y, x)


def test_residual_widths():
    with pytest.raises(ValueError, match="layer_1 maps 5 features to 7; with residuals"):
        RecurrentStack((LSTM(5), LSTM(7)), residual=True).init(jax.random.key(1), X)


def test_padding_changes_nothing(case):
    """This holds with noise too: a longer batch draws the same masks at the common steps."""
    _, variables, apply = case
    garbage = jnp.array([np.nan, np.inf, 1e30]).reshape(1, 3, 1)
    longer = jnp.concatenate([X, jnp.broadcast_to(garbage, (B, 3, D))], axis=1)

    def loss(variables, x):
        carry, y, *_ = apply(variables, x, LENGTHS)
        leaves = [*jax.tree.leaves(carry), y]
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves), (carry, y)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (carry, y)), (gradient, of_x) = run(variables, X)
    (_, (padded_carry, padded_y)), (padded_gradient, of_longer) = run(variables, longer)
    same(padded_carry, carry, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(padded_y[:, :T], y, rtol=1e-6, atol=1e-6)
    same(padded_gradient, gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_longer[:, :T], of_x, rtol=1e-5, atol=1e-6)
    past = np.arange(T + 3) >= np.asarray(LENGTHS)[:, None]
    assert not padded_y[past].any() and not of_longer[past].any()


def test_gradients_reach_every_parameter(case):
    _, variables, apply = case
    gradient = jax.grad(lambda v: jnp.sum(jnp.sin(apply(v, X, LENGTHS)[1])))(variables)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert (leaf != 0).mean() > 0.5, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_jit_and_repetition_change_nothing():
    module = LAYERS["stack"]
    variables = jax.jit(module.init)(jax.random.key(1), X)

    def apply(x):
        rngs = {"dropout": jax.random.key(2)}
        return module.apply(variables, x, lengths=LENGTHS, train=True, rngs=rngs)

    compiled = jax.jit(apply)
    same(compiled(X), apply(X), rtol=1e-5, atol=1e-6)
    same(compiled(X), compiled(X), rtol=0)


def test_the_batch_is_cut_anywhere(case):
    """Rows 1 and 3 as a micro-batch give their results in the whole batch, noise included."""
    module, variables, apply = case

    @jax.jit
    def part(variables, offset):
        with parallel.part_of_batch(parallel.Part(offset, 2)):
            rngs = {"dropout": jax.random.key(2)}
            rows = jnp.array([1, 3])
            return module.apply(variables, X[rows], lengths=LENGTHS[rows], train=True, rngs=rngs)

    whole = jax.tree.map(lambda leaf: leaf[1::2], apply(variables, X, LENGTHS))
    same(part(variables, 1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["forward", "stack"])
def test_no_future(name):
    module = LAYERS[name]
    variables = jax.jit(module.init)(jax.random.key(1), X)
    jacobian = jax.jacobian(lambda x: module.apply(variables, x[None])[1][0])(X[0])
    seen = np.abs(jacobian).max((1, 3)) > 0
    np.testing.assert_array_equal(seen, np.tril(np.ones((T, T), bool)))


def test_windows_with_the_carry_are_the_whole():
    module = RecurrentStack((CELL, CELL))
    variables = jax.jit(module.init)(jax.random.key(1), X)
    carry, y, _ = module.apply(variables, X)
    half, first, _ = module.apply(variables, X[:, :2], carry=module.initial_carry(B))
    end, second, _ = module.apply(variables, X[:, 2:], carry=half)
    np.testing.assert_allclose(np.concatenate([first, second], 1), y, rtol=1e-6, atol=1e-6)
    same(end, carry, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_detach_cuts_the_gradient():
    module = RecurrentStack((CELL,))
    variables = jax.jit(module.init)(jax.random.key(1), X)

    def last(x, detach):
        return module.apply(variables, x, detach=detach)[1][:, -1].sum()

    reached = np.abs(jax.grad(last)(X, 4)).max((0, 2)) > 0
    np.testing.assert_array_equal(reached, [False] * 4 + [True] * 2)


def test_reset_carry():
    initial = RecurrentStack((CELL,)).initial_carry(B)
    carry = jax.tree.map(lambda leaf: leaf + 1, initial)
    reset = jnp.array([True, False, False, True])
    h = reset_carry(carry, initial, reset)["layer_0"]["h"]
    np.testing.assert_array_equal(h, np.array([[0], [1], [1], [0]]) * np.ones((1, F)))


def test_repeat_input():
    repeated = repeat_input(X[:, 0], 4)
    assert repeated.shape == (B, 4, D)
    np.testing.assert_array_equal(repeated[:, 3], X[:, 0])
