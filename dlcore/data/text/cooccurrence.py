"""Counts the co-occurrences of words: the matrix X that GloVe factorises, of any size, on disk.

X_ij sums a weight that depends on the distance over all occurrences of word j near word i
(Pennington et al. 2014, section 4.2). A corpus is counted chunk by chunk: the pairs of a chunk are
sorted and summed into a run on disk, and the runs are merged block by block, so that memory stays
within a limit.

Weights are summed as whole multiples of 1 / 738,017,280. So 1 / distance is exact up to distance
16 and at most 7e-10 off beyond. Whole numbers add up to the same in any order, so chunks, runs and
the memory limit cannot change a bit of the result. A sum can be as large as 1.2e10.

Shapes: N tokens, V words, n cells of X that are not 0, k cells or pairs of a chunk or block.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from dlcore.errors import InputError, pick
from dlcore.files import read_json

_UNIT = 720_720 << 10  # lcm(1..16), and bits for the distances beyond
_BYTES = 80  # memory that a pair or cell takes while it is sorted and summed
_FAST = 1 << 28  # bytes; getting more memory from the system costs more time than it saves
_COLUMNS = {"rows": np.int32, "columns": np.int32, "values": np.float32}
_WEIGHTINGS = {
    "harmonic": lambda distances: np.rint(_UNIT / distances).astype(np.int64),
    "flat": lambda distances: np.full(len(distances), _UNIT, np.int64),
}


class Cooccurrences(NamedTuple):
    """The cells of X that are not 0, sorted by row and then by column, as memory maps of files.

    Attributes:
        rows: i, int32 [n].
        columns: j, int32 [n].
        values: X_ij, float32 [n].
        vocabulary_size: V.
    """

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    vocabulary_size: int


class _Cells(NamedTuple):
    """Cells by rising key i V + j, int64 [k], and their sums times _UNIT, int64 [k]."""

    keys: np.ndarray
    sums: np.ndarray


class _Run(NamedTuple):
    """A file of n keys and then n sums."""

    path: pathlib.Path
    size: int

    def read(self, start: int, count: int) -> _Cells:
        """Reads at most `count` cells from number `start` on."""
        count = min(count, self.size - start)
        keys, sums = (
            np.fromfile(self.path, np.int64, count, offset=8 * first)
            for first in (start, self.size + start)
        )
        return _Cells(keys, sums)


def count_cooccurrences(
    tokens: np.ndarray,
    *,
    vocabulary_size: int,
    directory: str | os.PathLike[str],
    window: int = 15,
    weighting: str = "harmonic",
    symmetric: bool = True,
    memory_limit: int = 1 << 30,
) -> Cooccurrences:
    """Counts how often words occur near one another within a sentence.

    Args:
        tokens: ids of words in 0..V-1, and -1 after each sentence, int32 [N]; may be a memory map.
        vocabulary_size: V.
        directory: the folder in which the folder `cooccurrences` is created or replaced. A folder
            of that name is always complete.
        window: the greatest distance that counts.
        weighting: "harmonic" for a weight of 1 / distance, or "flat" for 1.
        symmetric: whether the words on both sides of i count, or only those before it.
        memory_limit: the bytes that counting takes, about; the result does not depend on it.

    Raises:
        InputError: for a window or limit below 1, an unknown weighting, an id that is not a word's,
            a corpus without two words near one another, or a folder that cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     counts = count_cooccurrences(
    ...         np.array([0, 1, 2, -1], np.int32), vocabulary_size=3, directory=folder, window=2
    ...     )
    ...     cells = zip(counts.rows.tolist(), counts.columns.tolist(), counts.values.tolist())
    ...     print(*cells)
    (0, 1, 1.0) (0, 2, 0.5) (1, 0, 1.0) (1, 2, 1.0) (2, 0, 0.5) (2, 1, 1.0)
    """
    if window < 1 or memory_limit < 1:
        raise InputError(
            f"window {window} with a memory limit of {memory_limit} bytes cannot be counted; give "
            "1 or more of both"
        )
    distances = np.arange(1, window + 1)
    limit = min(memory_limit, _FAST) // _BYTES
    weights = pick("weighting of co-occurrences", weighting, _WEIGHTINGS)(distances)
    folder = pathlib.Path(directory)
    work, final = folder / "cooccurrences.partial", folder / "cooccurrences"
    try:
        shutil.rmtree(work, ignore_errors=True)  # left behind by a run that was killed
        work.mkdir(parents=True)
        chunks = _chunks(tokens, vocabulary_size, weights, symmetric, limit)
        runs = [_write_run(work, number, cells) for number, cells in enumerate(chunks)]
        size = _merge(runs, work, vocabulary_size, limit)
        if not size:
            raise InputError(
                f"no two words of the corpus ({len(tokens)} tokens) are within {window} of one "
                "another in a sentence; give more text or a lower minimum count"
            )
        meta = {"vocabulary_size": int(vocabulary_size), "cells": size}
        (work / "meta.json").write_text(json.dumps(meta) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(work, final)
    except OSError as error:
        raise InputError(
            f"cannot write co-occurrences to {folder}: {error.strerror or error}; free space there "
            "or give another folder"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_cooccurrences(folder)


def open_cooccurrences(directory: str | os.PathLike[str]) -> Cooccurrences:
    """Opens the counts that `count_cooccurrences` wrote into a folder.

    Raises:
        InputError: when there are none, or they are incomplete.
    """
    folder = pathlib.Path(directory) / "cooccurrences"
    try:
        meta = read_json(folder / "meta.json")
        size, vocabulary_size = meta["cells"], meta["vocabulary_size"]
        rows, columns, values = (
            np.memmap(folder / f"{name}.bin", kind, "r") for name, kind in _COLUMNS.items()
        )
        whole = len(rows) == len(columns) == len(values) == size
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{folder} holds no whole co-occurrence counts; count them again")
    return Cooccurrences(rows, columns, values, vocabulary_size)


def _chunks(
    tokens: np.ndarray, vocabulary_size: int, weights: np.ndarray, symmetric: bool, pairs: int
) -> Iterator[_Cells]:
    """Yields the cells of each chunk of the corpus; a chunk has about `pairs` pairs."""
    window = len(weights)
    length = max(1, pairs // window)
    with tqdm.tqdm(
        total=len(tokens), desc="counting", unit=" tokens", unit_scale=True, delay=2, leave=False
    ) as progress:
        for start in range(0, len(tokens), length):
            chunk = np.asarray(tokens[start : start + length + window], np.int64)
            if len(chunk) and not -1 <= chunk.min() <= chunk.max() < vocabulary_size:
                wrong = chunk[(chunk < -1) | (chunk >= vocabulary_size)][0]
                raise InputError(
                    f"the corpus holds the id {wrong}; words are 0 to {vocabulary_size - 1}, and "
                    "-1 ends a sentence"
                )
            cells = _count_chunk(chunk, length, vocabulary_size, weights, symmetric)
            if len(cells.keys):
                yield cells
            progress.update(min(length, len(tokens) - start))


def _count_chunk(
    chunk: np.ndarray, length: int, vocabulary_size: int, weights: np.ndarray, symmetric: bool
) -> _Cells:
    """Counts the pairs whose earlier word is among the first `length` tokens."""
    window = len(weights)
    bits = (window - 1).bit_length()
    sentence = np.cumsum(chunk < 0)
    pairs = np.empty(min(length, len(chunk)) * window, np.int64)
    count = 0
    for distance in range(1, min(window, len(chunk) - 1) + 1):
        later = chunk[distance : distance + length]
        earlier = chunk[: len(later)]
        # The -1 that ends a sentence counts as the first token of the next one, so that it is never
        # the later token of a pair.
        near = (sentence[: len(later)] == sentence[distance : distance + length]) & (earlier >= 0)
        row, column = later[near], earlier[near]
        if symmetric:
            # Only the half of X above its diagonal is summed; it is mirrored below, when there are
            # fewer cells than pairs.
            row, column = np.minimum(row, column), np.maximum(row, column)
        pairs[count : count + len(row)] = (row * vocabulary_size + column) << bits | distance - 1
        count += len(row)
    pairs = pairs[:count]
    # A pair and its distance share a number: sorting numbers is many times faster than sorting
    # them with others alongside.
    pairs.sort()
    cells = _summed(pairs >> bits, weights[pairs & (1 << bits) - 1])
    if not symmetric:
        return cells
    row, column = np.divmod(cells.keys, vocabulary_size)
    off_diagonal = row != column
    sums = np.where(off_diagonal, cells.sums, 2 * cells.sums)
    mirrored = (column * vocabulary_size + row)[off_diagonal]
    return _sorted(
        np.concatenate([cells.keys, mirrored]), np.concatenate([sums, cells.sums[off_diagonal]])
    )


def _summed(keys: np.ndarray, sums: np.ndarray) -> _Cells:
    """Sums the cells of each of the sorted keys."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(first)
    return _Cells(keys[starts], np.add.reduceat(sums, starts) if len(keys) else sums)


def _sorted(keys: np.ndarray, sums: np.ndarray) -> _Cells:
    order = np.argsort(keys, kind="stable")
    return _Cells(keys[order], sums[order])


def _write_run(folder: pathlib.Path, number: int, cells: _Cells) -> _Run:
    path = folder / f"run{number}.bin"
    with open(path, "wb") as file:
        for array in cells:
            file.write(array.data)
    return _Run(path, len(cells.keys))


def _merge(runs: Sequence[_Run], folder: pathlib.Path, vocabulary_size: int, limit: int) -> int:
    """Sums the runs into the three files of the result, removes the runs and returns n."""
    size = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in _COLUMNS]
        for cells in _merged(runs, max(1, limit // max(1, len(runs)))):
            values = (*np.divmod(cells.keys, vocabulary_size), cells.sums / _UNIT)
            for file, array, kind in zip(files, values, _COLUMNS.values(), strict=True):
                file.write(array.astype(kind).data)
            size += len(cells.keys)
    for run in runs:
        run.path.unlink()
    return size


def _merged(runs: Sequence[_Run], block: int) -> Iterator[_Cells]:
    """Yields the cells of all runs in order; memory holds at most a block of each run."""
    positions = [0] * len(runs)
    with tqdm.tqdm(
        total=sum(run.size for run in runs),
        desc="merging",
        unit=" cells",
        unit_scale=True,
        delay=2,
        leave=False,
    ) as progress:
        while left := [number for number, run in enumerate(runs) if positions[number] < run.size]:
            blocks = [runs[number].read(positions[number], block) for number in left]
            # Every cell up to the smallest last key has been read from all runs.
            last = min(cells.keys[-1] for cells in blocks)
            counts = [int(np.searchsorted(cells.keys, last, side="right")) for cells in blocks]
            for number, count in zip(left, counts, strict=True):
                positions[number] += count
            keys, sums = (
                np.concatenate([array[:count] for array, count in zip(arrays, counts, strict=True)])
                for arrays in zip(*blocks, strict=True)
            )
            yield _summed(*_sorted(keys, sums))
            progress.update(sum(counts))
