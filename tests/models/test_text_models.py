"""The classifier and the tagger against their definitions, and the tests that both must pass."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.models.text import (
    POOLINGS,
    RecurrentEncoder,
    Tagger,
    TextClassifier,
)
from dlcore.nn.recurrent import LSTM, Bidirectional, Vanilla
from dlcore.types import Mean

B, T, V, K = 5, 6, 11, 3
LENGTHS = jnp.array([6, 4, 2, 1, 0])
PAST = np.arange(T) >= np.asarray(LENGTHS)[:, None]
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, V)
TAGS = jax.random.randint(jax.random.key(1), (B, T), 0, K)
LABELS = jnp.array([0, 1, 2, 1, 0])
WEIGHT = jnp.array([1.0, 1, 1, 0, 0])

PLAIN = RecurrentEncoder(V, 4, (LSTM(5),))
BOTH_WAYS = dataclasses.replace(PLAIN, bidirectional=True)
NOISY = RecurrentEncoder(
    V,
    4,
    (LSTM(5), LSTM(5)),
    bidirectional=True,
    residual=True,
    variational=True,
    dropout=0.3,
    embedding_dropout=0.3,
    state_dropout=0.3,
    candidate_dropout=0.3,
)
MODELS = {
    **{f"{name} pooling": TextClassifier(PLAIN, K, pooling=name) for name in POOLINGS},
    "softmax": Tagger(PLAIN, K),
    "noisy crf": Tagger(NOISY, K, crf=True),
}


@functools.partial(jax.jit, static_argnames=("model", "train"))
def compiled(model, variables, tokens=TOKENS, lengths=LENGTHS, train=False, seed=3):
    """The function `apply`, compiled once for each model."""
    return apply(model, variables, tokens, lengths, train, seed)


def apply(model, variables, tokens=TOKENS, lengths=LENGTHS, train=False, seed=3):
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply(variables, tokens, lengths, train, rngs=rngs)


def losses(model, variables, outputs, tags, lengths):
    """(values, weights) of either model."""
    if isinstance(model, Tagger):
        return model.apply(variables, outputs, tags, lengths, WEIGHT, method="losses")
    return optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS), WEIGHT


SLOW = {"max pooling", "mean pooling", "attention pooling"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS],
)
def case(request):
    """(module, variables)."""
    model = MODELS[request.param]
    return model, jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "last pooling")) for name in MODELS],
    indirect=True,
)
def test_padding_changes_nothing(case):
    """Neither logits nor loss nor gradient, in training, by ids in and outside the vocabulary."""
    model, variables = case
    garbage = jnp.where(jnp.arange(T) % 2 == 0, 3, 10**6)[None]
    longer, long_tags = (
        jnp.pad(jnp.where(PAST, garbage, ids), ((0, 0), (0, 3)), constant_values=10**6)
        for ids in (TOKENS, TAGS)
    )

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(variables, tokens, tags):
        outputs, activations = apply(model, variables, tokens, train=True)
        values, weights = losses(model, variables, outputs, tags, LENGTHS)
        return Mean.of(values, weights).compute(), (outputs, activations)

    (value, (outputs, _)), gradient = jax.jit(loss)(variables, TOKENS, TAGS)
    (padded, (more, _)), padded_gradient = jax.jit(loss)(variables, longer, long_tags)
    if isinstance(model, Tagger):
        outputs, more = outputs[~PAST], more[:, :T][~PAST]
    np.testing.assert_allclose(more, outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(padded, value, rtol=1e-6)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        same = padded_gradient
        for entry in path:
            same = same[entry.key]
        np.testing.assert_allclose(same, leaf, rtol=1e-4, atol=1e-6)
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("last pooling", "softmax")))
        for name in MODELS
    ],
    indirect=True,
)
def test_common_contract(case):
    """Names, shapes, paths; finite; the same by key; noise in training alone; jit is no jit."""
    model, variables = case
    outputs, activations = apply(model, variables)
    noisy = model.encoder is NOISY
    assert outputs.shape == ((B, T, K) if isinstance(model, Tagger) else (B, K))
    assert list(activations)[:2] == ["embedding", "layer_0"]
    assert list(activations)[-1] == "output" and activations["output"] is outputs
    for name, value in activations.items():
        assert np.isfinite(value).all() and len(value) == B, name
    path = variables["params"]["encoder"]
    assert path["embedding"]["embedding"].shape == (V, 4)
    layer = path["stack"]["layer_0"]
    assert (layer["forward"] if noisy else layer)["input_kernel"].shape == (4, 20)
    again = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    trained = [compiled(model, variables, train=True, seed=seed)[0] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert (trained[0] != trained[2]).any() == noisy
    jitted = compiled(model, variables)[0]
    assert (trained[0] != jitted).any() == noisy
    np.testing.assert_allclose(jitted, outputs, rtol=1e-5, atol=1e-6)


RATES = ("dropout", "embedding_dropout", "state_dropout", "candidate_dropout")


@pytest.mark.parametrize(
    "rate",
    [*RATES[:2], *(pytest.param(rate, marks=pytest.mark.slow) for rate in RATES[2:])],
)
def test_each_noise_is_drawn_in_training_alone(rate):
    model = TextClassifier(dataclasses.replace(PLAIN, **{rate: 0.5}), K)
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    outputs = [
        compiled(model, variables, train=train, seed=seed)[0]
        for seed, train in enumerate([False, True, True])
    ]
    assert (outputs[1] != outputs[2]).any()
    np.testing.assert_array_equal(outputs[0], compiled(TextClassifier(PLAIN, K), variables)[0])


@pytest.mark.parametrize("head", [TextClassifier, pytest.param(Tagger, marks=pytest.mark.slow)])
def test_dropout_is_before_each_layer_and_before_the_output(head):
    """At rate 1 nothing passes from below: neither values nor gradients."""
    model = head(dataclasses.replace(PLAIN, cells=(Vanilla(5),) * 2, dropout=1.0), K)
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    gradients = jax.jit(
        jax.jacobian(lambda v: {n: a.sum() for n, a in apply(model, v, train=True)[1].items()})
    )(variables)
    stack = ("embedding", "layer_0", "layer_1", "output")
    for at, name in enumerate(stack):
        params = gradients[name]["params"]
        tables = params["encoder"]["embedding"], params["encoder"]["stack"], params["output"]
        reached = {"embedding": tables[0], **tables[1], "output": tables[2]}
        for below in stack[:at]:
            assert not any(leaf.any() for leaf in jax.tree.leaves(reached[below])), (name, below)
        assert any(leaf.any() for leaf in jax.tree.leaves(reached[name])), name


@pytest.mark.parametrize("variational", [pytest.param(False, marks=pytest.mark.slow), True])
def test_variational_dropout_is_constant_over_time(variational):
    """The answers of a net that forgets everything and reads one token everywhere."""
    encoder = RecurrentEncoder(V, 20, (Vanilla(20),) * 2, dropout=0.5, variational=variational)
    model = Tagger(encoder, K)
    tokens, lengths = jnp.full((B, T), 3), jnp.full(B, T)
    variables = jax.tree.map_with_path(
        lambda path, leaf: 0 * leaf if path[-1].key == "recurrent_kernel" else leaf,
        jax.jit(model.init)(jax.random.key(2), tokens, lengths),
    )
    for name, value in apply(model, variables, tokens, lengths, train=True)[1].items():
        assert (value == value[:, :1]).all() == (variational or name == "embedding"), name
        assert (value == value[:1]).all() == (name == "embedding"), name


def test_residual():
    """A layer's output has its input added."""
    plain = dataclasses.replace(PLAIN, cells=(Vanilla(5),) * 2)
    variables = jax.jit(plain.init)(jax.random.key(2), TOKENS, LENGTHS)
    _, without = plain.apply(variables, TOKENS, LENGTHS)
    _, added = dataclasses.replace(plain, residual=True).apply(variables, TOKENS, LENGTHS)
    np.testing.assert_array_equal(added["layer_0"], without["layer_0"])
    np.testing.assert_array_equal(added["layer_1"], without["layer_1"] + without["layer_0"])


@pytest.mark.parametrize(
    "model",
    [
        TextClassifier(PLAIN, K),
        pytest.param(Tagger(BOTH_WAYS, K, crf=True), marks=pytest.mark.slow),
    ],
)
def test_overfits_one_batch(model):
    """Down to a loss near 0, with the true labels and tags predicted."""
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    tx = optax.adam(0.05)

    def loss(variables):
        outputs, _ = apply(model, variables, train=True)
        return Mean.of(*losses(model, variables, outputs, TAGS, LENGTHS)).compute()

    def step(carry, _):
        variables, state = carry
        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = tx.update(gradient, state)
        return (optax.apply_updates(variables, updates), state), value

    run = jax.jit(lambda v: jax.lax.scan(step, (v, tx.init(v)), length=150))
    (variables, _), values = run(variables)
    assert values[-1] < 0.1 < 0.8 < values[0]
    outputs = compiled(model, variables)[0]
    if isinstance(model, Tagger):
        tags = model.apply(variables, outputs, LENGTHS, method="predict")
        np.testing.assert_array_equal(tags[:3], np.where(PAST, 0, TAGS)[:3])
    else:
        np.testing.assert_array_equal(outputs.argmax(-1)[:3], LABELS[:3])


def test_bidirectional_last_sees_all_of_the_text():
    """The pooled vector is the final output of each direction: the carries' h."""
    model = TextClassifier(BOTH_WAYS, K)
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    _, activations = apply(model, variables)
    layer = {"params": variables["params"]["encoder"]["stack"]["layer_0"]}
    carry, _ = Bidirectional(LSTM(5)).apply(layer, activations["embedding"], lengths=LENGTHS)
    h = [carry[way]["h"] for way in ("forward", "backward")]
    np.testing.assert_array_equal(activations["pooled"], np.concatenate(h, -1))


def test_attention_is_shown():
    model = MODELS["attention pooling"]
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    weights = apply(model, variables)[1]["attention"]
    assert weights.shape == (B, T) and not weights[PAST].any()
    np.testing.assert_allclose(weights.sum(1), LENGTHS > 0, rtol=1e-6)


@pytest.mark.parametrize("merge, width", [("product", 1), ("mean", 1), ("concat", 2)])
def test_the_encoder_merges_both_directions(merge, width):
    encoder = dataclasses.replace(BOTH_WAYS, merge=merge)
    (features, _), _ = encoder.init_with_output(jax.random.key(2), TOKENS, LENGTHS)
    assert features.shape[-1] == width * encoder.cells[-1].output_features


def test_last_outputs_of_merged_directions_are_refused():
    merged = dataclasses.replace(BOTH_WAYS, merge="mean")
    with pytest.raises(InputError, match="their mean; merge them by concat, or pool by"):
        TextClassifier(merged, K, pooling="last").init(jax.random.key(2), TOKENS, LENGTHS)


def test_unknown_pooling():
    with pytest.raises(InputError, match="unknown pooling 'min'; choose one of: attention, last"):
        TextClassifier(PLAIN, K, pooling="min").init(jax.random.key(2), TOKENS, LENGTHS)


def test_softmax_losses_and_predictions():
    model = MODELS["softmax"]
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    emissions = np.asarray(jax.random.normal(jax.random.key(2), (B, T, K)))
    values, weights = losses(model, variables, emissions, TAGS, LENGTHS)
    probabilities = np.exp(emissions) / np.exp(emissions).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, np.asarray(TAGS)[..., None], 2))[..., 0]
    np.testing.assert_array_equal(weights, ~PAST * np.asarray(WEIGHT)[:, None])
    np.testing.assert_allclose(values[~PAST], expected[~PAST], rtol=1e-5)
    tags = model.apply(variables, emissions, LENGTHS, method="predict")
    assert tags.dtype == jnp.int32
    np.testing.assert_array_equal(tags, np.where(PAST, 0, emissions.argmax(-1)))


def test_crf_is_a_distribution_of_tag_sequences():
    """Against all K^n taggings: the losses are -log p with sum p = 1, and the best is predicted."""
    model = Tagger(PLAIN, K, crf=True)
    variables = jax.jit(model.init)(jax.random.key(2), TOKENS, LENGTHS)
    assert set(variables["params"]) == {"encoder", "output", "transitions", "start", "end"}
    params = dict(variables["params"])
    for seed, name in enumerate(("transitions", "start", "end")):
        assert not params[name].any()
        params[name] = jax.random.normal(jax.random.key(seed), params[name].shape)
    variables = {"params": params}
    emissions = compiled(model, variables)[0]
    losses = jax.jit(functools.partial(model.apply, method="losses"))
    best = jax.jit(functools.partial(model.apply, method="predict"))(variables, emissions, LENGTHS)
    for row, length in [(1, 4), (2, 2)]:
        every = jnp.array(list(itertools.product(range(K), repeat=length)))
        repeated = jnp.repeat(emissions[row : row + 1], len(every), axis=0)
        tags = jnp.pad(every, ((0, 0), (0, T - length)))
        lengths = jnp.full(len(every), length)
        nll, weights = losses(variables, repeated, tags, lengths, jnp.ones(len(every)))
        assert weights.shape == nll.shape
        np.testing.assert_allclose(np.exp(-nll).sum(), 1, rtol=1e-5)
        np.testing.assert_array_equal(best[row], tags[nll.argmin()])
