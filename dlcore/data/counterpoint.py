"""Four-voice pieces that are drawn by rules of counterpoint, with a known entropy rate.

Nobody composed them. A chord is a triad of C major in root position or first inversion, spread over
bass, tenor, alto and soprano in their ranges. The sequence of harmonies follows `_FOLLOW`, and
among the ways to lead the voices that no rule forbids those with small steps are likelier. So the
chords are a Markov chain of the first order, which starts in its stationary distribution, and its
entropy rate is the least loss that any model can have.

Shapes: S chords, 4 voices from the bass up.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

VOICES = ("bass", "tenor", "alto", "soprano")
# The lowest and the highest note of each voice.
RANGES = ((40, 60), (48, 67), (55, 74), (60, 79))
# The most that each voice moves at once, and the most between neighbours, in semitones.
_LEAPS = np.array([7, 5, 5, 5])
_SPACING = (19, 12, 12)
# The triads of C major by their roots; that of B is left out.
ROOTS = {"I": 0, "ii": 2, "iii": 4, "IV": 5, "V": 7, "vi": 9}
_MINOR = {"ii", "iii", "vi"}
# How likely a harmony follows another.
_FOLLOW = {
    "I": {"I": 0.15, "ii": 0.15, "iii": 0.05, "IV": 0.25, "V": 0.25, "vi": 0.15},
    "ii": {"ii": 0.15, "V": 0.7, "vi": 0.15},
    "iii": {"iii": 0.1, "IV": 0.4, "vi": 0.5},
    "IV": {"IV": 0.15, "I": 0.3, "ii": 0.2, "V": 0.35},
    "V": {"V": 0.15, "I": 0.6, "vi": 0.25},
    "vi": {"vi": 0.15, "ii": 0.35, "IV": 0.35, "V": 0.15},
}
_LEADING = 11  # the pitch class of the leading tone, which is never doubled
_PERFECT = (0, 7)  # octave and fifth, in semitones
_STILLNESS = 6.0  # semitones of all voices together by which a way becomes e times less likely
SIZES = {"train": 400, "validation": 50, "test": 100}
_SHORTEST, _LONGEST = 24, 64


class Chain(NamedTuple):
    """A Markov chain of chords.

    Attributes:
        chords: the pitches of each chord, int [S, 4].
        harmonies: the number of each chord's harmony in `ROOTS`, int [S].
        transitions: p(next | chord), [S, S].
        stationary: the share of each chord in the long run, [S].
    """

    chords: np.ndarray
    harmonies: np.ndarray
    transitions: np.ndarray
    stationary: np.ndarray

    @property
    def entropy_rate(self) -> float:
        """The entropy of a chord given the one before, in nats."""
        p = self.transitions
        logs = np.log(p, out=np.zeros_like(p), where=p > 0)
        return float(-self.stationary @ (p * logs).sum(1))


@functools.cache
def chain() -> Chain:
    """Returns the chain of all chords that have a successor."""
    chords, harmonies = _chords()
    p = _transitions(chords, harmonies)
    shares = np.full(len(p), 1 / len(p))
    for _ in range(10_000):
        after = shares @ p
        if np.abs(after - shares).sum() < 1e-14:
            break
        shares = after
    return Chain(chords, harmonies, p, shares / shares.sum())


def draw(count: int, seed: int) -> list[np.ndarray]:
    """Returns pieces of 24 to 64 chords, int [T, 4] each.

    Args:
        count: the number of pieces.
        seed: the seed of the draw.
    """
    found = chain()
    start, follow = np.cumsum(found.stationary), np.cumsum(found.transitions, axis=1)
    rng = np.random.default_rng(seed)

    def one() -> np.ndarray:
        noise = rng.random(rng.integers(_SHORTEST, _LONGEST + 1))
        states = [_drawn(start, noise[0])]
        for value in noise[1:]:
            states.append(_drawn(follow[states[-1]], value))
        return found.chords[states]

    return [one() for _ in range(count)]


def _drawn(cumulative: np.ndarray, value: float) -> int:
    return int(np.searchsorted(cumulative, value * cumulative[-1], side="right"))


def _chords() -> tuple[np.ndarray, np.ndarray]:
    """Returns all chords, [S, 4], and the number of the harmony of each, [S]."""
    chords, harmonies = [], []
    for number, (name, root) in enumerate(ROOTS.items()):
        third, fifth = (root + (3 if name in _MINOR else 4)) % 12, (root + 7) % 12
        classes = {root % 12, third, fifth}
        choices = [
            [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]
            for low, high in RANGES
        ]
        for chord in itertools.product(*choices):
            gaps = [high - low for low, high in zip(chord[:-1], chord[1:], strict=True)]
            spelt = [pitch % 12 for pitch in chord]
            if (
                all(0 < gap <= most for gap, most in zip(gaps, _SPACING, strict=True))
                and {*spelt} == classes
                and spelt[0] != fifth
                and spelt.count(_LEADING) < 2
            ):
                chords.append(chord)
                harmonies.append(number)
    return np.array(chords), np.array(harmonies)


def _transitions(chords: np.ndarray, harmonies: np.ndarray) -> np.ndarray:
    """Returns p(next | chord), [S, S]."""
    moves = chords[None] - chords[:, None]  # [S, S, 4]
    allowed = (np.abs(moves) <= _LEAPS).all(-1)
    for low, high in itertools.combinations(range(4), 2):
        interval = (chords[:, high] - chords[:, low]) % 12
        same_way = moves[..., low] * moves[..., high] > 0
        for perfect in _PERFECT:
            is_perfect = interval == perfect
            allowed &= ~(same_way & is_perfect[:, None] & is_perfect[None])
    # No voice passes where its neighbour was.
    for low in range(3):
        allowed &= chords[None, :, low] <= chords[:, None, low + 1]
        allowed &= chords[None, :, low + 1] >= chords[:, None, low]
    weight = np.where(allowed, np.exp(-np.abs(moves).sum(-1) / _STILLNESS), 0.0)
    names = [*ROOTS]
    p = np.zeros_like(weight)
    for here, name in enumerate(names):
        rows = np.flatnonzero(harmonies == here)
        for there, share in _FOLLOW[name].items():
            columns = np.flatnonzero(harmonies == names.index(there))
            block = weight[np.ix_(rows, columns)]
            total = block.sum(1, keepdims=True)
            p[np.ix_(rows, columns)] = share * np.divide(
                block, total, out=np.zeros_like(block), where=total > 0
            )
    # Where no way leads to one of the harmonies, the others share what it had.
    return p / p.sum(1, keepdims=True)
