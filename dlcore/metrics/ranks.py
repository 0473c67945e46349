"""Ranks of the targets of queries in a gallery, such as the captions of pictures.

Ties count against the model, so that a model that maps everything to one point finds nothing, and
so do NaN scores. Shapes: Q queries, q those of a block, G examples of the gallery, M pairs, D
dimensions of an embedding.
"""

from collections.abc import Iterable, Iterator

import numpy as np

RECALLS = (1, 5, 10)
_SCORES = 1 << 23  # that are looked at together


def blocks_of_rows(queries: int, gallery: int) -> Iterator[slice]:
    """Yields slices of the queries, whose scores with the whole gallery take little memory."""
    rows = max(1, _SCORES // max(gallery, 1))
    for start in range(0, queries, rows):
        yield slice(start, min(start + rows, queries))


def inner_products(queries: np.ndarray, gallery: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the inner products of the queries with the gallery, float64 (q, G), block by block.

    Args:
        queries: (Q, D).
        gallery: (G, D).
    """
    others = np.asarray(gallery, np.float64).T
    for rows in blocks_of_rows(len(queries), len(gallery)):
        yield np.asarray(queries[rows], np.float64) @ others


def best_ranks(scores: Iterable[np.ndarray], relevant: np.ndarray, queries: int) -> np.ndarray:
    """Returns the rank of each query's best target, from 1 on, int64 (Q,).

    If several examples are relevant, such as five captions of one picture, the best one counts, and
    the others do not worsen its rank (Karpathy & Fei-Fei 2015, section 4.1).

    Args:
        scores: blocks (q, G) of the scores of all queries in order; the greatest is the best.
        relevant: (M, 2), the indices of a query and of a relevant example; each query has at least
            one.
        queries: Q.

    Raises:
        ValueError: for a query without relevant examples, and for blocks whose rows are not Q in
            total.

    >>> scores = np.array([[0.9, 0.5, 0.7], [0.3, 0.3, 0.1]])
    >>> best_ranks([scores], np.array([[0, 2], [1, 0]]), 2).tolist()  # a tie counts against
    [2, 2]
    """
    order = np.argsort(relevant[:, 0], kind="stable")
    pairs = np.asarray(relevant)[order]
    starts = np.searchsorted(pairs[:, 0], np.arange(queries + 1))
    if (np.diff(starts) == 0).any() or len(pairs) != starts[-1]:
        raise ValueError(f"each of {queries} queries must look for something in the gallery")
    ranks: list[np.ndarray] = [np.zeros(0, np.int64)]
    first = 0
    for block in scores:
        own = pairs[starts[first] : starts[min(first + len(block), queries)]]
        is_relevant = np.zeros(block.shape, bool)
        is_relevant[own[:, 0] - first, own[:, 1]] = True
        best = np.where(is_relevant, block, -np.inf).max(1, keepdims=True)
        # What is not below the best stands before it; so does all that is compared with NaN.
        ranks.append(1 + (~(block < best) & ~is_relevant).sum(1))
        first += len(block)
    if first != queries:
        raise ValueError(f"scores of {first} queries were given, there are {queries}")
    return np.concatenate(ranks)


def rank_scores(ranks: np.ndarray) -> dict[str, float]:
    """Returns the recalls at 1, 5 and 10, and the median rank.

    The recall at K is the share of queries with a relevant example among the best K.

    Args:
        ranks: the ranks (Q,), from 1 on, of at least one query.

    >>> rank_scores(np.array([1, 2, 6, 50]))["recall_at_5"]
    0.5
    """
    recalls = {f"recall_at_{k}": float(np.mean(ranks <= k)) for k in RECALLS}
    return {**recalls, "median_rank": float(np.median(ranks))}


def recall_curve(ranks: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns K = 1 ... `most` and the recall at each of them.

    >>> recall_curve(np.array([1, 3]), 3)[1].tolist()
    [0.5, 0.5, 1.0]
    """
    counts = np.bincount(ranks, minlength=most + 1)[1 : most + 1]
    return np.arange(1, most + 1), np.cumsum(counts) / len(ranks)
