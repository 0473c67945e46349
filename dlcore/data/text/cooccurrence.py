"""Co-occurrence counts of words: the matrix X that GloVe factorises, of any size, on disk.

X_ij sums, over all places where word j stands near word i, a weight that depends on their distance
(Pennington et al. 2014, section 4.2). A corpus is counted chunk by chunk: the pairs of a chunk are
sorted and summed into a run on disk, and the runs are merged block by block, so that memory stays
within a limit.

Weights are summed as whole multiples of 1 / 738,017,280, in which 1 / distance is exact up to
distance 16 and at most 7e-10 off beyond. Whole numbers add up to the same in any order, so chunks,
runs and the memory limit cannot change a bit of the result. Sums hold up to 1.2e10.

Shapes: N tokens, V words, n cells of X that are not 0, k cells or pairs of a part.
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

_UNIT = 720_720 << 10  # lcm(1..16), and bits for the distances beyond
_BYTES = 80  # memory that a pair or cell takes while it is sorted and summed
_FAST = 1 << 28  # more memory than this, fresh from the system, costs more time than it saves
_COLUMNS = {"rows": np.int32, "columns": np.int32, "values": np.float32}
_WEIGHTINGS = {
    "harmonic": lambda distances: np.rint(_UNIT / distances).astype(np.int64),
    "flat": lambda distances: np.full(len(distances), _UNIT, np.int64),
}


class Cooccurrences(NamedTuple):
    """The cells of X that are not 0, by row and then by column; memory maps of files.

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
    """Cells by rising key i V + j, int64 [k], and their sums in units, int64 [k]."""

    keys: np.ndarray
    sums: np.ndarray


class _Run(NamedTuple):
    """A file of n keys and then n sums."""

    path: pathlib.Path
    size: int

    def read(self, start: int, count: int) -> _Cells:
        """The cells from `start` on, at most `count`."""
        count = min(count, self.size - start)
        keys, sums = (
            np.fromfile(self.path, np.int64, count, offset=8 * at)
            for at in (start, self.size + start)
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
    """Counts which words stand near which; never across the end of a sentence.

    Args:
        tokens: ids of words in 0..V-1, and -1 after each sentence, int32 [N]; may be a memory map.
        vocabulary_size: V.
        directory: where the folder `cooccurrences` is put, in place of one that is there. Only a
            whole one ever has that name.
        window: the greatest distance that counts.
        weighting: "harmonic", 1 / distance, or "flat", 1.
        symmetric: whether the words on both sides of i count, or only those before it.
        memory_limit: bytes that counting takes, about; the result does not depend on it.

    Raises:
        InputError: for a window or limit below 1, an unknown weighting, an id that is not a word's,
            a corpus without two words near one another, or a disk that is full or refuses.
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
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        work.mkdir(parents=True)
        chunks = _chunks(tokens, vocabulary_size, weights, symmetric, limit)
        runs = [_written(work, number, cells) for number, cells in enumerate(chunks)]
        size = _merge(runs, work, vocabulary_size, limit)
        if not size:
            raise InputError(
                f"no two words of the corpus ({len(tokens)} tokens) stand within {window} of one "
                "another in a sentence; give more text or a lower minimum count"
            )
        meta = {"vocabulary_size": int(vocabulary_size), "cells": size}
        (work / "meta.json").write_text(json.dumps(meta) + "\n")
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
    """The counts that `count_cooccurrences` put into a folder.

    Raises:
        InputError: when there are none, or they are not whole.
    """
    folder = pathlib.Path(directory) / "cooccurrences"
    try:
        meta = json.loads((folder / "meta.json").read_text())
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
    """The cells of each chunk of the corpus, of about so many pairs."""
    window = len(weights)
    length = max(1, pairs // window)
    with tqdm.tqdm(
        total=len(tokens), desc="counting", unit=" tokens", unit_scale=True, delay=2, leave=False
    ) as progress:
        for start in range(0, len(tokens), length):
            part = np.asarray(tokens[start : start + length + window], np.int64)
            if len(part) and not -1 <= part.min() <= part.max() < vocabulary_size:
                raise InputError(
                    f"the corpus holds the id {part[(part < -1) | (part >= vocabulary_size)][0]}; "
                    f"words are 0 to {vocabulary_size - 1}, and -1 ends a sentence"
                )
            cells = _counted(part, length, vocabulary_size, weights, symmetric)
            if len(cells.keys):
                yield cells
            progress.update(min(length, len(tokens) - start))


def _counted(
    part: np.ndarray, length: int, vocabulary_size: int, weights: np.ndarray, symmetric: bool
) -> _Cells:
    """The cells of the pairs whose earlier word is among the first `length` tokens."""
    window = len(weights)
    bits = (window - 1).bit_length()
    sentence = np.cumsum(part < 0)
    pairs = np.empty(min(length, len(part)) * window, np.int64)
    count = 0
    for distance in range(1, min(window, len(part) - 1) + 1):
        later = part[distance : distance + length]
        earlier = part[: len(later)]
        # A sentence's end counts as the beginning of the next, and is thus never the later one.
        near = (sentence[: len(later)] == sentence[distance : distance + length]) & (earlier >= 0)
        row, column = later[near], earlier[near]
        if symmetric:
            # The half of X above its diagonal, mirrored once there are fewer cells than pairs.
            row, column = np.minimum(row, column), np.maximum(row, column)
        pairs[count : count + len(row)] = (row * vocabulary_size + column) << bits | distance - 1
        count += len(row)
    pairs = pairs[:count]
    # Numbers alone sort many times faster than with others to carry along.
    pairs.sort()
    cells = _summed(pairs >> bits, weights[pairs & (1 << bits) - 1])
    if not symmetric:
        return cells
    row, column = np.divmod(cells.keys, vocabulary_size)
    beside = row != column
    sums = np.where(beside, cells.sums, 2 * cells.sums)
    mirrored = (column * vocabulary_size + row)[beside]
    return _sorted(
        np.concatenate([cells.keys, mirrored]), np.concatenate([sums, cells.sums[beside]])
    )


def _summed(keys: np.ndarray, sums: np.ndarray) -> _Cells:
    """One cell for each of the sorted keys."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(first)
    return _Cells(keys[starts], np.add.reduceat(sums, starts) if len(keys) else sums)


def _sorted(keys: np.ndarray, sums: np.ndarray) -> _Cells:
    order = np.argsort(keys, kind="stable")
    return _Cells(keys[order], sums[order])


def _written(folder: pathlib.Path, number: int, cells: _Cells) -> _Run:
    path = folder / f"run{number}.bin"
    with open(path, "wb") as file:
        for array in cells:
            file.write(array.data)
    return _Run(path, len(cells.keys))


def _merge(runs: Sequence[_Run], folder: pathlib.Path, vocabulary_size: int, limit: int) -> int:
    """Sums the runs into the three files of the result, and removes them; gives n."""
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
    """The cells of all runs in order; at most a block of each run is in memory."""
    at = [0] * len(runs)
    with tqdm.tqdm(
        total=sum(run.size for run in runs),
        desc="merging",
        unit=" cells",
        unit_scale=True,
        delay=2,
        leave=False,
    ) as progress:
        while left := [number for number, run in enumerate(runs) if at[number] < run.size]:
            parts = [runs[number].read(at[number], block) for number in left]
            # Up to the least last key no run has anything but what was read.
            last = min(part.keys[-1] for part in parts)
            counts = [int(np.searchsorted(part.keys, last, side="right")) for part in parts]
            for number, count in zip(left, counts, strict=True):
                at[number] += count
            keys, sums = (
                np.concatenate([array[:count] for array, count in zip(arrays, counts, strict=True)])
                for arrays in zip(*parts, strict=True)
            )
            yield _summed(*_sorted(keys, sums))
            progress.update(sum(counts))
