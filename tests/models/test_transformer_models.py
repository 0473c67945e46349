"""The transformer that translates, and the one that models language."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.losses.output import Full
from dlcore.models.text import LanguageModel, TransformerTranslator
from dlcore.models.text.prediction import log_probs, nats
from dlcore.nn.transformer import Transformer, TransformerConfig

B, S, T, V, SOURCE_V, C, H, BEAMS = 3, 6, 5, 11, 9, 16, 4, 2
LENGTHS = np.array([6, 2, 4])
REAL = np.arange(S)[None] < LENGTHS[:, None]
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, SOURCE_V, (B, S))
# What each beam of each sentence has written.
INPUTS = RANDOM.integers(0, V, (B, BEAMS, T))
PAPER = TransformerConfig(
    C, 2, H, norm="layer", norm_first=False, activation="relu", position="sinusoidal", bias=True
)
MODERN = TransformerConfig(C, 2, H, groups=2, activation="swiglu", qk_norm=True)
TRANSLATORS = {
    "paper": TransformerTranslator(PAPER, V, V, shared=True),
    "modern": TransformerTranslator(MODERN, SOURCE_V, V),
    "learned": TransformerTranslator(
        dataclasses.replace(MODERN, position="learned", context=S), SOURCE_V, V
    ),
}


def drawn(shapes):
    """Parameters of these shapes, none of which is 0."""
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.default_rng(1)
    return structure.unflatten(
        [0.5 * random.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    )


@functools.cache
def case(name):
    model = TRANSLATORS[name]
    key = jax.random.key(0)
    return model, drawn(jax.eval_shape(model.init, key, SOURCE, LENGTHS, INPUTS[:, 0]))


@functools.partial(jax.jit, static_argnames=("name", "method", "length"))
def apply(name, *args, method="__call__", **options):
    model, variables = case(name)
    return model.apply(variables, *args, method=method, **options)


@pytest.mark.parametrize(
    ("beams", "name"),
    [
        pytest.param(beams, name, marks=[pytest.mark.slow] * (beams == 1 or name != "paper"))
        for beams in (1, BEAMS)
        for name in TRANSLATORS
    ],
)
def test_stepping_equals_teacher_forcing(name, beams):
    """log P, and the attention that coverage sums: of one hypothesis or more for each sentence."""
    memory = apply(name, SOURCE, LENGTHS, method="encode")
    forced = [apply(name, memory, INPUTS[:, w], method="decode") for w in range(beams)]
    expected = np.stack([log_probs(prediction) for prediction, _ in forced], 1)
    attention = np.stack([activations["attention"] for _, activations in forced], 1)
    assert attention.shape == (B, beams, H, T, S)
    expected, attention = (x.reshape(B * beams, *x.shape[2:]) for x in (expected, attention))
    inputs = INPUTS[:, :beams].reshape(B * beams, T)
    carry = apply(name, memory, method="initial_carry", length=T)
    assert all(len(leaf) == B for leaf in jax.tree.leaves(carry))
    carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), carry)
    real = np.repeat(REAL, beams, 0)
    for t in range(T):
        carry, step = apply(name, carry, inputs[:, t], memory, method="next_token")
        logs = jax.nn.log_softmax(step)
        np.testing.assert_allclose(logs, expected[:, t], rtol=1e-4, atol=1e-5)
        coverage = apply(name, carry, memory, method="coverage")
        covered = attention[:, :, : t + 1].mean(1).sum(1)
        np.testing.assert_allclose(coverage, np.where(real, covered, 1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(np.where(real, coverage, 0).sum(1), t + 1, rtol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("paper", marks=pytest.mark.slow), "modern"])
def test_translators_are_an_encoder_and_a_decoder(name):
    """Embeddings are sqrt(C) times as long, and the table of targets is the output layer."""
    model, variables = case(name)
    p = variables["params"]
    target = p["target_embedding"]["embedding"]
    source = target if model.shared else p["source_embedding"]["embedding"]
    encoder = Transformer(model.config, causal=False)
    decoder = Transformer(model.config, reads_memory=True)

    @jax.jit
    def run():
        part = {"params": p["encoder"]}
        _, y, _ = encoder.apply(part, C**0.5 * source[SOURCE], lengths=jnp.asarray(LENGTHS))
        part = {"params": p["decoder"]}
        memory = decoder.apply(part, y, method="project_keys_values")
        x = C**0.5 * target[INPUTS[:, 0]]
        return decoder.apply(part, x, memory=memory, memory_mask=REAL[:, None, None])

    _, hidden, activations = run()
    prediction, ours = apply(name, SOURCE, LENGTHS, INPUTS[:, 0])
    np.testing.assert_allclose(prediction.readout.hidden, hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(prediction.readout.kernel, target)
    np.testing.assert_array_equal(prediction.readout.bias, p["output_bias"])
    np.testing.assert_allclose(ours["attention"], activations["memory_1"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rate",
    [
        pytest.param("dropout", marks=pytest.mark.slow),
        pytest.param("embedding_dropout", marks=pytest.mark.slow),
        "blocks",
    ],
)
def test_each_noise_is_drawn_in_training_alone(rate):
    """In what is encoded, and in what is decoded from it."""
    model, variables = case("modern")
    if rate == "blocks":
        noisy = dataclasses.replace(model, config=dataclasses.replace(MODERN, dropout=0.5))
    else:
        noisy = dataclasses.replace(model, **{rate: 0.5})

    @functools.partial(jax.jit, static_argnames="train")
    def run(key, train):
        def call(*args, method):
            rngs = {"dropout": key}
            return noisy.apply(variables, *args, train=train, method=method, rngs=rngs)

        memory = call(SOURCE, LENGTHS, method="encode")
        clean = model.apply(variables, SOURCE, LENGTHS, method="encode")
        prediction, _ = call(clean, INPUTS[:, 0], method="decode")
        return memory.keys_values[0].key, prediction.readout.hidden

    for some, others in zip(*(run(jax.random.key(i), True) for i in (0, 1)), strict=True):
        assert (some != others).any()
    _, hidden = run(jax.random.key(0), False)
    prediction, _ = apply("modern", SOURCE, LENGTHS, INPUTS[:, 0])
    np.testing.assert_allclose(hidden, prediction.readout.hidden, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("paper", marks=pytest.mark.slow), "modern"])
def test_padding_of_the_source_changes_nothing(name):
    """Neither which ids it holds nor how many, in log P and in attention."""
    prediction, activations = apply(name, SOURCE, LENGTHS, INPUTS[:, 0])
    longer = np.pad(np.where(REAL, SOURCE, (SOURCE + 1) % SOURCE_V), ((0, 0), (0, 3)))
    padded, activations_too = apply(name, longer, LENGTHS, INPUTS[:, 0])
    np.testing.assert_allclose(log_probs(padded), log_probs(prediction), rtol=1e-5, atol=1e-5)
    attention, attention_too = activations["attention"], activations_too["attention"]
    np.testing.assert_allclose(attention_too[..., :S], attention, rtol=1e-5, atol=1e-6)
    assert not attention_too[..., S:].any()
    assert not np.asarray(attention).transpose(0, 3, 1, 2)[~REAL].any()


def test_encoder_sees_ahead_and_decoder_does_not():
    changed = np.where(np.arange(S)[None] == 1, (SOURCE + 1) % SOURCE_V, SOURCE)
    memory = apply("paper", SOURCE, LENGTHS, method="encode")
    other = apply("paper", changed, LENGTHS, method="encode")
    keys, other_keys = (source.keys_values[0].key[:, :, 0] for source in (memory, other))
    assert (keys != other_keys).any((1, 2)).all()
    inputs = INPUTS[:, 0].copy()
    before = log_probs(apply("paper", memory, inputs, method="decode")[0])
    inputs[:, 2] = (inputs[:, 2] + 1) % V
    after = log_probs(apply("paper", memory, inputs, method="decode")[0])
    np.testing.assert_array_equal((before != after).any((0, 2)), [False] * 2 + [True] * 3)


def count(shapes):
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("shared", [False, True])
def test_parameters_of_the_base_model(shared):
    """Vaswani et al. 2017, table 3: 65 million, of which we count each."""
    c, f, layers, v = 512, 2048, 6, 37_000
    config = dataclasses.replace(PAPER, features=c, layers=layers, heads=8)
    model = TransformerTranslator(config, v, v, shared=shared)
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, LENGTHS, INPUTS[:, 0])
    attention, norm = 4 * (c * c + c), 2 * c
    two_layers = c * f + f + f * c + c
    blocks = layers * (attention + two_layers + 2 * norm)
    blocks += layers * (2 * attention + two_layers + 3 * norm)
    assert count(shapes) == blocks + (1 if shared else 2) * v * c + v
    if shared:
        assert count(shapes) == pytest.approx(65e6, rel=0.03)


def language_model(config=MODERN, vocab_size=V, **options):
    body = Transformer(config)
    return LanguageModel(Full(np.arange(1, vocab_size + 1)), body, config.features, **options)


@pytest.mark.parametrize(
    "tie, scale", [(True, C**0.5), pytest.param(False, 1.0, marks=pytest.mark.slow)]
)
def test_language_model_reads_windows_and_steps(tie, scale):
    model = language_model(tie=tie, scale=scale)
    tokens = INPUTS[:, 0]
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), tokens))
    window = jax.jit(functools.partial(model.apply, method="window", carry=None))
    carry, readout = window(variables, tokens, np.array([True, False, True]))
    assert carry is None and readout.hidden.shape == (B * T, C)
    expected = model.output.log_probs(readout).reshape(B, T, V)
    carry = model.initial_carry(B, T)
    step = jax.jit(functools.partial(model.apply, method="next_token"))
    for t in range(T):
        carry, logs = step(variables, carry, tokens[:, t])
        np.testing.assert_allclose(logs, expected[:, t], rtol=1e-4, atol=1e-5)
    x = scale * variables["params"]["embedding"]["embedding"][tokens]
    _, y, _ = jax.jit(Transformer(MODERN).apply)({"params": variables["params"]["body"]}, x)
    np.testing.assert_allclose(readout.hidden, y.reshape(-1, C), rtol=1e-4, atol=1e-5)
    kernel = (
        variables["params"]["embedding"]["embedding"]
        if tie
        else (variables["params"]["output_kernel"])
    )
    np.testing.assert_array_equal(readout.kernel, kernel)


@pytest.mark.parametrize(
    ("tie", "batch"),
    [
        (True, 3),
        pytest.param(False, 1, marks=pytest.mark.slow),
        pytest.param(True, 1, marks=pytest.mark.slow),
        pytest.param(False, 3, marks=pytest.mark.slow),
    ],
)
def test_language_model_reads_a_prompt_at_once(tie, batch):
    """The prompt in one pass, then token by token by `reader`: as all token by token."""
    model = language_model(tie=tie)
    tokens = INPUTS[:batch, 0]
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), tokens))

    @jax.jit
    def both(variables):
        step = functools.partial(model.apply, variables, method="next_token")
        expected, found = model.initial_carry(batch, T), model.initial_carry(batch, T)
        for t in range(T - 1):
            expected, _ = step(expected, tokens[:, t])
        found, _, _ = model.apply(variables, tokens[:, :-1], carry=found)
        reader = model.reader(variables, batch)
        return step(expected, tokens[:, -1]), reader(found, tokens[:, -1])

    expected, found = both(variables)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, found, expected)


@pytest.mark.parametrize(
    "config, vocab_size, expected",
    [
        # nanoGPT's configuration for a CPU; it prints 0.80M, and counts no positions.
        (
            TransformerConfig(128, 4, 4, norm="layer", position="learned", context=64),
            65,
            4 * (12 * 128**2 + 2 * 128) + 128 + (65 + 64) * 128,
        ),
        # The same with what replaces learned positions and layer norms.
        (
            TransformerConfig(128, 4, 4, activation="squared_relu", qk_norm=True),
            65,
            4 * (12 * 128**2 + 2 * 128 + 2 * 32) + 128 + 65 * 128,
        ),
        # GPT-2 small.
        (
            TransformerConfig(
                768, 12, 12, norm="layer", position="learned", context=1024, bias=True
            ),
            50_257,
            124_439_808,
        ),
    ],
    ids=["nanoGPT", "nanoGPT, rotary", "GPT-2"],
)
def test_parameters_of_language_models(config, vocab_size, expected):
    """The output layer's biases come on top."""
    model = language_model(config, vocab_size, tie=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), INPUTS[:, 0])
    assert count(shapes) == expected + vocab_size


def overfitted(variables, loss):
    """The loss at the first and at the last of some steps on one batch."""
    tx = optax.adam(0.02)

    def step(carry, _):
        variables, state = carry
        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = tx.update(gradient, state)
        return (optax.apply_updates(variables, updates), state), value

    run = jax.jit(lambda v: jax.lax.scan(step, (v, tx.init(v)), length=120))
    return run(variables)[1][jnp.array([0, -1])]


@pytest.mark.slow
def test_overfits_one_batch():
    """Language model and translator, each from its own initialisation."""
    targets = INPUTS[:, 1]
    config = dataclasses.replace(MODERN, layers=1)
    model = language_model(config, tie=True)
    variables = jax.jit(model.init)(jax.random.key(0), INPUTS[:, 0])

    def language_loss(variables):
        _, readout = model.apply(
            variables, INPUTS[:, 0], np.ones(B, bool), carry=None, method="window"
        )
        return model.output.nats(readout, targets.reshape(-1)).mean()

    first, last = overfitted(variables, language_loss)
    assert last < 0.1 < 1.5 < first
    translator = dataclasses.replace(TRANSLATORS["modern"], config=config)
    variables = jax.jit(translator.init)(jax.random.key(0), SOURCE, LENGTHS, INPUTS[:, 0])

    def translation_loss(variables):
        prediction, _ = translator.apply(variables, SOURCE, LENGTHS, INPUTS[:, 0], True)
        return nats(prediction, targets).mean()

    first, last = overfitted(variables, translation_loss)
    assert last < 0.1 < 1.5 < first
