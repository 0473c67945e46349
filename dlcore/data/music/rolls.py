"""Piano rolls: pieces of music as bits, their batches, and their transposition.

Shapes: N pieces of a split, n gathered ones, T steps, V = 88 pitches of a piano.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dlcore.data.loader import process_rows
from dlcore.data.music.notes import LOWEST, PITCHES, Piece
from dlcore.data.sources import Batch

# The share of the pieces that fits into the shorter of the two lengths of batches.
_SHORT = 0.75


class Rolls:
    """A split of pieces as piano rolls, padded with silence to one of two lengths.

    Args:
        pieces: N pieces, each with at least one step.
        buckets: the lengths to pad to; None chooses them by the lengths of the pieces.

    Attributes:
        lengths: the steps of each piece, int32 [N].
        buckets: the lengths that batches can have, in rising order.

    >>> split = Rolls([((60, 64), (62,)), ((60,),)])
    >>> batch = split.gather(np.array([1, 0]))
    >>> batch["roll"].shape, batch["length"].tolist(), np.argwhere(batch["roll"][1]).tolist()
    ((2, 2, 88), [1, 2], [[0, 39], [0, 43], [1, 41]])
    """

    def __init__(self, pieces: Sequence[Piece], buckets: Sequence[int] | None = None):
        self.lengths = np.fromiter(map(len, pieces), np.int32, len(pieces))
        if (self.lengths == 0).any():
            raise ValueError(f"piece {int(self.lengths.argmin())} of {len(pieces)} has no step")
        if buckets is None:
            short = np.quantile(self.lengths, _SHORT, method="higher") if len(pieces) else 1
            buckets = sorted({int(short), int(self.lengths.max(initial=1))})
        if self.lengths.max(initial=0) > buckets[-1]:
            raise ValueError(f"buckets {tuple(buckets)} do not hold {self.lengths.max()} steps")
        self.buckets = tuple(buckets)
        self._starts = np.cumsum(self.lengths) - self.lengths
        end = np.zeros((self.buckets[-1], PITCHES), np.uint8)
        self._flat = np.concatenate([*map(to_roll, pieces), end])

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Gathers the pieces at `indices` [n].

        Args:
            indices: the numbers of the pieces.
            among: the pieces whose longest decides T; None means `indices`.

        Returns:
            "roll", uint8 [n, T, V], and "length", int32 [n].
        """
        length = self.lengths[indices]
        longest = (length if among is None else self.lengths[among]).max()
        steps = np.arange(self.buckets[np.searchsorted(self.buckets, longest)])
        roll = self._flat[self._starts[indices][:, None] + steps]
        roll[steps >= length[:, None]] = 0
        return {"roll": roll, "length": length}

    def subset(self, indices: np.ndarray) -> "Rolls":
        """Returns the pieces at `indices` [n] alone, with the same lengths of batches."""
        found = copy.copy(self)
        found._starts, found.lengths = self._starts[indices], self.lengths[indices]
        return found


def to_roll(piece: Piece) -> np.ndarray:
    """Returns a piece of T steps as bits, uint8 [T, V].

    >>> np.argwhere(to_roll(((21,), (), (22, 108)))).tolist()
    [[0, 0], [2, 1], [2, 87]]
    """
    roll = np.zeros((len(piece), PITCHES), np.uint8)
    times = [time for time, chord in enumerate(piece) for _ in chord]
    roll[times, [pitch - LOWEST for chord in piece for pitch in chord]] = 1
    return roll


def to_piece(roll: np.ndarray) -> Piece:
    """Returns the piece of a piano roll [T, V]."""
    return tuple(tuple((np.flatnonzero(row) + LOWEST).tolist()) for row in np.asarray(roll))


def transposed(
    batches: Iterator[Mapping[str, Any]],
    start: int,
    semitones: int,
    *,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, Any]]:
    """Yields batches with pieces shifted up or down, depending on the seed, the step and the row.

    All shifts that leave a piece on the piano are equally likely.

    Args:
        batches: the batches of a loader, from step `start` on, each with this process's rows of
            "roll".
        start: the step of the first batch.
        semitones: the largest shift.
        seed: the seed of the run.
        batch_size: the number of rows of all processes together.
        process_index: the number of this process.
        process_count: the number of processes, on which the shifts do not depend.
    """
    rows = process_rows(batch_size, process_index, process_count)
    for step, batch in enumerate(batches, start):
        uniform = np.random.default_rng([seed, step, 2]).random(batch_size)[rows]
        rolls: np.ndarray = batch["roll"]
        used = rolls.max(1) > 0
        silent = ~used.any(1)
        down = np.where(silent, 0, np.minimum(semitones, used.argmax(1)))
        up = np.where(silent, 0, np.minimum(semitones, used[:, ::-1].argmax(1)))
        shifts = np.floor(uniform * (down + up + 1)).astype(int) - down
        pairs = zip(rolls, shifts, strict=True)
        yield {**batch, "roll": np.stack([np.roll(roll, shift, axis=1) for roll, shift in pairs])}
