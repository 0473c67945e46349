"""Reads one long text in windows, in their order or shuffled.

`Stream` reads rows of contiguous windows, which truncated back-propagation trains on; `Windows` is
a split of windows to be shuffled, for models that carry no state from one window to the next.

In a `Stream` the N tokens are N predictions, each of a token from those before it; the first is
predicted from <eos>. They are cut into B contiguous rows whose lengths differ by one at most, and
window t of an epoch holds the predictions t T to (t + 1) T of every row, so that row r of a batch
continues row r of the batch before it. The last window is padded with weight 0: every token of the
text is predicted exactly once per epoch, in training as in evaluation. Each process reads its
contiguous slice of the rows.

Shapes: N tokens, B rows of the global batch, T tokens of a window, P processes.
"""

import copy
import itertools
from collections.abc import Iterator

import numpy as np

from dlcore.data.loader import process_rows
from dlcore.data.sources import Batch
from dlcore.errors import InputError

_EOS = 1  # the id of <eos> in every vocabulary


class Stream:
    """A loader of the training batches of one text, which are the same in each epoch.

    A batch is a pure function of its step (mod `epoch_steps`), so a run can continue at any step
    once it has the carry of the model.

    Args:
        tokens: the ids of the text, [N].
        batch_size: B, over all processes, at most N.
        window: T.
        process_index: the number of this process, from 0 to P - 1.
        process_count: P, which must divide B.

    Attributes:
        epoch_steps: the number of batches that hold the whole text, ceil(ceil(N / B) / T).

    Raises:
        InputError: when B is not a positive multiple of P, N < B or T < 1.

    >>> stream = Stream(np.array([5, 6, 7, 8]), batch_size=2, window=2)
    >>> batch = stream.batch(0)
    >>> batch["inputs"].tolist(), batch["targets"].tolist()
    ([[1, 5], [6, 7]], [[5, 6], [7, 8]])
    """

    def __init__(
        self,
        tokens: np.ndarray,
        batch_size: int,
        window: int,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ):
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(f"expected integer ids [N], given {tokens.dtype} {tokens.shape}")
        own_rows = process_rows(batch_size, process_index, process_count)
        if window < 1:
            raise InputError(f"window {window} is too short; give 1 token or more")
        if len(tokens) < batch_size:
            raise InputError(
                f"a text of {len(tokens)} tokens cannot fill the {batch_size} rows of a batch; "
                f"give more text or a batch size of at most {len(tokens)}"
            )
        self.epoch_steps = -(-len(tokens) // (batch_size * window))
        bounds = np.arange(batch_size + 1) * len(tokens) // batch_size
        first, last = bounds[own_rows.start], bounds[own_rows.stop]
        self._starts = bounds[own_rows] - first
        self._lengths = np.diff(bounds)[own_rows]
        # This process reads from the token before its first prediction to its last prediction;
        # zeros pad the last window.
        before = tokens[first - 1 : first] if first else [_EOS]
        text = np.concatenate(
            [before, tokens[first:last], np.zeros(window, int)], dtype=np.int32, casting="same_kind"
        )
        self._windows = np.lib.stride_tricks.sliding_window_view(text, window)

    def batch(self, step: int) -> Batch:
        """Returns this process's rows of global batch `step`.

        They are "inputs" and "targets", int32 [B / P, T]: tokens and the tokens after them;
        "weight", float32 [B / P, T]: 0 where the row has ended, else 1; and "reset", bool [B / P]:
        whether the row starts anew, which is true at the start of an epoch only.
        """
        window = step % self.epoch_steps
        rows, width = len(self._starts), self._windows.shape[1]
        starts = self._starts + window * width
        inputs, targets = self._windows[starts], self._windows[starts + 1]
        weight = np.ones((rows, width), np.float32)
        if window == self.epoch_steps - 1:
            ended = np.arange(width) >= self._lengths[:, None] - window * width
            inputs[ended], targets[ended], weight[ended] = 0, 0, 0
        return {
            "inputs": inputs,
            "targets": targets,
            "weight": weight,
            "reset": np.full(rows, window == 0),
        }

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yields the batches from step `start` on without end."""
        return map(self.batch, itertools.count(start))

    def epoch(self) -> Iterator[Batch]:
        """Yields the batches of one epoch, which predict each of the N tokens exactly once.

        In an evaluation the first predictions of each of the B rows lack the text before them, so
        a smaller B makes the perplexity more exact, and B = 1 makes it exact.
        """
        return map(self.batch, range(self.epoch_steps))


class Windows:
    """A split of the windows of one text: (number of tokens - 1) // T of them, without the rest.

    Models that carry no state from window to window learn better from shuffled windows, because
    neighbouring windows of a text are alike.

    Args:
        tokens: more than T ids.
        window: T.

    Raises:
        InputError: when T < 1 or there are too few tokens.

    >>> Windows(np.arange(8), window=3).gather(np.array([1]))["targets"].tolist()
    [[4, 5, 6]]
    """

    def __init__(self, tokens: np.ndarray, window: int):
        if window < 1:
            raise InputError(f"window {window} is too short; give 1 token or more")
        if len(tokens) <= window:
            raise InputError(
                f"a text of {len(tokens)} tokens has no window of {window} and a token after it; "
                f"give more text or a window of at most {len(tokens) - 1}"
            )
        views = np.lib.stride_tricks.sliding_window_view(np.asarray(tokens, np.int32), window)
        self._inputs, self._targets = views[:-1:window], views[1::window]

    def __len__(self) -> int:
        return len(self._targets)

    def gather(self, indices: np.ndarray) -> Batch:
        """Gathers the windows at `indices` [n].

        Returns:
            "inputs" and "targets", int32 [n, T], like those of a `Stream`, and "reset", bool [n],
            which is true everywhere, because each window starts anew.
        """
        return {
            "inputs": self._inputs[indices],
            "targets": self._targets[indices],
            "reset": np.full(len(indices), True),
        }

    def subset(self, indices: np.ndarray) -> "Windows":
        """Returns the windows at `indices` [n] alone; the text is shared."""
        subset = copy.copy(self)
        subset._inputs, subset._targets = self._inputs[indices], self._targets[indices]
        return subset
