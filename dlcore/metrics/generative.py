"""Comparisons of drawn examples with real ones, on NumPy arrays.

Shapes: N real examples, M drawn ones, D features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dlcore.metrics.embeddings import distance_matrix

# Distances that are held at a time.
_MOST = 1 << 24


def frechet_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    """Returns |m - m'|^2 + trace(C + C' - 2 (C C')^(1/2)) for means and covariances of samples.

    It is the squared Frechet distance of two normal distributions (Dowson & Landau 1982), by which
    Heusel et al. 2017 compare the features of images. It depends on the number of examples: compare
    values only for the same N and M.

    Args:
        real: features (N, D).
        drawn: features (M, D).

    Raises:
        ValueError: for shapes that do not fit, and fewer than two examples.

    >>> x = np.array([[0.0], [2.0]])
    >>> frechet_distance(x, x + 3)
    9.0
    """
    real, drawn = (np.asarray(each, np.float64) for each in (real, drawn))
    if real.ndim != 2 or drawn.ndim != 2 or real.shape[1] != drawn.shape[1]:
        raise ValueError(f"features {real.shape} and {drawn.shape} must be (N, D) and (M, D)")
    if min(len(real), len(drawn)) < 2:
        raise ValueError(f"{len(real)} and {len(drawn)} examples have no covariance; give 2 each")
    first, second = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (real, drawn))
    # The trace of (C C')^(1/2) is that of (C^(1/2) C' C^(1/2))^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    apart = ((real.mean(0) - drawn.mean(0)) ** 2).sum()
    return float(max(apart + np.trace(first) + np.trace(second) - 2 * shared, 0.0))


class PrecisionRecall(NamedTuple):
    """The shares of `precision_recall`.

    Attributes:
        precision: the share of drawn examples that lie among the real ones: their quality.
        recall: the share of real examples that lie among the drawn ones: their variety.
    """

    precision: float
    recall: float


def precision_recall(
    real: np.ndarray, drawn: np.ndarray, *, neighbours: int = 3
) -> PrecisionRecall:
    """Returns the improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2).

    An example lies among others if it is inside the ball around one of them that reaches to that
    one's k-th nearest neighbour among its own kind.

    Args:
        real: features (N, D).
        drawn: features (M, D).
        neighbours: k, less than N and M.

    Raises:
        ValueError: for too few examples.
    """
    if not 0 < neighbours < min(len(real), len(drawn)):
        raise ValueError(
            f"{len(real)} real and {len(drawn)} drawn examples have no {neighbours} neighbours"
        )
    return PrecisionRecall(
        _share_among(drawn, real, neighbours), _share_among(real, drawn, neighbours)
    )


def _share_among(queries: np.ndarray, others: np.ndarray, neighbours: int) -> float:
    # Each is its own nearest neighbour.
    radii = np.concatenate(
        [
            np.partition(each, neighbours, axis=1)[:, neighbours]
            for each in _distances(others, others)
        ]
    )
    held = [(each <= radii).any(1) for each in _distances(queries, others)]
    return float(np.concatenate(held).mean())


def nearest(queries: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the index of the nearest of (N, D) to each of (M, D), int (M,), and the distances.

    >>> index, distance = nearest(np.array([[0.0, 1.0]]), np.array([[5.0, 1.0], [0.0, 3.0]]))
    >>> index.tolist(), distance.tolist()
    ([1], [2.0])
    """
    found = [(each.argmin(1), each.min(1)) for each in _distances(queries, others)]
    indices, distances = (np.concatenate(each) for each in zip(*found, strict=True))
    return indices, distances


def _distances(queries: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the distances of the queries in order, in blocks (some of M, N)."""
    count = max(1, _MOST // max(len(others), 1))
    for start in range(0, len(queries), count):
        yield distance_matrix("l2", queries[start : start + count], others)


class ModeScores(NamedTuple):
    """The scores of `mode_scores`.

    Attributes:
        modes: the number of modes that have a good sample.
        good: the share of good samples.
        divergence: the Kullback-Leibler divergence in nats of the good samples' modes from equal
            shares; log of the number of modes where there is no good sample.
    """

    modes: int
    good: float
    divergence: float


def mode_scores(drawn: np.ndarray, centres: np.ndarray, deviation: float) -> ModeScores:
    """Counts the modes of a known mixture that samples cover (Srivastava et al. 2017, section 4.1).

    A sample is good if it is within three standard deviations of the nearest centre.

    Args:
        drawn: the drawn points (M, D).
        centres: the centres of the modes (K, D).
        deviation: the standard deviation of each coordinate around its centre.

    >>> centres = np.array([[0.0, 0.0], [9.0, 0.0]])
    >>> modes, good, divergence = mode_scores(np.array([[0.1, 0.2], [5.0, 0.0]]), centres, 1.0)
    >>> modes, good, round(divergence, 3)
    (1, 0.5, 0.693)
    """
    indices, distances = nearest(drawn, centres)
    good = distances <= 3 * deviation
    counts = np.bincount(indices[good], minlength=len(centres))
    shares = counts[counts > 0] / max(counts.sum(), 1)
    divergence = np.log(len(centres)) + (shares * np.log(shares)).sum()
    return ModeScores(int((counts > 0).sum()), float(good.mean()), float(divergence))
