"""Every cell equals a NumPy step written from its paper's equations and starts as it should."""

import dataclasses

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_cases import ALL, B, D, H, carry_of, normal, params_of

from dlcore.errors import InputError
from dlcore.nn.recurrent import CELLS, GRU, LSTM, GRUAfter, Highway, ProjectionLSTM, Vanilla, cell
from dlcore.nn.recurrent.cell import Hooks
from dlcore.nn.recurrent.gru import gru_update, plain_gru_update
from dlcore.nn.recurrent.lstm import lstm_update, plain_lstm_update


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def vanilla(p, carry, x, keep):
    h = np.tanh(x @ p["input_kernel"] + carry["h"] @ p["recurrent_kernel"] + p["bias"])
    return {"h": keep * h}


def irnn(p, carry, x, keep):
    pre = x @ p["input_kernel"] + carry["h"] @ p["recurrent_kernel"] + p["bias"]
    return {"h": keep * np.maximum(pre, 0)}


def lstm_gates(p, carry, x):
    pre = x @ p["input_kernel"] + carry["h"] @ p["recurrent_kernel"] + p["bias"]
    return np.split(pre, 4, axis=1)


def lstm(p, carry, x, keep):
    i, f, g, o = lstm_gates(p, carry, x)
    c = sigmoid(f) * carry["c"] + sigmoid(i) * keep * np.tanh(g)
    return {"h": sigmoid(o) * np.tanh(c), "c": c}


def peephole(p, carry, x, keep):
    i, f, g, o = lstm_gates(p, carry, x)
    w_i, w_f, w_o = p["peephole"]
    i, f = sigmoid(i + w_i * carry["c"]), sigmoid(f + w_f * carry["c"])
    c = f * carry["c"] + i * keep * np.tanh(g)
    return {"h": sigmoid(o + w_o * c) * np.tanh(c), "c": c}


def projection(p, carry, x, keep):
    full = lstm(p, carry, x, keep)
    return {"h": full["h"] @ p["projection_kernel"], "c": full["c"]}


def amidi(p, carry, x, keep):
    w, b, a = p["input_kernel"], p["bias"], carry["h"]
    w_u, w_f, w_r, w_o, w_c = np.split(w, 5, axis=1)
    b_u, b_f, b_r, b_o, b_c = np.split(b, 5)
    u_u, u_f, u_r, u_o = np.split(p["recurrent_kernel"], 4, axis=1)
    update, forget = sigmoid(x @ w_u + a @ u_u + b_u), sigmoid(x @ w_f + a @ u_f + b_f)
    relevance, output = sigmoid(x @ w_r + a @ u_r + b_r), sigmoid(x @ w_o + a @ u_o + b_o)
    candidate = np.tanh(x @ w_c + (relevance * a) @ p["candidate_kernel"] + b_c)
    c = update * keep * candidate + forget * carry["c"]
    return {"h": output * c, "c": c}


def layer_norm(x):
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)


def layer_norm_lstm(p, carry, x, keep):
    pre = layer_norm(x @ p["input_kernel"]) * p["input_scale"] + p["bias"]
    pre = pre + layer_norm(carry["h"] @ p["recurrent_kernel"]) * p["recurrent_scale"]
    i, f, g, o = np.split(pre, 4, axis=1)
    c = sigmoid(f) * carry["c"] + sigmoid(i) * keep * np.tanh(g)
    h = sigmoid(o) * np.tanh(layer_norm(c) * p["cell_scale"] + p["cell_bias"])
    return {"h": h, "c": c}


def gru(p, carry, x, keep):
    h = carry["h"]
    w_r, w_u, w_c = np.split(p["input_kernel"], 3, axis=1)
    b_r, b_u, b_c = np.split(p["bias"], 3)
    u_r, u_u = np.split(p["recurrent_kernel"], 2, axis=1)
    relevance, update = sigmoid(x @ w_r + h @ u_r + b_r), sigmoid(x @ w_u + h @ u_u + b_u)
    candidate = np.tanh(x @ w_c + (relevance * h) @ p["candidate_kernel"] + b_c)
    return {"h": update * keep * candidate + (1 - update) * h}


def gru_after(p, carry, x, keep):
    h = carry["h"]
    w_r, w_u, w_c = np.split(p["input_kernel"], 3, axis=1)
    b_r, b_u, b_c = np.split(p["bias"], 3)
    u_r, u_u, u_c = np.split(p["recurrent_kernel"], 3, axis=1)
    reset, update = sigmoid(x @ w_r + h @ u_r + b_r), sigmoid(x @ w_u + h @ u_u + b_u)
    candidate = np.tanh(x @ w_c + b_c + reset * (h @ u_c + p["recurrent_bias"]))
    return {"h": update * keep * candidate + (1 - update) * h}


def highway(p, carry, x, keep):
    s, offset = carry["h"], x @ p["input_kernel"] + p["bias"]
    for layer, bias in ((1, p["depth_bias"][0]), (2, None)):
        g, t = np.split(offset + s @ p[f"recurrent_kernel_{layer}"], 2, axis=1)
        s = keep * np.tanh(g) * sigmoid(t) + s * (1 - sigmoid(t))
        offset = bias
    return {"h": s}


STEPS = {
    "rnn": vanilla,
    "irnn": irnn,
    "lstm": lstm,
    "lstm_peephole": peephole,
    "lstm_projection": projection,
    "lstm_amidi": amidi,
    "lstm_layer_norm": layer_norm_lstm,
    "gru": gru,
    "gru_after": gru_after,
    "highway": highway,
}


def assert_close(actual, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), actual, expected
    )


def test_every_cell_has_its_step():
    """The batch-normalised cell has no single step; its tests are in their own file."""
    assert STEPS.keys() == CELLS.keys() - {"lstm_batch_norm"}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "candidate masked"])
def test_step(name, masked):
    """Steps agree without and with recurrent dropout of the candidate."""
    made = ALL[name]
    params, carry, x = params_of(made), carry_of(made), normal(0, B, D)
    keep = 2.0 * (normal(1, B, H) > 0).astype(jnp.float32)
    if masked:
        hooks = Hooks(lambda name, h: h @ params[name], lambda update: update * keep)
        new, y = made.step(params, carry, made.project(params, x), hooks)
    else:
        new, y = made(params, carry, x)
    as_numpy = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, carry, x))
    expected = STEPS[name](*as_numpy, np.asarray(keep) if masked else 1.0)
    assert_close(new, expected)
    assert_close(y, expected["h"])


@pytest.mark.parametrize("name", CELLS)
def test_shapes(name):
    made = ALL[name]
    carry = made.initial_carry(B)
    assert all(leaf.shape[0] == B and not leaf.any() for leaf in carry.values())
    assert carry["h"].shape == (B, made.output_features)
    assert set(made.recurrent) <= params_of(made).keys()
    assert hash(made) == hash(dataclasses.replace(made))


@pytest.mark.parametrize(
    "plain, lean, widths",
    [
        (plain_lstm_update, lstm_update, [(B, 4 * H), (B, H)]),
        (plain_gru_update, gru_update, [(B, 3 * H), (B, 3 * H), (H,), (B, H)]),
    ],
    ids=["lstm", "gru"],
)
def test_lean_gradient_is_that_of_automatic_differentiation(plain, lean, widths):
    arguments = [normal(i, *shape) for i, shape in enumerate(widths)]
    y, vjp = jax.vjp(lambda *a: plain(*a, lambda candidate: candidate), *arguments)
    lean_y, lean_vjp = jax.vjp(lean, *arguments)
    cotangents = jax.tree.map(lambda leaf: normal(9, *leaf.shape), y)
    assert_close(lean_y, y)
    assert_close(lean_vjp(cotangents), vjp(cotangents))


def test_lstm_start():
    params = LSTM(H).init(jax.random.key(0), D)
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1, 0, 0], H))
    assert not LSTM(H, forget_bias=0.0).init(jax.random.key(0), D)["bias"].any()


@pytest.mark.parametrize(
    "name, kernel, gates",
    [
        ("rnn", "recurrent_kernel", 1),
        ("lstm", "recurrent_kernel", 4),
        ("gru", "recurrent_kernel", 2),
        ("gru", "candidate_kernel", 1),
        ("gru_after", "recurrent_kernel", 3),
        ("highway", "recurrent_kernel_2", 2),
    ],
)
def test_recurrent_kernels_start_orthogonal_gate_by_gate(name, kernel, gates):
    start = np.asarray(ALL[name].init(jax.random.key(0), D)[kernel])
    blocks = np.split(start, gates, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-5)
    if gates > 1:
        assert not np.allclose(blocks[0], blocks[1])


def test_irnn_starts_by_adding_its_inputs():
    """U = 1 and b = 0: with positive inputs h_T is their sum (Le, Jaitly & Hinton 2015)."""
    irnn = cell("irnn", H)
    params = irnn.init(jax.random.key(0), H) | {"input_kernel": jnp.eye(H)}
    x, carry = jnp.abs(normal(0, 4, B, H)), irnn.initial_carry(B)
    for now in x:
        carry, _ = irnn(params, carry, now)
    np.testing.assert_allclose(carry["h"], x.sum(0), rtol=1e-6)


def test_highway_starts_by_carrying():
    """At any depth each layer changes a share sigmoid(-2) = 0.12 of the state."""
    for depth in (1, 3):
        params = Highway(H, depth=depth).init(jax.random.key(0), D)
        biases = np.concatenate([params["bias"][None], params["depth_bias"]])
        np.testing.assert_array_equal(biases, np.tile(np.repeat([0, -2], H), (depth, 1)))
        assert len(params) == 3 + depth


def test_peepholes_start_at_the_lstm():
    key, x, carry = jax.random.key(0), normal(0, B, D), carry_of(LSTM(H))
    peephole, plain = ALL["lstm_peephole"], LSTM(H)
    assert_close(
        peephole(peephole.init(key, D), carry, x)[1], plain(plain.init(key, D), carry, x)[1]
    )


def test_parameter_counts():
    """Zaremba et al. 2014's small net: 4,651,600 with embedding and softmax of 10,000 words."""

    def count(made, inputs):
        shapes = jax.eval_shape(lambda key: made.init(key, inputs), jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    words = 10_000 * 200 + 200 * 10_000 + 10_000
    assert words + 2 * count(LSTM(200), 200) == 4_651_600
    assert count(GRU(5), 3) == 3 * (5 * 3 + 5 * 5 + 5)
    assert count(GRUAfter(5), 3) == count(GRU(5), 3) + 5
    # Sak et al. 2014, section 2.2, without peepholes: 4 (D + P) H + H P, and the biases.
    assert count(ProjectionLSTM(8, projection=3), 5) == 4 * (5 + 3) * 8 + 8 * 3 + 4 * 8


def test_the_two_grus_differ_and_flax_has_the_second():
    """With equal parameters they agree only without effect of the reset gate or the old state."""
    before, after = GRU(H), GRUAfter(H)
    params = params_of(after) | {"recurrent_bias": jnp.zeros(H)}
    gates, candidate = jnp.split(params["recurrent_kernel"], [2 * H], axis=1)
    same = params | {"recurrent_kernel": gates, "candidate_kernel": candidate}
    carry, x = carry_of(after), normal(0, B, D)
    blocks = {name: jnp.split(params[f"{name}_kernel"], 3, 1) for name in ("input", "recurrent")}
    biases = jnp.split(params["bias"], 3)
    # Flax's z is 1 - u.
    tree = {
        f"i{gate}": {"kernel": sign * w, "bias": sign * b}
        for gate, sign, w, b in zip("rzn", (1, -1, 1), blocks["input"], biases, strict=True)
    } | {
        f"h{gate}": {"kernel": sign * w}
        for gate, sign, w in zip("rzn", (1, -1, 1), blocks["recurrent"], strict=True)
    }
    tree["hn"]["bias"] = jnp.zeros(H)
    flax_y = flax.linen.GRUCell(H).apply({"params": tree}, carry["h"], x)[1]
    assert_close(after(params, carry, x)[1], flax_y)
    assert np.abs(before(same, carry, x)[1] - flax_y).max() > 1e-2
    start = after.initial_carry(B)
    assert_close(before(same, start, x)[1], after(params, start, x)[1])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cell("lstn", H), "unknown cell 'lstn'; choose one of: gru, gru_after"),
        (lambda: cell("gru", H, depth=3), "unknown option of the cell 'gru' 'depth'"),
        (lambda: cell("lstm", H, depth=3), "choose one of: forget_bias$"),
        (lambda: cell("lstm", 0), "features=0 of the cell 'lstm' is below 1"),
        (lambda: cell("highway", H, depth=0), "depth=0 of the cell 'highway' is below 1"),
        (lambda: Vanilla(H, activation="elu"), "unknown activation .* choose one of: relu, tanh"),
    ],
)
def test_bad_names_and_options(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_options_reach_the_cell():
    assert cell("highway", H, depth=5) == Highway(H, depth=5)
    assert cell("lstm_projection", H, projection=2).output_features == 2
    assert cell("lstm_projection", 10).output_features == 5
    assert cell("irnn", H) == Vanilla(H, activation="relu")
