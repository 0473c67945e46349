"""Batches the cells of a co-occurrence matrix so that GloVe's step computes them fast.

Words are sorted by frequency, so that X is dense where both words are frequent. It is cut into
square tiles of T words. A tile with a large enough share of cells becomes a dense tile, which takes
three matrix products; the cells of all other tiles, the rest, are gathered and scattered one by one
within squares of S words. An epoch holds every cell exactly once, and its batches come in an order
that is a pure function of the seed and the epoch.

Shapes: V words, n cells, T words of a tile's side, S of a square of the rest, C cells of a part of
the rest, K tiles or parts of a batch.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tqdm

from dlcore.errors import InputError

REST_SIDE = 2048  # S, if there are as many words; larger squares do not fit into the cache
_REST_CELLS = 8192  # C
_TILES, _PARTS = 8, 4  # K of dense tiles, and of the rest


class _Piece(NamedTuple):
    """Cells of one square of X, at [rows, columns] within it, and its first row and column."""

    first_row: int
    first_column: int
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray


class GloveTiles:
    """A loader of training batches of the cells of X, in a new order in each epoch.

    Args:
        rows: i of the cells, rising, int32 [n]; these arrays may be memory maps.
        columns: j, int32 [n].
        values: X_ij > 0, float32 [n].
        vocabulary_size: V.
        seed: the seed of the order.
        tile: T, which is limited to V.
        density: the least share of nonzero cells in a dense tile. At about the default, a dense
            tile takes a CPU as long as its cells would take in the rest.

    Attributes:
        epoch_steps: the number of batches of an epoch.
        dense_share: the share of the cells that lie in dense tiles.

    Raises:
        InputError: when there are no cells, T is not in 1..2048 or the seed is negative.
    """

    def __init__(
        self,
        rows: np.ndarray,
        columns: np.ndarray,
        values: np.ndarray,
        *,
        vocabulary_size: int,
        seed: int,
        tile: int = 128,
        density: float = 0.02,
    ):
        if not len(rows) or not 1 <= tile <= REST_SIDE or seed < 0:
            raise InputError(
                f"{len(rows)} cells in tiles of {tile} words with seed {seed} make no batches; "
                f"give cells, tiles of 1 to {REST_SIDE} and a seed of 0 or more"
            )
        self._seed = seed
        self._tile = min(tile, vocabulary_size)
        self._side = min(REST_SIDE, vocabulary_size)
        self._dense: list[_Piece] = []
        self._rest: list[_Piece] = []
        bounds = np.arange(0, vocabulary_size + self._side, self._side)
        strips = np.searchsorted(rows, bounds)
        for start, stop in tqdm.tqdm(
            [*zip(strips[:-1], strips[1:], strict=True)], desc="tiling", delay=2, leave=False
        ):
            strip = slice(start, stop)
            cells = _Piece(0, 0, *(np.asarray(x[strip]) for x in (rows, columns, values)))
            self._add_strip(cells, vocabulary_size, density)
        self._groups = -(-len(self._dense) // _TILES), -(-len(self._rest) // _PARTS)
        self.epoch_steps = sum(self._groups)
        self.dense_share = sum(len(piece.values) for piece in self._dense) / len(rows)
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the batch of a step: K dense tiles, or K parts of the rest.

        Returns:
            "first_row" and "first_column" of the K squares, int32 [K], and "values", float32:
            those of tiles are [K, T, T], 0 where there is no cell; those of parts are [K, C] and
            come with "rows" and "columns", int32 [K, C], counted from the first. Empty squares and
            cells of value 0 fill up the batch.
        """
        epoch, place = divmod(step, self.epoch_steps)
        groups, tiles, parts = self._order(epoch)
        group = int(groups[place])
        if group < self._groups[0]:
            chosen = tiles[group * _TILES : (group + 1) * _TILES]
            return self._tiles([self._dense[number] for number in chosen])
        group -= self._groups[0]
        chosen = parts[group * _PARTS : (group + 1) * _PARTS]
        return _parts([self._rest[number] for number in chosen])

    def batches(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches from step `start` on, without end."""
        while True:
            yield self.batch(start)
            start += 1

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws the order of the batches, of the tiles and of the parts in an epoch."""
        rng = np.random.Generator(np.random.Philox(key=np.array([self._seed, epoch], np.uint64)))
        sizes = self.epoch_steps, len(self._dense), len(self._rest)
        groups, tiles, parts = (rng.permutation(size) for size in sizes)
        return groups, tiles, parts

    def _add_strip(self, strip: _Piece, vocabulary_size: int, density: float) -> None:
        """Cuts the cells of S rows into tiles and parts of the rest."""
        rows, columns, values = strip[2:]
        tile, side = self._tile, self._side
        across = -(-vocabulary_size // tile)
        place = (rows // tile).astype(np.int64) * across + columns // tile
        numbers, counts = np.unique(place, return_counts=True)
        dense = numbers[counts >= density * tile**2]
        in_tile = np.isin(place, dense)

        def cut(chosen: np.ndarray, place: np.ndarray, side: int) -> Iterator[_Piece]:
            order = chosen[np.argsort(place[chosen], kind="stable")]
            ends = np.flatnonzero(np.diff(place[order])) + 1
            for cells in np.split(order, ends) if len(order) else []:
                # The last square begins earlier, so that it has the size of the others.
                first_row, first_column = (
                    min(int(index[cells[0]]) // side * side, vocabulary_size - side)
                    for index in (rows, columns)
                )
                kind = np.min_scalar_type(side - 1)
                yield _Piece(
                    first_row,
                    first_column,
                    (rows[cells] - first_row).astype(kind),
                    (columns[cells] - first_column).astype(kind),
                    values[cells],
                )

        self._dense += cut(np.flatnonzero(in_tile), place, tile)
        for piece in cut(np.flatnonzero(~in_tile), columns // side, side):
            count = -(-len(piece.values) // _REST_CELLS)
            for part in range(count):
                # Every count-th cell, so that each part has cells of all rows.
                cells = [array[part::count] for array in piece[2:]]
                self._rest.append(_Piece(*piece[:2], *cells))

    def _tiles(self, pieces: list[_Piece]) -> dict[str, np.ndarray]:
        batch = _squares(pieces, _TILES)
        values = np.zeros((_TILES, self._tile, self._tile), np.float32)
        for tile, piece in zip(values, pieces, strict=False):
            tile[piece.rows, piece.columns] = piece.values
        return {**batch, "values": values}


def _parts(pieces: list[_Piece]) -> dict[str, np.ndarray]:
    """Makes a batch of parts of the rest."""
    batch: dict[str, np.ndarray] = _squares(pieces, _PARTS)
    for name, kind in (("rows", np.int32), ("columns", np.int32), ("values", np.float32)):
        batch[name] = np.zeros((_PARTS, _REST_CELLS), kind)
        for row, piece in zip(batch[name], pieces, strict=False):
            cells = getattr(piece, name)
            row[: len(cells)] = cells
    return batch


def _squares(pieces: list[_Piece], count: int) -> dict[str, np.ndarray]:
    firsts = np.zeros((2, count), np.int32)
    for number, piece in enumerate(pieces):
        firsts[:, number] = piece[:2]
    return {"first_row": firsts[0], "first_column": firsts[1]}
