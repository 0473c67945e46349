"""Vectors of sentences against plain NumPy: SIF, paragraph vectors, the Siamese encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.data.text import WordStream
from dlcore.errors import InputError
from dlcore.losses import level_distribution, level_divergence
from dlcore.models.embedding import (
    ParagraphVectors,
    common_direction,
    initial_sums,
    mean_vectors,
    objective,
    sif_weights,
    without_direction,
    word2vec_step,
)
from dlcore.models.text import HEADS, RecurrentEncoder, SiameseEncoder
from dlcore.nn.recurrent import cell
from dlcore.types import TrainState

COUNTS = np.array([40, 30, 20, 10, 5])


def paragraph_model(architecture="pv_dbow", paragraphs=6, window=2, **options):
    noise = objective("negative_sampling", COUNTS, **options)
    return ParagraphVectors(noise, 8, architecture, window, paragraphs=paragraphs)


def drawn(model, seed=0):
    """Tables of which none is 0."""
    tables = model.init(jax.random.key(seed))
    keys = jax.random.split(jax.random.key(seed + 1), len(tables))
    return {
        name: 0.5 * jax.random.normal(key, table.shape)
        for key, (name, table) in zip(keys, tables.items(), strict=True)
    }


def softplus(x):
    return np.logaddexp(0, x)


def test_sif_is_the_algorithm_of_the_paper():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(5, 4)).astype(np.float32)
    lines = [[0, 1, 2], [3], [4, 4, 0, 1]]
    padded = np.array([line + [-1] * (4 - len(line)) for line in lines])
    a = 0.05
    expected = []
    for line in lines:
        total = sum(a / (a + COUNTS[word] / COUNTS.sum()) * table[word] for word in line)
        expected.append(total / len(line))
    expected = np.stack(expected)
    _, _, directions = np.linalg.svd(expected, full_matrices=False)
    u = directions[0]
    weights = jnp.asarray(sif_weights(COUNTS, a=a))
    got = mean_vectors(jnp.asarray(table), padded, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    clean = without_direction(got, common_direction(got))
    np.testing.assert_allclose(clean, expected - np.outer(expected @ u, u), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clean @ u, 0, atol=1e-5)


def test_a_sentence_without_words_is_zero_and_padding_changes_nothing():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    words = np.array([[2, 1, -1], [-1, -1, -1]])
    got = mean_vectors(table, words)
    assert (got[1] == 0).all()
    wider = mean_vectors(table, np.pad(words, ((0, 0), (0, 5)), constant_values=-1))
    np.testing.assert_array_equal(got, wider)


def test_sif_needs_a_positive_weight():
    with pytest.raises(InputError, match="a=0 of SIF"):
        sif_weights(COUNTS, a=0)


def corpus(seed=0, lines=6):
    rng = np.random.default_rng(seed)
    found = [rng.integers(0, 5, rng.integers(2, 9)) for _ in range(lines)]
    return found, np.concatenate([np.append(line, -1) for line in found]).astype(np.int32)


@pytest.mark.parametrize("architecture", [pytest.param("pv_dbow", marks=pytest.mark.slow), "pv_dm"])
def test_the_loss_of_paragraphs_is_that_of_plain_loops(architecture):
    model = paragraph_model(architecture)
    lines, tokens = corpus()
    batch = WordStream(tokens, np.ones(5), size=64, window=2, fixed=True, seed=0).batch(0)
    tables = drawn(model)
    rows = model.rows(batch)
    others = jnp.array([0, 3, 3, 1])
    vectors = {name: tables[name][ids] for name, ids in rows.items()}
    vectors["others"] = tables["output"][others]
    got = jax.jit(model.loss)(vectors, batch, others)
    plain = {name: np.asarray(table, np.float64) for name, table in tables.items()}
    total = 0.0
    for number, line in enumerate(lines):
        for at, word in enumerate(line):
            query = plain["paragraphs"][number]
            if architecture == "pv_dm":
                around = [line[n] for n in range(at - 2, at + 3) if n != at and 0 <= n < len(line)]
                query = (query + sum(plain["input"][n] for n in around)) / (1 + len(around))
            total += softplus(-query @ plain["output"][word])
            noise = plain["output"][np.asarray(others)] @ query
            total += 5 / len(others) * softplus(noise).sum()
    assert float(got.weight) == sum(map(len, lines))
    np.testing.assert_allclose(float(got.total), total, rtol=1e-5)


def test_the_stream_numbers_the_sentences_of_the_whole_corpus():
    # Empty lines count, and so do those that lie in earlier stretches and earlier blocks.
    rng = np.random.default_rng(1)
    lines = [np.full(rng.integers(0, 7), number % 5) for number in range(200)]
    tokens = np.concatenate([np.append(line, -1) for line in lines]).astype(np.int32)
    stream = WordStream(tokens, np.ones(5), size=64, window=2, seed=0)
    seen = set()
    for step in range(stream.steps_per_epoch):
        batch = stream.batch(step)
        real = batch["sentences"] >= 0
        np.testing.assert_array_equal(batch["sentences"][real] % 5, batch["words"][real])
        seen |= {*batch["sentences"][real].tolist()}
    assert seen == {number for number, line in enumerate(lines) if len(line)}


def learnt(model, lines, *, epochs=60, fixed=()):
    tokens = np.concatenate([np.append(line, -1) for line in lines]).astype(np.int32)
    stream = WordStream(tokens, np.ones(5), size=256, window=model.window, seed=0)
    variables = {"params": model.init(jax.random.key(0))}
    tx = optax.GradientTransformation(initial_sums, optax.identity().update)
    state = TrainState.create(variables, tx, jax.random.key(1))
    step = jax.jit(
        word2vec_step(
            model,
            learning_rate=lambda step: jnp.asarray(0.3),
            micro_batch=model.sharing,
            fixed=fixed,
        )
    )
    for number in range(epochs * stream.steps_per_epoch):
        state, metrics = step(state, stream.batch(number))
    return state, metrics


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param("pv_dbow", marks=pytest.mark.slow),
        pytest.param("pv_dm", marks=pytest.mark.slow),
    ],
)
def test_paragraphs_of_one_topic_come_together(architecture):
    # After each word 0 comes 1 or 2 in even paragraphs, 3 or 4 in odd ones, which the words in a
    # window of 1 do not tell.
    rng = np.random.default_rng(0)
    lines = [np.zeros(20, int) for _ in range(40)]
    for number, line in enumerate(lines):
        line[1::2] = rng.choice([[1, 2], [3, 4]][number % 2], 10)
    model = paragraph_model(architecture, paragraphs=40, window=1)
    state, _ = learnt(model, lines)
    table = np.asarray(state.params["paragraphs"])[:40]
    units = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosines = units @ units.T - 2 * np.eye(40)
    np.testing.assert_array_equal(cosines.argmax(1) % 2, np.arange(40) % 2)
    # An unseen sentence is inferred beside those of its topic.
    new = np.array([[0, 1, 0, 2, 0, 1], [0, 4, 0, 3, -1, -1]])
    found = np.asarray(model.infer(state.params, new, passes=20, rate=0.3, key=jax.random.key(0)))
    near = (found / np.linalg.norm(found, axis=1, keepdims=True)) @ units.T
    assert near[0, ::2].mean() > near[0, 1::2].mean() + 0.3
    assert near[1, 1::2].mean() > near[1, ::2].mean() + 0.3


def test_fixed_tables_stay_as_they_are():
    model = paragraph_model()
    lines, _ = corpus()
    start = model.init(jax.random.key(0))
    state, _ = learnt(model, lines, epochs=2, fixed=("paragraphs",))
    np.testing.assert_array_equal(state.params["paragraphs"], start["paragraphs"])
    assert np.asarray(state.params["output"]).any()


@pytest.mark.parametrize("architecture", [pytest.param("pv_dbow", marks=pytest.mark.slow), "pv_dm"])
def test_inference_depends_on_the_sentence_alone(architecture):
    model = paragraph_model(architecture)
    tables, key = drawn(model), jax.random.key(3)
    words = np.array([[0, 1, 4, -1], [3, -1, -1, -1], [-1, -1, -1, -1]])
    options = {"passes": 7, "rate": 0.3, "key": key}
    together = model.infer(tables, words, **options)
    assert (together[2] == 0).all() and np.asarray(together[:2]).any(1).all()
    for row, line in enumerate(words):
        alone = model.infer(tables, np.append(line, [-1, -1])[None], **options)
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-6)


def test_inference_of_a_bag_of_words_is_plain_adagrad():
    model = paragraph_model()
    tables, key, words = drawn(model), jax.random.key(3), [2, 0, 2]
    got = model.infer(tables, np.array([words]), passes=3, rate=0.3, key=key)
    output = np.asarray(tables["output"], np.float64)
    noise = output[np.asarray(model.objective.others(key, groups=-(-512 // model.sharing)))]
    vector, squares = np.zeros(8), 0.1
    for turn in range(3):
        slope = sum(-output[word] / (1 + np.exp(vector @ output[word])) for word in words)
        shares = 1 / (1 + np.exp(-noise @ vector))
        slope = slope + len(words) * 5 / len(noise) * (shares[:, None] * noise).sum(0)
        squares += (slope**2).mean()
        vector = vector - 0.3 * (1 - turn / 3) * slope / np.sqrt(squares)
    np.testing.assert_allclose(got[0], vector, rtol=1e-4)


def test_bad_paragraph_models_are_refused():
    with pytest.raises(InputError, match="pv_dbow"):
        paragraph_model("skip_gram")
    with pytest.raises(InputError, match="0 paragraphs"):
        paragraph_model(paragraphs=0)


def siamese(head, **options):
    encoder = RecurrentEncoder(12, 6, (cell("lstm", 5),), bidirectional=True)
    model = SiameseEncoder(encoder, head=head, **options)
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 12, (3, 2, 7)).astype(np.int32)
    lengths = np.array([[7, 3], [1, 5], [4, 4]], np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), tokens, lengths)
    return model, variables, tokens, lengths


@pytest.mark.parametrize(
    ("pooling", "head"),
    [
        pytest.param(pooling, head, marks=[pytest.mark.slow] * (i != 0 or j != 0))
        for i, pooling in enumerate(["mean", "max", "last"])
        for j, head in enumerate(HEADS)
    ],
)
def test_both_sides_have_one_encoder_and_padding_changes_nothing(head, pooling):
    model, variables, tokens, lengths = siamese(head, pooling=pooling, shortcut=True)
    apply = jax.jit(model.apply, static_argnames="method")
    outputs, found = apply(variables, tokens, lengths)
    swapped, _ = apply(variables, tokens[:, ::-1], lengths[:, ::-1])
    np.testing.assert_allclose(outputs, swapped, rtol=1e-5, atol=1e-6)
    first = apply(variables, tokens[:, 0], lengths[:, 0], method="encode")
    np.testing.assert_allclose(found["first"], first, rtol=1e-5, atol=1e-6)
    dirty = np.where(np.arange(9) < lengths[..., None], np.pad(tokens, ((0, 0), (0, 0), (0, 2))), 9)
    again, _ = apply(variables, dirty, lengths)
    np.testing.assert_allclose(outputs, again, rtol=1e-5, atol=1e-6)
    alone, _ = apply(variables, tokens[1:2], lengths[1:2])
    np.testing.assert_allclose(outputs[1:2], alone, rtol=1e-5, atol=1e-6)


def test_the_heads_are_their_equations():
    u, v = np.array([[[1, -2], [0.5, 0]], [[0.5, -1], [0.5, 0]]], np.float32)
    model, variables, *_ = siamese("manhattan")
    got = model.apply(variables, u, v, method="compare")
    np.testing.assert_allclose(got, np.exp([-1.5, 0.0]), rtol=1e-6)
    model, variables, *_ = siamese("cosine")
    got = model.apply(variables, u, v, method="compare")
    np.testing.assert_allclose(got, [2.5 / np.sqrt(5 * 1.25), 1.0], rtol=1e-5)
    model, variables, *_ = siamese("levels")
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 3, 10)).astype(np.float32)
    got = model.apply(variables, u, v, method="compare")
    p = jax.tree.map(np.asarray, variables["params"])
    hidden = (u * v) @ p["product"]["kernel"] + np.abs(u - v) @ p["difference"]["kernel"]
    hidden = 1 / (1 + np.exp(-(hidden + p["difference"]["bias"])))
    expected = hidden @ p["output"]["kernel"] + p["output"]["bias"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    shares = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(model.similarity(got), shares @ np.arange(6) / 5, rtol=1e-4)


def test_levels_at_numbers_worked_by_hand():
    # 3.6 of Tai et al.: 0.4 of level 3 and 0.6 of level 4.
    target = level_distribution(jnp.array([3.6, 0.0]), 6)
    np.testing.assert_allclose(target, [[0, 0, 0, 0.4, 0.6, 0], [1, 0, 0, 0, 0, 0]], atol=1e-6)
    even = level_divergence(jnp.zeros((2, 6)), jnp.array([3.6, 0.0]))
    entropy = 0.4 * np.log(0.4) + 0.6 * np.log(0.6)
    np.testing.assert_allclose(even, [np.log(6) + entropy, np.log(6)], rtol=1e-5)
    exact = level_divergence(jnp.log(jnp.array([[0.4, 0.6]])), jnp.array([0.6]))
    np.testing.assert_allclose(exact, 0, atol=1e-6)
    slope = jax.grad(lambda x: level_divergence(x, jnp.array([1.0])).sum())(jnp.zeros((1, 3)))
    assert np.isfinite(np.asarray(slope)).all()


def test_unknown_heads_and_poolings_are_refused():
    with pytest.raises(InputError, match="manhattan"):
        siamese("dot")
    with pytest.raises(InputError, match="mean"):
        siamese("cosine", pooling="sum")
