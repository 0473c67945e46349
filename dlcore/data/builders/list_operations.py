"""The data set of nested operations on lists of digits, whose values are to be computed."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from dlcore.data.tfds import tfds

# Like those of Nangia & Bowman (2018).
OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "MAX": max,
    "MIN": min,
    "MED": lambda values: int(np.median(values)),
    "SUM_MOD": lambda values: sum(values) % 10,
}
# The number of expressions, and the least and the greatest depth.
_SPLITS = {"train": (20_000, 1, 4), "test": (1_000, 1, 4), "deep": (1_000, 6, 8)}
_MOST = 4  # arguments of an operation
_LONGEST = 120  # words of an expression
_NESTED = 0.35  # share of the arguments that are operations, where the depth leaves it open

# The key and the features of an example.
Example: TypeAlias = tuple[int, dict[str, str]]


class ListOperations(tfds.core.GeneratorBasedBuilder):
    """Expressions such as (MAX 3 (MIN 5 6) 2), as trees with the values of their inner nodes.

    An operation has two to four arguments. Expressions in training and test nest one to four
    operations, those of the split `deep` six to eight. No expression occurs twice.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"tree": tfds.features.Text()}),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        rng, seen = np.random.default_rng(0), set[str]()
        splits = {}
        for name, (count, least, most) in _SPLITS.items():
            trees: list[str] = []
            while len(trees) < count:
                text, _ = expression(rng, int(rng.integers(least, most + 1)))
                if text not in seen and text.count(" ") < _LONGEST:
                    seen.add(text)
                    trees.append(text)
            splits[name] = self._generate_examples(trees)
        return splits

    def _generate_examples(self, trees: list[str]) -> Iterator[Example]:
        for key, text in enumerate(trees):
            yield key, {"tree": text}


def expression(rng: np.random.Generator, depth: int) -> tuple[str, int]:
    """Draws an expression with a given depth of nesting, and computes its value.

    >>> expression(np.random.default_rng(1), 0)
    ('4', 4)
    """
    if depth == 0:
        value = int(rng.integers(10))
        return str(value), value
    name = [*OPERATIONS][rng.integers(len(OPERATIONS))]
    count = int(rng.integers(2, _MOST + 1))
    depths = np.where(rng.random(count) < _NESTED, rng.integers(0, depth, count), 0)
    depths[rng.integers(count)] = depth - 1
    arguments = [expression(rng, int(one)) for one in depths]
    value = OPERATIONS[name]([value for _, value in arguments])
    return f"({value} {name} {' '.join(text for text, _ in arguments)})", value
