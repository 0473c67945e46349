"""How an embedding is judged: on a whole split of identities that it was not trained on."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from dlcore.data import OneShotRun
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError
from dlcore.metrics import (
    OpenSet,
    Pairs,
    distance_matrix,
    few_shot_accuracy,
    identification,
    open_set,
    pair_distances,
    retrieval,
    roc,
    verification_pairs,
)

MOST_PAIRS = 100_000  # of one identity, and of two
FALSE_ALARMS = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """Says how the pictures of a split are judged, the same for every embedding of them.

    Attributes:
        labels: (N,), their identities.
        groups: (N,), such as alphabets: N-way tests are within one; None for tests among all.
        ways: identities of an N-way test.
        shots: pictures to know an identity by.
    """

    labels: np.ndarray
    groups: np.ndarray | None
    ways: int
    shots: int

    @classmethod
    def of(
        cls, labels: np.ndarray, groups: np.ndarray | None, *, ways: int, shots: int
    ) -> "Setting":
        """Returns the setting with as many ways as there are identities with enough pictures.

        Raises:
            InputError: where there are not two of them, in one group if there are groups.
        """
        persons, first, counts = np.unique(labels, return_index=True, return_counts=True)
        enough = counts > shots
        if groups is None:
            most = int(enough.sum())
        else:
            most = max(np.unique(groups[first[enough]], return_counts=True)[1], default=0)
        if most < 2:
            within = "" if groups is None else " in one group"
            raise InputError(
                f"an evaluation needs two identities with {shots + 1} pictures{within}, and there "
                f"are {most}; give fewer --shots, or data with more pictures of an identity"
            )
        return cls(labels, groups, min(ways, int(most)), shots)

    @functools.cached_property
    def pairs(self) -> Pairs:
        """The pairs of verification."""
        return verification_pairs(self.labels, most=MOST_PAIRS)

    @functools.cached_property
    def open_set(self) -> OpenSet:
        """The gallery and the probes of identification."""
        return open_set(self.labels)


def scores(embeddings: np.ndarray, distance: str, setting: Setting) -> dict[str, float]:
    """Returns the metrics of embeddings (N, D).

    - "auc", "eer": of verification.
    - "few_shot": the accuracy of N-way k-shot tests.
    - "precision_at_1", "map_at_r": of each picture among all others.
    - "rank_1", "detected": of a gallery with one picture of each of half of the identities: the
      share of their other pictures that are nearest to their own identity, and of those that are it
      within a threshold at which 1 % of the strangers' pictures are taken for somebody.

    Args:
        embeddings: of all pictures of the split.
        distance: of `metrics.embeddings`.
        setting: of the split.
    """
    labels, pairs = setting.labels, setting.pairs
    distances = pair_distances(distance, embeddings, pairs.first, pairs.second)
    curve = roc(distances, pairs.same)
    few_shot = few_shot_accuracy(
        embeddings,
        labels,
        distance=distance,
        ways=setting.ways,
        shots=setting.shots,
        groups=setting.groups,
    )
    found = retrieval(embeddings, labels, distance=distance)
    gallery, probes = setting.open_set
    recognised = identification(
        distance_matrix(distance, embeddings[probes], embeddings[gallery]),
        labels[gallery],
        labels[probes],
        false_alarm_rate=FALSE_ALARMS,
    )
    return {
        "auc": curve.auc,
        "eer": curve.equal_error_rate,
        "few_shot": few_shot.value,
        "precision_at_1": found.precision_at_1,
        "map_at_r": found.map_at_r,
        "rank_1": recognised.top(1).value,
        "detected": recognised.detected.value,
    }


def one_shot_errors(
    runs: Sequence[OneShotRun],
    embed: Callable[[list[StoredImage]], np.ndarray],
    distance: str,
) -> np.ndarray:
    """Returns the share of pictures of each run (R,) that are not recognised.

    A picture is taken for the known one that is nearest to it. Ties count against the encoder, so
    that one that maps everything to one point recognises none.

    Args:
        runs: R of them.
        embed: maps pictures to their embeddings (N, D).
        distance: of `metrics.embeddings`.
    """
    # Together, for an encoder is faster with many.
    every = embed([picture for run in runs for picture in (*run.known, *run.queries)])
    errors, start = [], 0
    for run in runs:
        middle = start + len(run.known)
        end = middle + len(run.queries)
        found = distance_matrix(distance, every[middle:end], every[start:middle])
        own = found[np.arange(len(found)), run.answers]
        errors.append(np.mean((found <= own[:, None]).sum(1) > 1))
        start = end
    return np.array(errors)
