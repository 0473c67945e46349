"""Paragraph vectors, PV-DBOW with negative sampling, ours and gensim's, on the same lines.

A run learns vectors of the sentences of scored pairs, and of other lines beside them, and is judged
by how well the cosines of pairs follow the scores.
"""

import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

FEATURES, NEGATIVES, SAMPLE, MIN_COUNT = 100, 5, 1e-3, 2
MICRO_BATCH, WORDS, RATE = 1024, 16_384, 0.37


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The lines of a run, those of the pairs first.

    Attributes:
        lines: the words of each line, in lower case.
        rows: the lines of both sentences of each pair, int [N, 2].
        scores: of the pairs, [N].
    """

    lines: list[list[str]]
    rows: np.ndarray
    scores: np.ndarray

    @property
    def words(self) -> int:
        return sum(map(len, self.lines))


class Learnt(NamedTuple):
    """The result of a run.

    Attributes:
        spearman: of the cosines of learnt vectors with the scores.
        inferred: of those of vectors that were inferred with the other tables as learnt.
        seconds: of training alone, vocabulary and compilation left out.
        words_per_second: of the corpus, those that subsampling leaves out included.
    """

    spearman: float
    inferred: float
    seconds: float
    words_per_second: float


def corpus_of(pairs: str | pathlib.Path, *, documents: bool = True) -> Corpus:
    """Reads the sentences of all pairs of a folder, and the embedded text.

    Args:
        pairs: a folder with train and dev (or test) files of scored pairs; the latter judge.
        documents: whether the paragraphs of the embedded text follow.
    """
    from dlcore.data.text import load_corpus, load_scored_pairs
    from dlcore.data.text.words import find_words

    found = load_scored_pairs(data_path=pairs)
    sentences = dict.fromkeys(one for pair in (*found.train, *found.test) for one in pair[:2])
    row_of = {sentence: row for row, sentence in enumerate(sentences)}
    texts = [*sentences]
    if documents:
        texts += load_corpus("python_docs", valid_share=0, test_share=0).train.split("\n\n")
    rows = [[row_of[pair.first], row_of[pair.second]] for pair in found.test]
    scores = np.array([pair.score for pair in found.test])
    return Corpus([find_words(text.lower()) for text in texts], np.array(rows), scores)


def _spearman(vectors: np.ndarray, corpus: Corpus, rows: np.ndarray) -> float:
    from dlcore.evaluation.statistics import spearman

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths == 0, 1, lengths)
    return spearman((units[rows[:, 0]] * units[rows[:, 1]]).sum(1), corpus.scores)


def our_paragraphs(
    *, pairs: str, epochs: int, seed: int = 0, passes: int = 20, documents: bool = True
) -> Learnt:
    """Trains as the job does with --model=pv_dbow --test_sentences."""
    import jax
    import jax.numpy as jnp
    import optax

    from dlcore import optim, runtime
    from dlcore.data.text import WordStream, keep_probabilities
    from dlcore.models.embedding import (
        ParagraphVectors,
        initial_sums,
        objective,
        word2vec_step,
    )
    from dlcore.types import TrainState

    runtime.configure()
    corpus = corpus_of(pairs, documents=documents)
    every = np.array([word for line in corpus.lines for word in line])
    words, numbers = np.unique(every, return_inverse=True)
    counts = np.bincount(numbers)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= MIN_COUNT]
    new = np.full(len(words), -2)
    new[order] = np.arange(len(order))
    lines = np.split(new[numbers], np.cumsum([len(line) for line in corpus.lines])[:-1])
    lines = [line[line >= 0] for line in lines]
    tokens = np.concatenate([np.append(line, -1) for line in lines]).astype(np.int32)
    counts = counts[order]
    stream = WordStream(
        tokens,
        keep_probabilities(counts, threshold=SAMPLE, rule="program"),
        size=WORDS,
        window=1,
        seed=seed,
    )
    noise = objective("negative_sampling", counts, negatives=NEGATIVES)
    model = ParagraphVectors(noise, FEATURES, paragraphs=len(lines), window=1)
    steps = epochs * stream.steps_per_epoch
    rate = optim.schedule("linear", RATE, steps=steps)
    step = word2vec_step(
        model, learning_rate=lambda at: jnp.asarray(rate(at)), micro_batch=MICRO_BATCH
    )
    tx = optax.GradientTransformation(initial_sums, optax.identity().update)

    def begin() -> Any:
        init_key, key = jax.random.split(jax.random.key(seed))
        return TrainState.create({"params": model.init(init_key)}, tx, key)

    compiled = jax.jit(step, donate_argnums=0)
    jax.block_until_ready(compiled(begin(), stream.batch(0)))
    state, batches = begin(), stream.batches(0)
    start = time.perf_counter()
    for _ in range(steps):
        state, _ = compiled(state, next(batches))
    jax.block_until_ready(state.params)
    seconds = time.perf_counter() - start
    learnt = np.asarray(state.params["paragraphs"])
    asked = [lines[row] for row in corpus.rows.ravel()]
    padded = np.full((len(asked), max(map(len, asked))), -1)
    for row, line in zip(padded, asked, strict=True):
        row[: len(line)] = line
    infer = jax.jit(
        lambda tables, words: model.infer(
            tables, words, passes=passes, rate=RATE, key=jax.random.key(seed)
        )
    )
    parts = [np.asarray(infer(state.params, part)) for part in np.split(padded, 6)]
    return Learnt(
        _spearman(learnt, corpus, corpus.rows),
        _spearman(np.concatenate(parts), corpus, np.arange(len(asked)).reshape(-1, 2)),
        seconds,
        corpus.words * epochs / seconds,
    )


def their_paragraphs(
    *, pairs: str, epochs: int, seed: int = 1, passes: int = 20, documents: bool = True
) -> Learnt:
    """gensim's Doc2Vec with dm=0, on two threads, as its program is given."""
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    corpus = corpus_of(pairs, documents=documents)
    tagged = [TaggedDocument(line, [row]) for row, line in enumerate(corpus.lines)]
    model = Doc2Vec(
        dm=0, vector_size=FEATURES, negative=NEGATIVES, hs=0, sample=SAMPLE, min_count=MIN_COUNT,
        epochs=epochs, seed=seed, workers=2,
    )  # fmt: skip
    model.build_vocab(tagged)
    start = time.perf_counter()
    model.train(tagged, total_examples=len(tagged), epochs=epochs)
    seconds = time.perf_counter() - start
    asked = [corpus.lines[row] for row in corpus.rows.ravel()]
    inferred = np.stack([model.infer_vector(line, epochs=passes) for line in asked])
    return Learnt(
        _spearman(model.dv.vectors, corpus, corpus.rows),
        _spearman(inferred, corpus, np.arange(len(asked)).reshape(-1, 2)),
        seconds,
        corpus.words * epochs / seconds,
    )
