"""The texts of the translation job as token ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlcore.data.text import Pairs, Vocabulary
from dlcore.launch.text import encode


def encode_pairs(
    pairs: Sequence[tuple[str, str]], source: Vocabulary, target: Vocabulary
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the ids of the sources and of the targets."""
    return [encode(source, line) for line, _ in pairs], [encode(target, line) for _, line in pairs]


def in_one_shape(sources: Sequence[Any], targets: Sequence[Any], *, limit: int) -> Pairs:
    """Returns a split to decode, all padded to one shape; sides longer than `limit` are cut.

    To compile all that decodes for another shape takes longer than the padding.
    """
    widest = [min(limit, 1 + max(map(len, side))) for side in (sources, targets)]
    return Pairs(sources, targets, limit=limit, longer="cut", buckets=[(widest[0], widest[1])])


def to_translate(sources: Sequence[np.ndarray], *, limit: int) -> Pairs:
    """Returns sources without targets, padded to one of few widths; longer than `limit` are cut."""
    width = min(limit, 1 << max(map(len, sources)).bit_length())
    nothing: list[Any] = [()] * len(sources)
    return Pairs(sources, nothing, limit=limit, longer="cut", buckets=[(width, 1)])


def by_length(data: Pairs) -> Pairs:
    """Returns a split in the order of its lengths, which needs the least padding."""
    return data.subset(np.argsort(data.lengths, kind="stable"))
