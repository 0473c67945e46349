"""Noise inside recurrent layers, and the running statistics of their cells."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.recurrent.cell import Cell, zeros
from dlcore.nn.recurrent.layers import Bidirectional, Recurrent, RecurrentStack
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.nn.recurrent.normalised import BatchNormLSTM
from dlcore.nn.recurrent.registry import CELLS, cell

B, T, D, F = 4, 6, 3, 5
X = jax.random.normal(jax.random.key(0), (B, T, D))
LENGTHS = jnp.array([6, 3, 1, 0])
CELL = LSTM(F)


@dataclasses.dataclass(frozen=True)
class Counter(Cell):
    """y = h' = x + h, with the number of inputs seen in training as running statistics."""

    recurrent = ("recurrent_kernel",)

    def init(self, key, inputs):
        return {"recurrent_kernel": jnp.eye(self.features)}

    def init_state(self):
        return {"seen": jnp.zeros(())}

    def initial_carry(self, batch):
        return {"h": zeros(batch, self.features)}

    def prepare(self, params, state, x, mask, train):
        counts = jnp.broadcast_to(mask.sum() / mask.shape[0], (len(x), 1))
        return {"x": x, "counts": counts}

    def step(self, params, carry, projected, hooks):
        h = hooks.candidate(projected["x"]) + hooks.product("recurrent_kernel", carry["h"])
        return {"h": h}, {"y": h, "counts": projected["counts"][0]}

    def finish(self, state, outputs, train):
        return outputs["y"], {"seen": state["seen"] + outputs["counts"].sum()}


def same(a, b, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), a, b)


def test_noise_only_in_training():
    quiet = RecurrentStack((CELL, CELL))
    noisy = RecurrentStack((CELL, CELL), dropout=0.3, state_dropout=0.3, candidate_dropout=0.3)
    variables = jax.jit(noisy.init)(jax.random.key(1), X)
    np.testing.assert_array_equal(noisy.apply(variables, X)[1], quiet.apply(variables, X)[1])


def increments(rate, **inputs):
    """Returns the values that a `Counter` adds at each step to h = sum of x."""
    layer = Recurrent(Counter(8), **rate)
    variables = jax.jit(layer.init)(jax.random.key(1), jnp.ones((B, T, 8)), lengths=jnp.full(B, T))
    rngs = {"dropout": jax.random.key(5)}
    (_, y), _ = layer.apply(
        variables, lengths=jnp.full(B, T), train=True, rngs=rngs, mutable="batch_stats", **inputs
    )
    return y


def test_state_dropout_is_one_mask_for_all_steps():
    """From h = 1 and x = 0 the carry is 1, m, m^2, ...: a second mask would zero more of it."""
    y = increments({"state_dropout": 0.5}, x=jnp.zeros((B, T, 8)), carry={"h": jnp.ones((B, 8))})
    mask = np.asarray(y[:, 0])
    np.testing.assert_array_equal(np.unique(mask), [0, 2])
    np.testing.assert_array_equal(y, mask[:, None] ** np.arange(1, T + 1).reshape(1, T, 1))
    assert len(np.unique(mask, axis=0)) == B


def test_candidate_dropout_is_a_mask_for_each_step():
    y = increments({"candidate_dropout": 0.5}, x=jnp.ones((B, T, 8)))
    masks = np.diff(y, axis=1, prepend=0)
    np.testing.assert_array_equal(np.unique(masks), [0, 2])
    assert len(np.unique(masks.reshape(-1, 8), axis=0)) > B * T - 3


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_between_layers(variational):
    """Over identity cells the second layer's increments are the masked outputs of the first."""
    stack = RecurrentStack((Counter(8), Counter(8)), dropout=0.5, variational=variational)
    x, lengths = jnp.ones((B, T, 8)), jnp.full(B, T)
    variables = jax.jit(stack.init)(jax.random.key(1), x, lengths=lengths)
    rngs = {"dropout": jax.random.key(5)}
    (_, y, activations), _ = stack.apply(
        variables, x, lengths=lengths, train=True, rngs=rngs, mutable="batch_stats"
    )
    sums = np.arange(1, T + 1).reshape(1, T, 1) * np.ones((B, T, 8))
    np.testing.assert_array_equal(activations["layer_0"], sums)
    masks = np.diff(y, axis=1, prepend=0) / sums
    np.testing.assert_array_equal(np.unique(masks), [0, 2])
    assert (masks == masks[:, :1]).all() == variational
    assert len(np.unique(masks[:, 0], axis=0)) == B


@pytest.mark.parametrize("name", ["state_dropout", "candidate_dropout"])
def test_bad_rates(name):
    with pytest.raises(InputError, match="dropout rate 1.5 is not a probability"):
        Recurrent(CELL, **{name: 1.5}).init(jax.random.key(1), X)


QUICK = {"lstm_batch_norm"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in CELLS],
)
def test_every_cell_in_both_directions(name):
    """With all noise, shapes are right, padding has no effect, and all variables take part."""
    layer = Bidirectional(cell(name, F), state_dropout=0.3, candidate_dropout=0.3)
    variables = jax.jit(layer.init)(jax.random.key(1), X)
    longer = jnp.concatenate([X, jnp.full((B, 2, D), np.nan)], axis=1)

    @jax.jit
    def run(x):
        rngs = {"dropout": jax.random.key(2)}
        return layer.apply(
            variables, x, lengths=LENGTHS, train=True, rngs=rngs, mutable="batch_stats"
        )

    (carry, y), stats = run(X)
    (padded_carry, padded_y), padded_stats = run(longer)
    assert y.shape == (B, T, 2 * layer.cell.output_features) and np.isfinite(y).all()
    same(padded_carry, carry, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(padded_y[:, :T], y, rtol=1e-5, atol=1e-6)
    same(padded_stats, stats, rtol=1e-5, atol=1e-6)
    assert bool(stats) == ("batch_stats" in variables) == (name == "lstm_batch_norm")
    for leaf in jax.tree.leaves(stats):
        # No sequence reaches step 6, so later steps keep their initial statistics.
        assert (leaf[:6] != leaf[6:7]).any() and (leaf[6:] == leaf[6:7]).all()


@pytest.mark.slow
def test_statistics_backwards_count_from_the_end():
    """A reversed net over x equals a forward net over each reversed sequence."""
    lengths = jnp.array([6, 3, 2, 2])
    turned = np.array(X)
    for row, length in enumerate(map(int, lengths)):
        turned[row, :length] = turned[row, :length][::-1]
    backward = Recurrent(BatchNormLSTM(F, steps=3), reverse=True)
    variables = jax.jit(backward.init)(jax.random.key(1), X)
    forward = Recurrent(backward.cell)
    options = {"lengths": lengths, "train": True, "mutable": "batch_stats"}
    run, run_forward = (
        jax.jit(functools.partial(net.apply, **options)) for net in (backward, forward)
    )
    (carry, y), stats = run(variables, X)
    (expected_carry, expected_y), expected_stats = run_forward(variables, turned)
    same(carry, expected_carry, rtol=1e-6)
    same(stats, expected_stats, rtol=1e-6)
    for row, length in enumerate(map(int, lengths)):
        np.testing.assert_allclose(y[row, :length][::-1], expected_y[row, :length], rtol=1e-6)
        assert not y[row, length:].any()
    whole = backward.apply(variables, X)[1]
    same(whole, forward.apply(variables, X[:, ::-1])[1][:, ::-1], rtol=1e-6)


def test_running_statistics():
    layer = Recurrent(Counter(D))
    variables = layer.init(jax.random.key(1), X, lengths=LENGTHS, train=True)
    assert variables["batch_stats"]["seen"] == 0
    assert "batch_stats" not in Recurrent(CELL).init(jax.random.key(1), X)
    for expected in (10, 20):
        _, new = layer.apply(variables, X, lengths=LENGTHS, train=True, mutable="batch_stats")
        variables |= new
        assert variables["batch_stats"]["seen"] == expected
    _, new = layer.apply(variables, X, lengths=LENGTHS, mutable="batch_stats")
    assert new["batch_stats"]["seen"] == 20
