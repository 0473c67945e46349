"""Converted parameters give the other framework's outputs: Flax live, PyTorch by its goldens."""

import pathlib

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_cases import ALL, B, D, H, carry_of, normal, params_of

from dlcore.errors import InputError
from dlcore.nn.recurrent import LSTM, GRUAfter, ProjectionLSTM, cell, scan
from dlcore.nn.recurrent.convert import (
    from_flax,
    from_pytorch,
    stack_from_pytorch,
    stack_to_pytorch,
    to_flax,
    to_pytorch,
)

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "goldens" / "recurrent.npz")
# PyTorch's nets in the goldens: name, options, whether there is a second direction.
NETS = {
    "rnn": ({}, False),
    "irnn": ({}, False),
    "lstm": ({}, True),
    "lstm_projection": ({"projection": 2}, False),
    "gru_after": ({}, True),
}
FLAX = {
    "rnn": flax.linen.SimpleCell(H),
    "irnn": flax.linen.SimpleCell(H, activation_fn=jax.nn.relu),
    "lstm": flax.linen.LSTMCell(H),
    "lstm (optimised)": flax.linen.OptimizedLSTMCell(H),
    "gru_after": flax.linen.GRUCell(H),
}


def assert_close(actual, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), actual, expected
    )


def golden(group):
    return {key[len(group) + 1 :]: GOLDEN[key] for key in GOLDEN if key.startswith(group + "/")}


def whole_net(made, layers, bidirectional, x, mask):
    """Runs layers of one or two directions; returns y (T, B, F) and carries in PyTorch's order."""
    carries = []
    for layer in range(len(layers) // (2 if bidirectional else 1)):
        outputs = []
        for suffix in (f"l{layer}", f"l{layer}_reverse")[: 1 + bidirectional]:
            params = layers[suffix]
            prepared = made.prepare(params, {}, x, mask, False)
            carry, y = scan(
                made,
                params,
                made.initial_carry(x.shape[1]),
                prepared,
                mask=mask,
                reverse=suffix.endswith("reverse"),
            )
            carries.append(carry)
            outputs.append(y)
        x = jnp.concatenate(outputs, axis=-1)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries)


@pytest.mark.parametrize("name", NETS)
def test_pytorch(name):
    """Stacks in both directions give PyTorch's outputs, carries and gradients of padded batches."""
    options, bidirectional = NETS[name]
    made = cell(name, 4, **options)
    x, state, slopes = GOLDEN[f"{name}/x"], golden(f"{name}/state"), golden(f"{name}/slope")
    mask = jnp.asarray(np.arange(len(x))[:, None] < GOLDEN["lengths"][None])
    layers = stack_from_pytorch(made, state)

    @jax.jit
    def run(layers, x, g):
        y, vjp, carry = jax.vjp(
            lambda layers, x: whole_net(made, layers, bidirectional, x, mask),
            layers,
            x,
            has_aux=True,
        )
        return y, carry, vjp(g)

    y, carry, (d_layers, dx) = run(layers, x, GOLDEN[f"{name}/g"])
    assert_close(y, GOLDEN[f"{name}/y"])
    assert_close(carry, golden(f"{name}/carry"))
    assert_close(dx, GOLDEN[f"{name}/dx"])
    # A gradient converts as its parameter does; each bias has the gradient of their sum.
    for key, slope in stack_to_pytorch(made, d_layers).items():
        if not key.startswith("bias_hh"):
            np.testing.assert_allclose(slope, slopes[key], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", NETS)
def test_pytorch_live(name):
    """Our own parameters in PyTorch's cells, step by step."""
    torch = pytest.importorskip("torch")
    modules = {"rnn": torch.nn.RNN, "irnn": torch.nn.RNN, "gru_after": torch.nn.GRU}
    options = {"irnn": {"nonlinearity": "relu"}, "lstm_projection": {"proj_size": 1}}
    module = modules.get(name, torch.nn.LSTM)(D, H, **options.get(name, {}))
    made = ALL[name]
    arrays = stack_to_pytorch(made, {"l0": params_of(made)})
    module.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    x = normal(0, 5, B, D)
    with torch.no_grad():
        expected, _ = module(torch.from_numpy(np.array(x)))
    params = params_of(made)
    _, y = scan(made, params, made.initial_carry(B), made.project(params, x))
    assert_close(y, expected.numpy())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("rnn", "lstm", "gru_after")))
        for name in FLAX
    ],
)
def test_flax(name):
    """Flax's parameters work in our cells, and ours in Flax's."""
    theirs, ours = FLAX[name], ALL[name.split()[0]]
    carry, x = carry_of(ours), normal(0, B, D)
    flax_carry = (carry["c"], carry["h"]) if "c" in carry else carry["h"]
    variables = jax.jit(theirs.init)(jax.random.key(0), flax_carry, x)
    tree = jax.tree.map(lambda leaf: normal(leaf.size, *leaf.shape), variables["params"])

    new, y = ours(from_flax(ours, tree), carry, x)
    flax_new, flax_y = theirs.apply({"params": tree}, flax_carry, x)
    assert_close(y, flax_y)
    assert_close((new["c"], new["h"]) if "c" in new else new["h"], flax_new)

    params = params_of(ours)
    _, flax_y = theirs.apply({"params": to_flax(ours, params)}, flax_carry, x)
    assert_close(ours(params, carry, x)[1], flax_y)


@pytest.mark.parametrize("name", NETS)
def test_there_and_back(name):
    made = ALL[name]
    params = params_of(made)
    pairs = [(from_pytorch, to_pytorch), (from_flax, to_flax)]
    for back, there in pairs[: 1 if name == "lstm_projection" else 2]:
        jax.tree.map(np.testing.assert_array_equal, back(made, there(made, params)), dict(params))


@pytest.mark.parametrize("name", sorted(ALL.keys() - NETS.keys()))
def test_cells_without_a_counterpart(name):
    made = ALL[name]
    kind = type(made).__name__
    with pytest.raises(InputError, match=f"PyTorch has no {kind}; convert one of: GRUAfter, LSTM"):
        to_pytorch(made, params_of(made))
    with pytest.raises(InputError, match=f"PyTorch has no {kind}"):
        from_pytorch(made, {})
    with pytest.raises(InputError, match=f"Flax has no {kind}; convert one of: GRUAfter, LSTM, V"):
        to_flax(made, params_of(made))
    with pytest.raises(InputError, match=f"Flax has no {kind}"):
        from_flax(made, {})


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


def lstm_arrays():
    return to_pytorch(LSTM(H), params_of(LSTM(H)))


def gru_tree():
    return to_flax(GRUAfter(H), params_of(GRUAfter(H)))


@pytest.mark.parametrize(
    "convert, message",
    [
        (lambda: from_pytorch(LSTM(H), without(lstm_arrays(), "bias_hh")), "needs exactly bias_hh"),
        (lambda: from_pytorch(LSTM(H), {}), "given are no parameters"),
        (lambda: from_pytorch(LSTM(H + 1), lstm_arrays()), r"\(12, 2\), but .* needs \(16, 2\)"),
        (lambda: from_pytorch(GRUAfter(H), lstm_arrays()), r"\(12, 2\), but .* needs \(9, 2\)"),
        (lambda: from_pytorch(ProjectionLSTM(H), lstm_arrays()), "needs exactly .* weight_hr"),
        (lambda: from_flax(GRUAfter(H), without(gru_tree(), "hn")), "needs exactly hn/bias"),
        (lambda: from_flax(LSTM(H), gru_tree()), "given are hn/bias.* needs exactly hf/bias"),
        (lambda: from_flax(ProjectionLSTM(H), {}), "Flax has no ProjectionLSTM"),
        (
            lambda: stack_from_pytorch(LSTM(H), {"weight_ih": 0}),
            "'weight_ih' is not a parameter of",
        ),
    ],
)
def test_wrong_arrays(convert, message):
    with pytest.raises(InputError, match=message):
        convert()
