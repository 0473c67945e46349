"""word2vec as a loop over the pairs of a text, in float64."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from dlcore.models.embedding.objectives import Objective, objective
from dlcore.models.embedding.word2vec import ARCHITECTURES, Word2Vec

V, D, K, NEGATIVES = 13, 4, 6, 3
COUNTS = np.array([40, 30, 9, 9, 9, 7, 5, 4, 4, 2, 1, 1, 1])
UNUSED = 11  # Words from this one on are in no batch.
BUCKETS = 5
GRAMS = np.array([[w % 5, 3 * w % 4 - 1, -1 if w % 3 else 2] for w in range(V)])
MODELS = {
    **{name: {"architecture": name} for name in ARCHITECTURES},
    "cbow_original": {"architecture": "cbow_mean", "original_gradient": True},
    "skip_gram_subwords": {"subwords": GRAMS, "buckets": BUCKETS},
    "cbow_subwords": {"architecture": "cbow_mean", "subwords": GRAMS, "buckets": BUCKETS},
}


def make(model: str, name: str, window: int = 5) -> Word2Vec:
    goal = objective(name, COUNTS, negatives=NEGATIVES, samples=K)
    return Word2Vec(goal, D, window=window, **MODELS[model])


def make_tables(model: Word2Vec, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"input": V + model.buckets, "output": model.objective.rows}
    return {table: rng.normal(size=(rows, D)) for table, rows in sizes.items()}


def make_batch(model: Word2Vec, blocks: int, padding: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Blocks of sentences of 1 to 40 words, the last of them in part padding."""
    rng = np.random.default_rng(seed)
    size = blocks * model.block + 2 * model.window
    real = size - padding
    bounds = np.cumsum(rng.integers(1, 40, size))
    sentences = np.searchsorted(bounds, np.arange(size), side="right")
    sentences[: model.window // 2] = sentences[real:] = -1
    return {
        "words": np.where(sentences < 0, 0, rng.integers(0, UNUSED, size)),
        "sentences": sentences,
        "reach": rng.integers(1, model.window + 1, size),
    }


def examples(model: Word2Vec, batch: Mapping[str, np.ndarray]) -> Iterator[tuple[list[int], int]]:
    """The words of each query and its target."""
    words, sentences, reach = (batch[name] for name in ("words", "sentences", "reach"))
    for centre in range(model.window, len(words) - model.window):
        if sentences[centre] < 0:
            continue
        around = [
            words[other]
            for other in range(centre - reach[centre], centre + reach[centre] + 1)
            if other != centre and sentences[other] == sentences[centre]
        ]
        if model.architecture == "skip_gram":
            yield from (([words[centre]], other) for other in around)
        elif around:
            yield around, words[centre]


def softplus(x: float) -> float:
    return np.logaddexp(0, x)


def decide(
    goal: Objective, name: str, scores: np.ndarray, target: int, others: np.ndarray
) -> tuple[float, np.ndarray]:
    """The loss of a target, and its slope with respect to the scores of all rows [R]."""
    if name == "full":
        shares = softmax(scores)
        return -np.log(shares[target]), shares - np.eye(V)[target]
    loss, slope = 0.0, np.zeros_like(scores)
    if name == "hierarchical":
        for step in range(goal.tree.lengths[target]):
            node, code = goal.tree.nodes[target, step], goal.tree.codes[target, step]
            loss += softplus(-scores[node] if code else scores[node])
            slope[node] += expit(scores[node]) - code
        return loss, slope
    shift = np.log(V * NEGATIVES) + np.asarray(goal.noise.log_probs) if name == "nce" else 0
    odds = scores - shift
    loss += softplus(-odds[target])
    slope[target] += expit(odds[target]) - 1
    for other in others:
        loss += NEGATIVES / K * softplus(odds[other])
        slope[other] += NEGATIVES / K * expit(odds[other])
    return loss, slope


def parts(model: Word2Vec, word: int) -> list[int]:
    """The rows whose mean is the vector of a word."""
    if model.subwords is None:
        return [word]
    return [word, *(V + gram for gram in model.subwords[word] if gram >= 0)]


def plain(
    model: Word2Vec, name: str, tables: Mapping[str, np.ndarray], batch: Any, others: np.ndarray
) -> tuple[float, int, dict[str, np.ndarray]]:
    """The loss pair by pair, how many pairs there are, and the gradients of the tables."""
    total, count = 0.0, 0
    gradients = {key: np.zeros_like(table) for key, table in tables.items()}
    for query, target in examples(model, batch):
        share = 1 / len(query) if model.architecture == "cbow_mean" else 1.0
        vectors = [tables["input"][parts(model, word)].mean(0) for word in query]
        vector = share * sum(vectors)
        loss, slope = decide(model.objective, name, tables["output"] @ vector, target, others)
        total, count = total + loss, count + 1
        gradients["output"] += np.outer(slope, vector)
        whole = slope @ tables["output"]
        for word in query:
            change = whole if model.original_gradient else share * whole
            for row in parts(model, word):
                gradients["input"][row] += change / len(parts(model, word))
    return total, count, gradients
