"""One long text read in windows: in its order, or in any.

`Stream` reads rows of contiguous windows, which is what truncated back-propagation trains on;
`Windows` is a split of windows to be shuffled, for models that carry nothing from one to the next.


The N tokens are N predictions, each of a token from those before it; the first is predicted from
<eos>. They are cut into B contiguous rows whose lengths differ by one at most, and window t of an
epoch holds the predictions t T to (t + 1) T of every row, so that row r of a batch continues row r
of the batch before it. The last window is padded with weight 0: every token of the text is
predicted exactly once per epoch, in training as in evaluation. Each process reads its contiguous
slice of the rows.

Shapes: N tokens, B rows of the global batch, T tokens of a window, P processes.
"""

import copy
import itertools
from collections.abc import Iterator

import numpy as np

from dlcore.data.loader import process_rows
from dlcore.data.sources import Batch
from dlcore.errors import InputError

_EOS = 1  # of every vocabulary


class Stream:
    """Training batches of one text, the same in each epoch.

    A batch is a pure function of its step (mod `epoch_steps`), so a run continues anywhere once it
    has the carry of the model.

    Args:
        tokens: ids [N].
        batch_size: B, over all processes, at most N.
        window: T.
        process_index: which of the P processes this is.
        process_count: P, which must divide B.

    Attributes:
        epoch_steps: how many batches hold the whole text, ceil(ceil(N / B) / T).

    Raises:
        InputError: when B is not a positive multiple of P, N < B or T < 1.
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
        part = process_rows(batch_size, process_index, process_count)
        if window < 1:
            raise InputError(f"window {window} is too short; give 1 token or more")
        if len(tokens) < batch_size:
            raise InputError(
                f"a text of {len(tokens)} tokens cannot fill the {batch_size} rows of a batch; "
                f"give more text or a batch size of at most {len(tokens)}"
            )
        self.epoch_steps = -(-len(tokens) // (batch_size * window))
        bounds = np.arange(batch_size + 1) * len(tokens) // batch_size
        first, last = bounds[part.start], bounds[part.stop]
        self._starts = bounds[part] - first
        self._lengths = np.diff(bounds)[part]
        # What this process reads, from the token before its first prediction to the last, and
        # padding for the last window.
        before = tokens[first - 1 : first] if first else [_EOS]
        text = np.concatenate(
            [before, tokens[first:last], np.zeros(window, int)], dtype=np.int32, casting="same_kind"
        )
        self._windows = np.lib.stride_tricks.sliding_window_view(text, window)

    def batch(self, step: int) -> Batch:
        """This process's rows of global batch `step`.

        Returns:
            "inputs" and "targets", int32 [B / P, T]: tokens and the ones after them; "weight",
            float32 [B / P, T]: 0 where the row has ended, else 1; "reset", bool [B / P]: whether
            the row starts anew here, true at the start of an epoch alone.
        """
        window = step % self.epoch_steps
        rows, width = len(self._starts), self._windows.shape[1]
        at = self._starts + window * width
        inputs, targets = self._windows[at], self._windows[at + 1]
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
        """The batches from step `start` on, without end."""
        return map(self.batch, itertools.count(start))

    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch, which predict each of the N tokens exactly once.

        For an evaluation: the first predictions of each of the B rows lack the text before them, so
        a smaller B makes the perplexity that much more exact, and B = 1 exact.
        """
        return map(self.batch, range(self.epoch_steps))


class Windows:
    """A split of the windows of one text: N = (number of tokens - 1) // T, the rest is left out.

    Models that hand nothing on from window to window learn better from shuffled ones, since those
    that follow one another in a text are alike.

    Args:
        tokens: ids, more than T of them.
        window: T.

    Raises:
        InputError: when T < 1 or there are too few tokens.
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
        """The windows at `indices` [n].

        Returns:
            "inputs" and "targets", int32 [n, T], as those of a `Stream`, and "reset", bool [n],
            true everywhere: each window starts anew.
        """
        return {
            "inputs": self._inputs[indices],
            "targets": self._targets[indices],
            "reset": np.full(len(indices), True),
        }

    def subset(self, indices: np.ndarray) -> "Windows":
        """The windows at `indices` [n] alone; the text is shared."""
        part = copy.copy(self)
        part._inputs, part._targets = self._inputs[indices], self._targets[indices]
        return part
