"""A cell that attends from its old state, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.attention import AttendingCell
from dlcore.nn.attention.scores import Additive, Attention, General
from dlcore.nn.recurrent import GRU, LSTM


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def inputs(rows: int = 2, beams: int = 1, steps: int = 3) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs of 4 features, memories of 5 places with 3 features, and which places are real."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(rows * beams, steps, 4)), jnp.float32)
    memory = jnp.asarray(draw.normal(size=(rows, 5, 3)), jnp.float32)
    return x, memory, jnp.array([[True] * 5, [True] * 4 + [False]])[:rows]


def plain(params: dict, x: np.ndarray, memory: np.ndarray, mask: np.ndarray, gated: bool):
    """One example of an LSTM with additive attention, step by step (Xu et al. 2015, eqs. 1-5)."""
    p = jax.tree.map(np.asarray, params)
    h = c = np.zeros(6)
    outs = []
    for now in x:
        a = p["attention"]
        hidden = np.tanh(h @ a["query_kernel"] + memory @ a["memory_kernel"] + a["bias"])
        scores = np.where(mask, hidden @ a["score_kernel"], -np.inf)
        weights = softmax(scores)
        z = weights @ memory
        if gated:
            z = z * sigmoid(h @ p["gate_kernel"] + p["gate_bias"])
        cell = p["cell"]
        pre = np.concatenate([now, z]) @ cell["input_kernel"] + cell["bias"]
        i, f, g, o = np.split(pre + h @ cell["recurrent_kernel"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outs.append((h, z, weights))
    return [np.stack(part) for part in zip(*outs, strict=True)]


@pytest.mark.parametrize("gated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_against_the_equations(gated: bool) -> None:
    cell = AttendingCell(6, LSTM(6), Additive(7), 3, gated)
    params = cell.init(jax.random.key(1), 4)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases of 0 would hide mistakes
    x, memory, mask = inputs()
    memory = memory.at[1, 4].set(jnp.inf)  # padding, whatever it holds
    attended = cell.attention.prepare(params["attention"], memory, mask)
    carry, read = jax.jit(cell.run)(params, cell.initial_carry(2), x, attended)
    for row in range(2):
        own = np.where(mask[row][:, None], memory[row], 0)
        states, contexts, weights = plain(params, x[row], own, mask[row], gated)
        np.testing.assert_allclose(read.states[row], states, atol=1e-5)
        np.testing.assert_allclose(read.contexts[row], contexts, atol=1e-5)
        np.testing.assert_allclose(read.weights[row], weights, atol=1e-5)
        np.testing.assert_allclose(carry["h"][row], states[-1], atol=1e-5)
    assert (read.weights[1, :, 4] == 0).all()


@pytest.mark.parametrize(
    ("inner", "attention"),
    [
        (LSTM(6), Additive(7)),
        pytest.param(LSTM(6), General(), marks=pytest.mark.slow),
        pytest.param(GRU(6), Additive(7), marks=pytest.mark.slow),
        pytest.param(GRU(6), General(), marks=pytest.mark.slow),
    ],
)
def test_step_by_step_and_by_hypotheses(attention: Attention, inner: LSTM | GRU) -> None:
    cell = AttendingCell(6, inner, attention, 3)
    params = cell.init(jax.random.key(1), 4)
    x, memory, mask = inputs(beams=2)
    attended = attention.prepare(params["attention"], memory, mask)
    run = jax.jit(cell.run)
    carry, whole = run(params, cell.initial_carry(4), x, attended)
    # All steps at once are one step after another.
    now = cell.initial_carry(4)
    for step in range(3):
        now, read = run(params, now, x[:, step : step + 1], attended)
        np.testing.assert_allclose(read.states[:, 0], whole.states[:, step], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), now, carry)
    # The two hypotheses of an example are as if alone.
    for row in range(4):
        own = jax.tree.map(lambda leaf, row=row: leaf[row // 2][None], attended)
        _, alone = run(params, cell.initial_carry(1), x[row : row + 1], own)
        np.testing.assert_allclose(alone.states[0], whole.states[row], atol=1e-6)


def test_gradient_is_that_of_the_plain_loop() -> None:
    cell = AttendingCell(6, LSTM(6), Additive(7), 3)
    params = cell.init(jax.random.key(1), 4)
    x, memory, mask = inputs()

    def loss(params: dict, memory: jax.Array, by_step: bool) -> jax.Array:
        attended = cell.attention.prepare(params["attention"], memory, mask)
        carry, total = cell.initial_carry(2), jnp.zeros(())
        parts = [x[:, t : t + 1] for t in range(3)] if by_step else [x]
        for part in parts:
            carry, read = cell.run(params, carry, part, attended)
            total += (read.states**2).sum() + (read.weights**2).sum() + read.contexts.sum()
        return total

    found, wanted = (
        jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(params, memory, by_step)
        for by_step in (False, True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)
    assert all(jnp.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(found))
