"""The training batches of word2vec: stretches of a corpus with fewer of its frequent words.

Shapes: N tokens of the corpus, V words, L words of a batch, W words of its margin on either side, S
steps of an epoch.
"""

from collections.abc import Iterator

import numpy as np
import tqdm

from dlcore.data.sources import Batch
from dlcore.errors import InputError, pick

_BLOCK = 1 << 22  # tokens read at once


def _paper(frequency: np.ndarray, threshold: float) -> np.ndarray:
    return np.sqrt(threshold / frequency)


def _program(frequency: np.ndarray, threshold: float) -> np.ndarray:
    return np.sqrt(threshold / frequency) + threshold / frequency


SUBSAMPLINGS = {"paper": _paper, "program": _program}


def keep_probabilities(counts: np.ndarray, *, threshold: float, rule: str) -> np.ndarray:
    """Returns the probability that an occurrence of each word is kept, float32 [V].

    Args:
        counts: the counts of the V words, [V].
        threshold: t, the relative frequency f below which all, or almost all, occurrences are kept;
            0 keeps all.
        rule: "paper" is min(1, sqrt(t / f)) (Mikolov et al. 2013b, eq. 5), "program" is the rule of
            the C code, min(1, sqrt(t / f) + t / f), which keeps more words of middle frequency.

    Raises:
        InputError: for another rule or a negative threshold.

    >>> keep_probabilities(np.array([96, 4]), threshold=0.06, rule="paper").tolist()
    [0.25, 1.0]
    """
    probability = pick("subsampling", rule, SUBSAMPLINGS)
    if not threshold >= 0:
        raise InputError(f"a subsampling threshold of {threshold} is not possible; give 0 or more")
    if threshold == 0:
        return np.ones(len(counts), np.float32)
    return np.minimum(1, probability(counts / counts.sum(), threshold)).astype(np.float32)


class WordStream:
    """A loader of batches of exactly L words; a batch is a pure function of (seed, step).

    The corpus is cut once, by the expected number of words that are kept, into S stretches that
    fill a batch each. Every epoch takes them in another order, keeps other occurrences of the
    frequent words and draws other windows. A window ends with its sentence and its stretch. The
    number of words kept in a stretch has a standard deviation of at most sqrt(L); a stretch is so
    short that it loses words only when a draw is four standard deviations above the mean.

    Args:
        tokens: int32 [N], ids of words, and -1 after each sentence; may be a memory map.
        keep: the probabilities of `keep_probabilities`, [V].
        size: L.
        window: W, the largest distance of two words of a pair.
        fixed: whether all windows have the width W; else each width is drawn from 1 to W, as in the
            paper's program.
        held_out: the share of the stretches, at even distances and at least one, that training
            never sees; 0 holds nothing out.
        seed: the seed of order, subsampling and windows.

    Raises:
        InputError: when no word is left, L is too small or W less than 1.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        keep: np.ndarray,
        *,
        size: int,
        window: int,
        fixed: bool = False,
        held_out: float = 0.0,
        seed: int,
    ):
        if not 0 <= held_out < 1:
            raise InputError(f"a share of {held_out} cannot be held out; give one in [0, 1)")
        room = size - 4 * size**0.5
        if room < 1 or window < 1:
            raise InputError(
                f"batches of {size} words with windows of {window}: give 18 words or more, and a "
                "window of 1 or more"
            )
        self._tokens, self._keep = tokens, np.append(keep, 0).astype(np.float32)
        self._size, self._window, self._fixed, self._seed = size, window, fixed, seed
        self._bounds, self._ended, expected = self._cut(room)
        if expected == 0:
            raise InputError("the corpus has no words to train on; give more text")
        stretches = np.arange(len(self._bounds) - 1)
        is_held = np.zeros(len(stretches), bool)
        if held_out > 0:
            every = min(round(1 / held_out), len(stretches))
            # The last stretch, which may be shorter, is seldom held out this way.
            is_held[every // 2 :: every] = True
        self._stretches, self.held_out = stretches[~is_held], stretches[is_held]
        if not len(self._stretches):
            raise InputError(
                f"the corpus fills {len(stretches)} batch of {size} words, too few to hold out "
                f"{held_out} of it; give more text, smaller batches, or hold nothing out"
            )

    def _cut(self, room: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Cuts the corpus into stretches.

        Returns:
            The bounds of the stretches [S + 1], the sentences that have ended before each of them,
            and the expected number of words to keep.
        """
        bounds, ended, total = [0], [0], 0.0
        starts = range(0, len(self._tokens), _BLOCK)
        for start in tqdm.tqdm(starts, desc="cutting the corpus", delay=2, leave=False):
            block = np.asarray(self._tokens[start : start + _BLOCK])
            sums = total + np.cumsum(self._keep[block], dtype=float)
            marks = room * np.arange(len(bounds), int(sums[-1] / room) + 1)
            places = 1 + np.searchsorted(sums, marks)
            ends = np.append(0, np.cumsum(block < 0))
            ended[-1:] = (ended[-1] + ends[np.append(places, len(block))]).tolist()
            bounds += (start + places).tolist()
            total = float(sums[-1])
        if bounds[-1] < len(self._tokens):
            bounds.append(len(self._tokens))
        return np.array(bounds), np.array([0, *ended]), total

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of an epoch, S."""
        return len(self._stretches)

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step.

        It holds "words", int32 [L + 2 W]; "sentences", int32 [L + 2 W], the number of each word's
        sentence in the corpus, from 0 on, and -1 where there is no word; and "reach", int32
        [L + 2 W], the distance that the window of each word covers.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._seed, epoch]).permutation(self._stretches)
        return self.stretch(int(order[number]), epoch=epoch)

    def stretch(self, stretch: int, *, epoch: int) -> Batch:
        """Returns the batch of a stretch, such as one of `held_out`, as an epoch sees it."""
        rng = np.random.default_rng([self._seed, epoch, stretch])
        tokens = np.asarray(self._tokens[self._bounds[stretch] : self._bounds[stretch + 1]])
        kept = rng.random(len(tokens), dtype=np.float32) < self._keep[tokens]
        words = tokens[kept][: self._size]
        sentences = self._ended[stretch] + np.cumsum(tokens < 0)[kept][: self._size]
        if self._fixed:
            reach = np.full(len(words), self._window, np.int32)
        else:
            reach = rng.integers(1, self._window + 1, len(words), dtype=np.int32)
        around = (self._window, self._window + self._size - len(words))
        return {
            "words": np.pad(words, around),
            "sentences": np.pad(sentences.astype(np.int32), around, constant_values=-1),
            "reach": np.pad(reach, around),
        }

    def batches(self, start: int) -> Iterator[Batch]:
        """Yields the batches from a step on without end."""
        while True:
            yield self.batch(start)
            start += 1


def held_out_pairs(
    batch: Batch,
    *,
    window: int,
    size: int,
    negatives: int,
    noise: np.ndarray,
    together: bool,
    seed: int,
) -> dict[str, np.ndarray]:
    """Draws a fixed sample of the pairs of a batch, to measure a model with.

    Args:
        batch: a batch of `WordStream.batch`.
        window: W.
        size: the number of pairs, n; fewer where the batch has fewer.
        negatives: k, the number of noise words for each pair.
        noise: the probability of each word to be drawn as noise, [V].
        together: whether all words of a window form one query, or each word is a query.
        seed: the seed of the choice and the noise.

    Returns:
        "queries" int32 [n, J], -1 at padding, J = 2 W with `together`, else 1; "targets" int32 [n];
        "noise" int32 [n, k].

    Raises:
        InputError: when the batch has no pair.
    """
    words, sentences, reach = (np.asarray(batch[name]) for name in ("words", "sentences", "reach"))
    centres = np.flatnonzero(sentences >= 0)
    offsets = np.delete(np.arange(-window, window + 1), window)
    around = centres[:, None] + offsets
    near = sentences[around] == sentences[centres, None]
    near &= np.abs(offsets) <= reach[centres, None]
    if together:
        has_context = near.any(1)
        queries = np.where(near, words[around], -1)[has_context]
        targets = words[centres[has_context]]
    else:
        centre, neighbour = np.nonzero(near)
        queries, targets = words[centres[centre]][:, None], words[around[centre, neighbour]]
    if not len(targets):
        raise InputError("the held-out text has no two words in one window; hold out more of it")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(targets), min(size, len(targets)), replace=False))
    sums = np.cumsum(noise / noise.sum())
    drawn = np.searchsorted(sums, rng.random((len(chosen), negatives)) * sums[-1], side="right")
    return {
        "queries": queries[chosen].astype(np.int32),
        "targets": targets[chosen].astype(np.int32),
        "noise": drawn.astype(np.int32),
    }
