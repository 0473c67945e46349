"""The recurrent translator: its options, its contract, and that it learns to align."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.models.text.prediction import log_probs, nats
from dlcore.models.text.recurrent_translator import RecurrentTranslator
from dlcore.nn.attention.registry import attention
from dlcore.nn.recurrent import GRU, LSTM, BatchNormLSTM, GRUAfter, reverse_by_length

B, S, T, V = 3, 5, 4, 7
SOURCE = jax.random.randint(jax.random.key(0), (B, S), 0, V)
LENGTH = jnp.array([5, 3, 1])
PAST = np.arange(S) >= np.asarray(LENGTH)[:, None]
INPUTS = jax.random.randint(jax.random.key(1), (B, T), 0, V)

PLAIN = RecurrentTranslator(V, V, 6, (GRU(5),), (GRU(5),))
COVERING = attention("additive", features=4, coverage=True)
MODELS = {
    "no attention": dataclasses.replace(PLAIN, bridge="copy", reverse_source=True),
    "additive": dataclasses.replace(
        PLAIN,
        source_vocab_size=9,
        attention=attention("additive", features=4),
        bidirectional=True,
        decoder_cells=(LSTM(5), LSTM(4)),
        dropout=0.3,
        embedding_dropout=0.3,
    ),
    "copying": dataclasses.replace(
        PLAIN,
        attention=attention("dot"),
        bridge="zero",
        copying=True,
        shared=True,
        tie=True,
        input_feeding=True,
    ),
    "coverage": dataclasses.replace(
        PLAIN,
        attention=COVERING,
        bidirectional=True,
        reverse_source=True,
        tie=True,
        copying=True,
        shared=True,
    ),
    "local": dataclasses.replace(
        PLAIN,
        attention=attention("local_predictive", window=2),
        input_feeding=True,
        shared=True,
        encoder_cells=(LSTM(5),),
        decoder_cells=(GRU(5), LSTM(6)),
        dropout=0.3,
    ),
}


@functools.cache
def drawn(model):
    """Variables none of which is 0."""
    shapes = jax.eval_shape(model.init, jax.random.key(2), SOURCE, LENGTH, INPUTS)
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(3)
    values = [jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, values)


@functools.partial(jax.jit, static_argnames=("model", "train"))
def apply(model, variables, source=SOURCE, inputs=INPUTS, train=False, seed=0):
    """(log P [B, T, V], activations)."""
    rngs = {"dropout": jax.random.key(seed)}
    prediction, activations = model.apply(variables, source, LENGTH, inputs, train=train, rngs=rngs)
    return log_probs(prediction), activations


@functools.partial(jax.jit, static_argnames="model")
def encode(model, variables):
    return model.apply(variables, SOURCE, LENGTH, method="encode")


SLOW = {"additive", "copying"}  # "coverage" and "local" are these too


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS],
)
def case(request):
    """(model, variables, log P and activations in evaluation)."""
    model = MODELS[request.param]
    return model, drawn(model), apply(model, drawn(model))


def test_decoding_step_by_step(case):
    """Stepping gives what teacher forcing gives; two beams are two queries on one memory."""
    model, variables, (expected, activations) = case
    # The second beam reads other tokens at first, so that rows that mix would show.
    swapped = INPUTS.at[:, :2].set(INPUTS[:, 1::-1])
    tokens = jnp.stack([INPUTS, swapped], axis=1).reshape(2 * B, T)

    @jax.jit
    def run(variables):
        memory = model.apply(variables, SOURCE, LENGTH, method="encode")
        carry = model.initial_carry(memory, T)
        carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), carry)
        next_token = functools.partial(model.apply, variables, method="next_token")
        carry, logs = jax.lax.scan(lambda c, t: next_token(c, t, memory), carry, tokens.T)
        covered = None if model.attention is None else model.coverage(carry, memory)
        return logs.swapaxes(0, 1).reshape(B, 2, T, V), covered

    logs, covered = run(variables)
    np.testing.assert_allclose(logs[:, 0], expected, rtol=1e-5, atol=1e-5)
    other, _ = apply(model, variables, inputs=swapped)
    np.testing.assert_allclose(logs[:, 1], other, rtol=1e-5, atol=1e-5)
    if covered is not None:
        sums = np.where(PAST, 1, activations["attention"].sum((1, 2)))
        np.testing.assert_allclose(covered[::2], sums, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing(case):
    """Neither log P nor gradients, by ids in and outside of the vocabulary, and by its length."""
    model, variables, (expected, activations) = case

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(variables, source):
        logs, activations = apply(model, variables, source)
        return jnp.sin(logs).sum(), (logs, activations)

    beyond = np.concatenate([PAST, np.ones((B, 2), bool)], axis=1)
    longer = jnp.pad(SOURCE, ((0, 0), (0, 2)), constant_values=3)
    gradient, (logs, _) = run(variables, longer)
    same, (padded, more) = run(variables, jnp.where(beyond, 10**6, longer))
    np.testing.assert_allclose(logs, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(padded, logs)
    jax.tree.map(np.testing.assert_array_equal, same, gradient)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    if model.attention is not None:
        weights = np.asarray(more["attention"])
        assert (weights[:, 0].swapaxes(1, 2)[beyond] == 0).all()
        np.testing.assert_allclose(weights[..., :S], activations["attention"], atol=1e-6)


def test_common_contract(case):
    """Shapes; probabilities; the same by key; noise in training alone; no look at later inputs."""
    model, variables, (logs, activations) = case
    assert logs.shape == (B, T, V)
    np.testing.assert_allclose(jnp.exp(logs).sum(-1), 1, rtol=1e-5)
    if model.attention is None:
        assert activations == {}
    else:
        assert activations["attention"].shape == (B, 1, T, S)
        sums = activations["attention"].sum(-1)
        assert bool(np.allclose(sums, 1, rtol=1e-5)) == model.attention.normalised
        assert ("coverage_loss" in activations) == (model.attention is COVERING)
    if model.dropout:
        trained = [apply(model, variables, train=True, seed=seed)[0] for seed in (0, 0, 1)]
        np.testing.assert_array_equal(trained[0], trained[1])
        assert (trained[0] != trained[2]).any() and (trained[0] != logs).any()
    later = INPUTS.at[:, 2].set((INPUTS[:, 2] + 1) % V)
    other, _ = apply(model, variables, inputs=later)
    np.testing.assert_allclose(other[:, :2], logs[:, :2], rtol=1e-6, atol=1e-6)
    assert (jnp.abs(other - logs)[:, 2:].max((1, 2)) > 1e-4).all()


@pytest.mark.parametrize(
    "layers, input_feeding",
    [
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(2, False, marks=pytest.mark.slow),
        (2, True),
    ],
)
def test_dropout_is_before_each_layer_and_before_the_output(layers, input_feeding):
    """At rate 1 nothing passes from below: neither values nor gradients."""
    model = dataclasses.replace(
        MODELS["additive"],
        dropout=1.0,
        embedding_dropout=0.0,
        input_feeding=input_feeding,
        decoder_cells=(LSTM(5), LSTM(4))[:layers],
    )
    variables, rngs = drawn(model), {"dropout": jax.random.key(0)}
    memory = encode(model, variables)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def decoded(variables):
        prediction, activations = model.apply(
            variables, memory, INPUTS, train=True, method="decode", rngs=rngs
        )
        return jnp.sin(activations["attention"]).sum(), prediction.readout.hidden

    gradient, hidden = decoded(variables)
    np.testing.assert_array_equal(hidden, 0)
    np.testing.assert_array_equal(gradient["params"]["target_embedding"]["embedding"], 0)
    decoder = gradient["params"]["decoder"]
    for i in range(layers):
        reached = any(leaf.any() for leaf in jax.tree.leaves(decoder[f"layer_{i}"]))
        assert reached == (i == layers - 1)

    @jax.jit
    @jax.grad
    def encoded(variables):
        memory = model.apply(variables, SOURCE, LENGTH, True, method="encode", rngs=rngs)
        return jnp.sin(memory.attended.values).sum()

    gradient = encoded(variables)["params"]
    np.testing.assert_array_equal(gradient["source_embedding"]["embedding"], 0)
    assert gradient["encoder"]["layer_0"]["forward"]["bias"].any()


@pytest.mark.slow
def test_bfloat16():
    """Parameters of half the size: the same probabilities up to their rounding."""
    model = MODELS["copying"]
    variables = drawn(model)

    @jax.jit
    @jax.value_and_grad
    def loss(variables):
        prediction, _ = model.apply(variables, SOURCE, LENGTH, INPUTS)
        return nats(prediction, INPUTS).mean()

    # The first carry is float32, and cells mix it with what is computed in bfloat16.
    with jax.numpy_dtype_promotion("standard"):
        value, gradient = loss(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables))
    logs, _ = apply(model, variables)
    expected = -jnp.take_along_axis(logs, INPUTS[..., None], -1).mean()
    np.testing.assert_allclose(value, expected, rtol=0.02)
    assert all(np.isfinite(leaf.astype(jnp.float32)).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["no attention", "coverage"])
def test_reversed_source_is_read_backwards_and_kept_in_order(name):
    """The encoder sees the mirrored sentences; places of the memory are those of the source."""
    model = MODELS[name]
    variables = drawn(model)
    mirrored = reverse_by_length(SOURCE.T, LENGTH).T
    straight = dataclasses.replace(model, reverse_source=False)
    logs, activations = apply(model, variables)
    expected, others = apply(straight, variables, mirrored)
    np.testing.assert_allclose(logs, expected, rtol=1e-5, atol=1e-6)
    if activations:
        flipped = reverse_by_length(others["attention"].transpose(3, 0, 1, 2), LENGTH)
        check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        check(activations["attention"], flipped.transpose(1, 2, 3, 0))


@pytest.mark.slow
def test_bridges():
    """The initial carries of the decoder's layers, from the encoder's last carries."""
    cells = (LSTM(5), LSTM(3))
    model = dataclasses.replace(PLAIN, encoder_cells=cells, decoder_cells=cells)

    def last(module):
        return module.encoder(module.source_embedding(SOURCE), lengths=LENGTH)[0]

    zero = dataclasses.replace(model, bridge="zero")
    jax.tree.map(
        lambda leaf: np.testing.assert_array_equal(leaf, 0), encode(zero, drawn(zero)).layers
    )
    copy = dataclasses.replace(model, bridge="copy")
    check = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    expected = jax.jit(functools.partial(copy.apply, method=last))(drawn(copy))
    jax.tree.map(check, encode(copy, drawn(copy)).layers, expected)
    # To three layers of another cell from two in both directions: the third takes the second's.
    model = dataclasses.replace(model, decoder_cells=(GRU(4),) * 3, bidirectional=True)
    variables = drawn(model)
    carries = jax.jit(functools.partial(model.apply, method=last))(variables)
    for i in range(3):
        ways = carries[f"layer_{min(i, 1)}"]
        parts = [ways[way][part] for part in ("c", "h") for way in ("forward", "backward")]
        dense = variables["params"][f"start_layer_{i}_h"]
        expected = np.tanh(np.concatenate(parts, axis=-1) @ dense["kernel"] + dense["bias"][None])
        check(encode(model, variables).layers[f"layer_{i}"]["h"], expected)


def test_coverage_loss():
    """sum_i min(a_ti, c_ti), with c the attention before (See et al. 2017, eqs. 10 and 12)."""
    _, activations = apply(MODELS["coverage"], drawn(MODELS["coverage"]))
    weights = np.asarray(activations["attention"])[:, 0]
    for b in range(B):
        covered = np.zeros(S)
        for t in range(T):
            expected = np.minimum(weights[b, t], covered).sum()
            np.testing.assert_allclose(activations["coverage_loss"][b, t], expected, atol=1e-6)
            covered += weights[b, t]
    np.testing.assert_array_equal(activations["coverage_loss"][:, 0], 0)
    # A source of one word has had all the attention from the second step on.
    np.testing.assert_allclose(activations["coverage_loss"][2, 1:], 1, rtol=1e-6)


def test_copying():
    """P(w) = p_gen P_vocab(w) + (1 - p_gen) sum_{i: w_i = w} a_i (See et al. 2017, eqs. 8-9)."""
    model = MODELS["copying"]
    variables = drawn(model)
    source = SOURCE.at[0].set(jnp.array([2, 3, 2, 2, 4]))
    prediction, activations = jax.jit(model.apply)(variables, source, LENGTH, INPUTS)
    readout, copy = prediction
    table = variables["params"]["source_embedding"]["embedding"]
    np.testing.assert_array_equal(readout.kernel, table)
    scores = np.einsum("btf,vf->btv", readout.hidden, table) + readout.bias[None, None]
    vocabulary = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    logs = log_probs(prediction)
    for b in range(B):
        for t in range(T):
            gate = float(copy.gate[b, t])
            p = gate * vocabulary[b, t]
            for i in range(LENGTH[b]):
                p[source[b, i]] += (1 - gate) * activations["attention"][b, 0, t, i]
            np.testing.assert_allclose(np.exp(logs[b, t]), p, rtol=1e-5, atol=1e-7)
    at_targets = -jnp.take_along_axis(logs, INPUTS[..., None], -1)[..., 0]
    np.testing.assert_allclose(nats(prediction, INPUTS), at_targets, rtol=1e-6)

    def parts(module):
        """The gate's own inputs at the first step: context, state and embedded token."""
        memory = module.encode(source, LENGTH)
        carry = module.initial_carry(memory, T)
        x = module.target_embedding(INPUTS[:, :1])
        _, steps = module._decoder.run(module.decoder, carry, x, memory.attended)
        return jnp.concatenate([steps.contexts, steps.states, x], axis=-1)[:, 0]

    dense = variables["params"]["gate"]
    seen = (
        jax.jit(functools.partial(model.apply, method=parts))(variables) @ dense["kernel"]
        + dense["bias"][None]
    )
    np.testing.assert_allclose(copy.gate[:, 0], jax.nn.sigmoid(seen)[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_learns_to_copy_and_aligns_on_the_diagonal():
    """Digits after digits: all predicted, and each step looks at the place that it copies."""
    digits, steps, eos = 10, 7, 1
    model = RecurrentTranslator(
        digits + 2,
        digits + 2,
        16,
        (GRUAfter(24),),
        (GRUAfter(32),),
        attention("general"),
        bidirectional=True,
        shared=True,
        tie=True,
    )
    length = jnp.full(64, steps + 1)
    tx = optax.adam(0.01)

    def batch(key):
        drawn = jax.random.randint(key, (64, steps), 2, digits + 2)
        targets = jnp.pad(drawn, ((0, 0), (0, 1)), constant_values=eos)
        return targets, jnp.roll(targets, 1, axis=1)

    def loss(variables, source, inputs):
        return nats(model.apply(variables, source, length, inputs)[0], source).mean()

    def step(state, key):
        variables, momenta = state
        value, gradient = jax.value_and_grad(loss)(variables, *batch(key))
        updates, momenta = tx.update(gradient, momenta)
        return (optax.apply_updates(variables, updates), momenta), value

    @jax.jit
    def train(key):
        variables = model.init(key, batch(key)[0], length, batch(key)[1])
        return jax.lax.scan(step, (variables, tx.init(variables)), jax.random.split(key, 300))

    (variables, _), losses = train(jax.random.key(0))
    source, inputs = batch(jax.random.key(1))
    prediction, activations = jax.jit(model.apply)(variables, source, length, inputs)
    assert losses[0] > 2 and losses[-1] < 0.05
    assert (log_probs(prediction).argmax(-1) == source).mean() > 0.99
    # The end, after a fixed number of digits, needs no look.
    looked = activations["attention"][:, 0, :-1].argmax(-1)
    assert (looked == jnp.arange(steps)[None]).mean() > 0.95


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bridge": "dence"}, "unknown bridge 'dence'; choose one of: copy, dense, zero"),
        ({"copying": True, "shared": True}, "input feeding and copying need attention"),
        ({"input_feeding": True}, "input feeding and copying need attention"),
        ({"copying": True, "attention": COVERING}, "copying needs one vocabulary"),
        (
            {"copying": True, "shared": True, "attention": attention("local_monotonic")},
            "weights sum to 1, which those of local attention do not",
        ),
        ({"shared": True, "source_vocab_size": 9}, "one size, not 9 source and 7 target ids"),
        ({"decoder_cells": (BatchNormLSTM(5),)}, "a decoder goes token by token"),
        ({"bridge": "copy", "bidirectional": True}, "do not fit the decoder's layers"),
        ({"attention": attention("dot"), "bidirectional": True}, "decoder's 5 with the"),
        ({"dropout": 1.5}, "dropout rate 1.5 is not a probability"),
    ],
)
def test_options_that_do_not_fit(options, message):
    model = dataclasses.replace(PLAIN, **options)
    with pytest.raises(InputError, match=message) as caught:
        jax.eval_shape(model.init, jax.random.key(0), SOURCE, LENGTH, INPUTS)
    assert "\n" not in str(caught.value)


def test_no_coverage_without_attention():
    memory = encode(PLAIN, drawn(PLAIN))
    with pytest.raises(InputError, match="without attention there is no coverage"):
        PLAIN.coverage(PLAIN.initial_carry(memory, T), memory)
