"""Transformers equal the published equations in NumPy, and PyTorch's (make_goldens.py)."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformers import (
    BASE,
    MASK,
    MEMORY,
    MODERN,
    PAPER,
    C,
    H,
    S,
    T,
    X,
    drawn,
    made,
    read,
    with_position,
)

from dlcore.nn.attention import sinusoidal
from dlcore.nn.feed_forward import FeedForward
from dlcore.nn.transformer import Transformer, TransformerConfig

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "goldens" / "transformer.npz")
EPSILON = 1e-6


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def relu(x):
    return np.maximum(x, 0)


# Name: (activation, whether it gates).
EQUATIONS = {
    "relu": (relu, False),
    "gelu": (gelu, False),
    "squared_relu": (lambda x: relu(x) ** 2, False),
    "glu": (sigmoid, True),
    "reglu": (relu, True),
    "geglu": (gelu, True),
    "swiglu": (lambda x: x * sigmoid(x), True),
}


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def norm(p, x):
    """Computes the norm of Ba et al. where there is a bias, else that of Zhang & Sennrich."""
    if "bias" in p:
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * p["scale"]
    return y + p.get("bias", 0)


def feed_forward(p, x, activation):
    function, gates = EQUATIONS[activation]
    up = dense(p["up"], x)
    return dense(p["down"], function(dense(p["gate"], x)) * up if gates else function(up))


def attention(p, x, memory, sees):
    """Computes attention with H key heads; `sees` is bool [B, 1, T, S]."""
    query, key, value = dense(p["query"], x), dense(p["key"], memory), dense(p["value"], memory)
    query, key, value = (a.reshape(*a.shape[:2], H, -1).swapaxes(1, 2) for a in (query, key, value))
    scores = query @ key.swapaxes(2, 3) / np.sqrt(C // H)
    context = softmax(np.where(sees, scores, -1e30)) @ value
    return dense(p["output"], context.swapaxes(1, 2).reshape(x.shape))


def transformer(config, p, x, memory=None, sees=None):
    """Computes a transformer without positions; `sees` [B, 1, T, T] is causal by default."""
    sees = np.tri(x.shape[1], dtype=bool)[None, None] if sees is None else sees

    def branch(x, p_norm, function, *args):
        if config.norm_first:
            return x + function(norm(p_norm, x), *args)
        return norm(p_norm, x + function(x, *args))

    def self_attention(x, p):
        return attention(p, x, x, sees)

    def cross_attention(x, p):
        return attention(p, x, memory, MASK)

    def two_layers(x, p):
        return feed_forward(p, x, config.activation)

    for i in range(config.layers):
        block = p[f"layer_{i}"]
        x = branch(x, block["attention_norm"], self_attention, block["attention"])
        if memory is not None:
            x = branch(x, block["cross_norm"], cross_attention, block["cross"])
        x = branch(x, block["feed_forward_norm"], two_layers, block["feed_forward"])
    return norm(p["norm"], x) if config.norm_first else x


@pytest.mark.parametrize("activation", EQUATIONS)
def test_feed_forward_against_the_equations(activation):
    layer = FeedForward(7, activation, bias=True)
    variables = drawn(jax.eval_shape(layer.init, jax.random.key(0), X))
    expected = feed_forward(variables["params"], X, activation)
    np.testing.assert_allclose(layer.apply(variables, X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        PAPER,
        dataclasses.replace(PAPER, norm_first=True, activation="gelu"),
        dataclasses.replace(BASE, norm_first=False, activation="squared_relu"),
        dataclasses.replace(BASE, activation="swiglu"),
    ],
    ids=["layer norm after", "layer norm before", "rms norm after", "rms norm before"],
)
@pytest.mark.parametrize("reads_memory", [pytest.param(False, marks=pytest.mark.slow), True])
def test_against_the_equations(config, reads_memory):
    config = with_position(config, "none")
    net, variables = made(config, reads_memory=reads_memory)
    memory = MEMORY if reads_memory else None
    y, _, activations = read(net, variables, X, memory)
    expected = transformer(config, variables["params"], X, memory)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert set(activations) == {
        f"{name}_{i}" for name in ("layer", "attention", *["memory"] * reads_memory) for i in (0, 1)
    }
    if not config.norm_first:
        np.testing.assert_array_equal(activations["layer_1"], y)


@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
def test_positions_that_are_added(position):
    config = with_position(BASE, position)
    net, variables = made(config)
    params = variables["params"]
    if position == "learned":
        added = params["position_embedding"]
        assert added.shape == (T, C)
    else:
        added = sinusoidal(jnp.arange(T), C)
    y, _, _ = read(net, variables, X)
    expected = transformer(config, params, X + np.asarray(added)[None])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def from_pytorch(state, name, first):
    """Converts the parameters of a PyTorch encoder or decoder of two layers."""

    def p_of(layer, kind):
        p = {key: state[f"{name}.{layer}.{key}"] for key in ("weight", "bias")}
        if kind == "norm":
            return {"scale": p["weight"], "bias": p["bias"]}
        return {"kernel": p["weight"].T, "bias": p["bias"]}

    def attention_of(layer):
        kernel, bias = (state[f"{name}.{layer}.in_proj_{key}"] for key in ("weight", "bias"))
        return {
            **{
                name: {"kernel": kernel[rows].T, "bias": bias[rows]}
                for name, rows in (
                    ("query", slice(8)),
                    ("key", slice(8, 16)),
                    ("value", slice(16, 24)),
                )
            },
            "output": p_of(f"{layer}.out_proj", "dense"),
        }

    params = {"norm": p_of("norm", "norm")} if first else {}
    for i in range(2):
        layer, norms = f"layers.{i}", ["attention_norm", "feed_forward_norm"]
        block = params[f"layer_{i}"] = {
            "attention": attention_of(f"{layer}.self_attn"),
            "feed_forward": {
                "up": p_of(f"{layer}.linear1", "dense"),
                "down": p_of(f"{layer}.linear2", "dense"),
            },
        }
        if name == "decoder":
            block["cross"] = attention_of(f"{layer}.multihead_attn")
            norms.insert(1, "cross_norm")
        block |= {key: p_of(f"{layer}.norm{n}", "norm") for n, key in enumerate(norms, 1)}
    return {"params": params}


@pytest.mark.parametrize("name, first", [("post", False), ("pre", True)])
def test_against_pytorch(name, first):
    """Encoder and decoder agree, with padding in the sources, and so do their gradients."""
    a = {k[len(name) + 1 :]: GOLDEN[k] for k in GOLDEN if k.startswith(name)}
    state = {k.removeprefix("state/"): leaf for k, leaf in a.items() if k.startswith("state/")}
    config = TransformerConfig(
        8,
        2,
        2,
        hidden=12,
        norm="layer",
        norm_first=first,
        activation="relu",
        position="none",
        bias=True,
        epsilon=1e-5,
    )
    encoder, decoder = Transformer(config, causal=False), Transformer(config, reads_memory=True)
    lengths = GOLDEN["lengths"].astype(int)
    real = np.arange(S)[None] < lengths[:, None]
    encoder_variables = from_pytorch(state, "encoder", first)
    decoder_variables = from_pytorch(state, "decoder", first)

    @jax.jit
    def run(source, target):
        memory = encoder.apply(encoder_variables, source, lengths=lengths)[1]
        return read(decoder, decoder_variables, target, memory)[0], memory

    (y, memory), pull = jax.vjp(run, a["source"], a["target"])
    dsource, dtarget = pull((a["g"], jnp.zeros_like(memory)))
    np.testing.assert_allclose(memory[real], a["memory"][real], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y, a["y"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dsource, a["dsource"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(dtarget, a["dtarget"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "config", [pytest.param(PAPER, marks=pytest.mark.slow), MODERN], ids=["norm last", "norm first"]
)
def test_branches_start_as_zero_and_have_dropout(config):
    """Initially, and at rate 1 in training, blocks are the identity except for their norms."""

    def norms_alone(p):
        if config.norm_first:
            return norm(p["norm"], X)
        x = X
        for i in range(config.layers):
            for name in ("attention_norm", "feed_forward_norm"):
                x = norm(p[f"layer_{i}"][name], x)
        return x

    config = dataclasses.replace(with_position(config, "none"), dropout=1.0)
    net, variables = made(config)
    start = jax.tree.map(np.asarray, jax.jit(net.init)(jax.random.key(0), X))
    for given, train in ((start, False), (variables, True)):
        y, _, _ = read(net, given, X, train=train)
        np.testing.assert_allclose(y, norms_alone(given["params"]), rtol=1e-5, atol=1e-5)
