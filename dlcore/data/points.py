"""Points of mixtures with known modes, so that a generator's samples can be counted by mode.

Shapes: N points, K modes.
"""

import dataclasses
import math

import numpy as np

from dlcore.data.sources import Arrays
from dlcore.errors import pick


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of equally likely normal distributions with the same deviation.

    Attributes:
        centres: the means of the distributions, float64 [K, 2].
        deviation: the standard deviation of each coordinate.
    """

    centres: np.ndarray
    deviation: float

    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """Returns {"point": float32 [N, 2], "label": int32 [N]}, where the label is the mode."""
        labels = rng.integers(0, len(self.centres), count, np.int32)
        points = self.centres[labels] + self.deviation * rng.normal(size=(count, 2))
        return Arrays({"point": points.astype(np.float32), "label": labels})


def _ring() -> Mixture:
    angles = np.arange(8) * (2 * math.pi / 8)
    return Mixture(2 * np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.02)


# "ring" are eight modes on a circle of radius 2 with the deviation 0.02 (Metz et al. 2017,
# section 3.1).
MIXTURES = {"ring": _ring}
_COUNTS = {"train": 50_000, "test": 2_500}


def load_points(name: str) -> tuple[Mixture, dict[str, Arrays]]:
    """Returns a mixture and its splits "train", of 50,000 points, and "test", of 2,500.

    They are always the same points.

    Raises:
        InputError: for a name that is not in `MIXTURES`.
    """
    mixture = pick("mixture", name, MIXTURES)()
    # Each split has a seed of its own.
    return mixture, {
        split: mixture.draw(count, np.random.default_rng(number))
        for number, (split, count) in enumerate(_COUNTS.items())
    }
