"""Distances between embeddings of a whole split, in NumPy and float64.

`losses.DISTANCES` has the same distances for training. Shapes: N, M embeddings, D dimensions.
"""

from collections.abc import Iterator

import numpy as np

from dlcore.errors import choose

DISTANCES = ("cosine", "l1", "l2", "squared_l2")
_ROWS = 1024  # that are looked at together


def distance_matrix(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the distance of each x to each y, float64 (N, M).

    Args:
        name: one of `DISTANCES`.
        x: (N, D).
        y: (M, D).

    Raises:
        InputError: for an unknown name.

    >>> distance_matrix("l2", np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if name == "cosine":
        return 1 - _on_unit_sphere(x) @ _on_unit_sphere(y).T
    if name == "l1":
        total = np.zeros((len(x), len(y)))
        for column in range(x.shape[1]):
            total += np.abs(x[:, None, column] - y[None, :, column])
        return total
    if name not in DISTANCES:
        raise choose("distance", name, DISTANCES)
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None]
    square = np.maximum(squares - 2 * (x @ y.T), 0)
    # So close, only rounding is left of the difference: equal embeddings have distance 0.
    square[square < 1e-14 * squares] = 0
    return np.sqrt(square) if name == "l2" else square


def pair_distances(name: str, x: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the distances of pairs of embeddings, float64 (M,).

    Args:
        name: one of `DISTANCES`.
        x: (N, D).
        first: (M,) indices of rows of x.
        second: (M,) indices of rows of x.
    """
    if name not in DISTANCES:
        raise choose("distance", name, DISTANCES)
    found = [np.zeros(0)]
    for start in range(0, len(first), _ROWS):
        a, b = (np.asarray(x[rows[start : start + _ROWS]], np.float64) for rows in (first, second))
        if name == "cosine":
            found.append(1 - (_on_unit_sphere(a) * _on_unit_sphere(b)).sum(1))
        elif name == "l1":
            found.append(np.abs(a - b).sum(1))
        else:
            square = ((a - b) ** 2).sum(1)
            found.append(np.sqrt(square) if name == "l2" else square)
    return np.concatenate(found)


def rows_of_distances(name: str, x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each row's index and its distances to all rows (N,), without storing all of them."""
    for start in range(0, len(x), _ROWS):
        block = distance_matrix(name, x[start : start + _ROWS], x)
        yield from enumerate(block, start)


def _on_unit_sphere(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
