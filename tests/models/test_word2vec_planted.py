"""word2vec on texts whose statistics are known."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.data.text.word_stream import WordStream, keep_probabilities
from dlcore.models.embedding.objectives import NegativeSampling, NoiseContrastive
from dlcore.models.embedding.updates import initial_sums, word2vec_step
from dlcore.models.embedding.vectors import WordSpace
from dlcore.models.embedding.word2vec import Word2Vec
from dlcore.types import TrainState

V = 6
# How often each word is in a sample of noise, and each pair of words in the text.
NOISE = np.array([1, 1, 2, 3, 4, 5])
PAIRS = np.array(
    [
        [2, 7, 1, 4, 2, 3],
        [7, 1, 5, 1, 8, 2],
        [1, 5, 6, 1, 1, 7],
        [4, 1, 1, 3, 2, 2],
        [2, 8, 1, 2, 4, 1],
        [3, 2, 7, 2, 1, 2],
    ]
)


class _Proportional:
    """Noise of which each sample has each word exactly as often as expected."""

    def others(self, key: jax.Array, groups: int = 1) -> jax.Array:
        return jnp.tile(np.repeat(np.arange(V), NOISE), groups)


class ExactSampling(_Proportional, NegativeSampling):
    pass


class ExactNce(_Proportional, NoiseContrastive):
    pass


def train(model: Word2Vec, batches: Any, rate: float, steps: int, micro_batch: int) -> Any:
    """The tables after some steps, of which the rate falls to 0."""
    tables = model.init(jax.random.key(0))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, tables, {}, initial_sums(tables), jax.random.key(1))

    def falling(step: jax.Array) -> jax.Array:
        return rate * (1 - step / steps)

    step = jax.jit(
        word2vec_step(model, learning_rate=falling, micro_batch=micro_batch), donate_argnums=0
    )
    for batch in itertools.islice(batches, steps):
        state, _ = step(state, batch)
    return jax.tree.map(np.asarray, state.params)


def two_word_sentences() -> dict[str, np.ndarray]:
    """Twice the planted pairs: a sentence a b is a pair for a and one for b."""
    first, second = np.triu_indices(V)
    times = np.where(first == second, 1, 2) * PAIRS[first, second]
    sentences = np.repeat(np.stack([first, second], 1), times, axis=0)
    words = np.pad(sentences.ravel(), 1)
    owner = np.pad(np.repeat(np.arange(len(sentences)), 2), 1, constant_values=-1)
    return {"words": words, "sentences": owner, "reach": np.ones_like(words)}


@pytest.mark.parametrize("negatives", [pytest.param(1, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("kind", [ExactSampling, pytest.param(ExactNce, marks=pytest.mark.slow)])
def test_the_optimum_of_a_planted_text(kind: type, negatives: int) -> None:
    """log P(w, c) / (P(w) q(c)) - log k; that of estimation is log P(c | w) + log V."""
    batch = two_word_sentences()
    size = len(batch["words"]) - 2
    assert size == 2 * PAIRS.sum()
    goal = kind(NOISE, negatives, NOISE.sum(), 1.0)
    tables = train(
        Word2Vec(goal, features=V + 2, window=1), itertools.repeat(batch), 1.0, 1500, size
    )
    joint = PAIRS / PAIRS.sum()
    given_word = joint / joint.sum(1, keepdims=True)
    if kind is ExactSampling:
        expected = np.log(given_word / (NOISE / NOISE.sum())) - np.log(negatives)
    else:
        expected = np.log(given_word) + np.log(V)
    scores = tables["input"][:V] @ tables["output"][:V].T
    np.testing.assert_allclose(scores, expected, atol=0.05)


@dataclasses.dataclass
class Planted:
    """A text about n things in some roles, such as countries, capitals and currencies.

    A sentence has the word of a thing in a role between words that go with the thing, whatever its
    role, and words that go with the role, whatever the thing.
    """

    things: int = 12
    roles: int = 4
    company: int = 4

    @property
    def size(self) -> int:
        return self.things * self.roles + (self.things + self.roles) * self.company

    def name(self, thing: int, role: int) -> int:
        return thing * self.roles + role

    def text(self, sentences: int) -> np.ndarray:
        rng = np.random.default_rng(0)
        thing, role = (rng.integers(n, size=sentences) for n in (self.things, self.roles))
        first = self.things * self.roles
        of_thing, of_role = rng.integers(self.company, size=(2, sentences, 2))
        of_thing += first + thing[:, None] * self.company
        of_role += first + (self.things + role[:, None]) * self.company
        around = rng.permuted(np.concatenate([of_thing, of_role], axis=1), axis=1)
        word, end = self.name(thing, role)[:, None], np.full((sentences, 1), -1)
        lines = np.concatenate([around[:, :2], word, around[:, 2:], end], axis=1)
        return lines.astype(np.int32).ravel()

    def questions(self) -> list[tuple[tuple[str, str, str], str]]:
        asked = []
        for a, c in itertools.permutations(range(self.things), 2):
            for role, other in itertools.permutations(range(self.roles), 2):
                words = [self.name(a, role), self.name(a, other)]
                words += [self.name(c, role), self.name(c, other)]
                *question, answer = map(str, words)
                asked.append((tuple(question), answer))
        return asked


@pytest.mark.parametrize(
    "architecture", ["skip_gram", pytest.param("cbow_mean", marks=pytest.mark.slow)]
)
def test_planted_analogies_are_solved(architecture: str) -> None:
    planted = Planted()
    tokens = planted.text(12_000)
    counts = np.bincount(tokens[tokens >= 0], minlength=planted.size)
    keep = keep_probabilities(counts, threshold=0, rule="paper")
    stream = WordStream(tokens, keep, size=4096, window=4, seed=0)
    goal = NegativeSampling(counts, negatives=5, samples=32)
    model = Word2Vec(goal, features=24, window=4, architecture=architecture)
    tables = train(model, stream.batches(0), 0.5, 5 * stream.steps_per_epoch, 128)
    space = WordSpace([str(word) for word in range(planted.size)], tables["input"][: planted.size])
    questions = planted.questions()
    found = space.analogies([question for question, _ in questions])
    right = [best.word == answer for (best,), (_, answer) in zip(found, questions, strict=True)]
    assert len(right) == 12 * 11 * 4 * 3 and np.mean(right) >= 0.95
