"""Identification of probes in a gallery, which may lack them, and retrieval among all examples.

Ties count against the encoder, so that an encoder that maps everything to one point recognises
nothing. Shapes: N examples, D dimensions of an embedding, Q probes, G pictures of a gallery, K
identities.
"""

import math
from typing import NamedTuple

import numpy as np

from dlcore.errors import InputError
from dlcore.metrics.embeddings import distance_matrix, rows_of_distances
from dlcore.metrics.intervals import Estimate, mean_of, share_of
from dlcore.metrics.verification import threshold_at


class Identification(NamedTuple):
    """The results of probes against a gallery.

    Attributes:
        ranks: the rank of the true identity in the gallery, from 1 on, for each known probe.
        detected: the detection and identification rate: the share of known probes whose true
            identity is the nearest, within the threshold; NaN without unknown probes.
        threshold: the distance at which the share of unknown probes that are mistaken for an
            identity is at most the false-alarm rate; NaN without unknown probes.
    """

    ranks: np.ndarray
    detected: Estimate
    threshold: float

    def top(self, k: int) -> Estimate:
        """Returns the share of known probes whose true identity is among the k nearest."""
        return share_of(self.ranks <= k)


def identification(
    distances: np.ndarray,
    gallery: np.ndarray,
    probes: np.ndarray,
    *,
    false_alarm_rate: float = 0.01,
) -> Identification:
    """Identifies probes in a gallery; the rates are named as in Grother & Ngan 2014.

    The distance to an identity is the distance to the nearest of its pictures.

    Args:
        distances: the distances (Q, G).
        gallery: (G,), the identities of the gallery's pictures.
        probes: (Q,), the identities of the probes; those that are not in the gallery are unknown.
        false_alarm_rate: the share of unknown probes that may be mistaken for an identity.

    >>> distances = np.array([[0.1, 0.9], [0.8, 0.3], [0.7, 0.6]])
    >>> found = identification(distances, np.array([4, 5]), np.array([4, 5, 6]))
    >>> found.ranks.tolist(), found.detected.value
    ([1, 1], 1.0)
    """
    persons, which = np.unique(gallery, return_inverse=True)
    nearest = np.full((len(probes), len(persons)), np.inf)
    np.minimum.at(nearest.T, which, np.asarray(distances, np.float64).T)
    known = np.isin(probes, persons)
    rows = nearest[known]
    own = np.take_along_axis(rows, np.searchsorted(persons, probes[known])[:, None], 1)
    ranks = (rows <= own).sum(1)
    strangers = nearest[~known].min(1) if len(persons) else np.zeros(0)
    if not len(strangers):
        return Identification(ranks, Estimate(math.nan, 0.0, 1.0), math.nan)
    threshold = threshold_at(strangers, np.zeros(len(strangers), bool), false_alarm_rate)
    return Identification(ranks, share_of((ranks == 1) & (own[:, 0] <= threshold)), threshold)


class OpenSet(NamedTuple):
    """A gallery, and probes, some of which have an identity that is not in it.

    Attributes:
        gallery: (G,), numbers of examples.
        probes: (Q,), numbers of examples.
    """

    gallery: np.ndarray
    probes: np.ndarray


def open_set(labels: np.ndarray, *, seed: int = 0) -> OpenSet:
    """Enrols one example of each of a random half of the identities; all others are probes.

    Args:
        labels: (N,), the identities. An identity with a single example is never enrolled, because
            no probe of it would be left.
        seed: the seed of the draw.

    >>> found = open_set(np.array([0, 0, 1, 1]))
    >>> len(found.gallery), len(found.probes)
    (1, 3)
    """
    rng = np.random.default_rng(seed)
    persons, counts = np.unique(labels, return_counts=True)
    able = rng.permutation(persons[counts > 1])
    enrolled = able[: -(-len(able) // 2)]
    order = rng.permutation(len(labels))
    gallery = np.array([order[np.argmax(labels[order] == person)] for person in enrolled], int)
    return OpenSet(gallery, np.setdiff1d(np.arange(len(labels)), gallery))


class Retrieval(NamedTuple):
    """The scores of how well each example finds its own identity among all others.

    Attributes:
        precision_at_1: how often the nearest example is of the same identity.
        map_at_r: mean average precision at R.
        left_out: the number of examples that are alone in their identity and so cannot be queries.
    """

    precision_at_1: float
    map_at_r: float
    left_out: int


def retrieval(embeddings: np.ndarray, labels: np.ndarray, *, distance: str) -> Retrieval:
    """Retrieves for each example those of its identity among all others.

    MAP@R (Musgrave et al. 2020, section 3.2) of a query is the mean over the R examples of its
    identity of the precision at their ranks, where ranks beyond R count 0.

    Args:
        embeddings: (N, D).
        labels: (N,), the identities.
        distance: a distance of `metrics.embeddings`.

    Returns:
        The scores; the first two are NaN where no identity has two examples.

    >>> found = retrieval(np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([5, 5, 7, 5]),
    ...                   distance="l2")
    >>> round(found.precision_at_1, 3), round(found.map_at_r, 3), found.left_out
    (0.333, 0.333, 1)
    """
    labels = np.asarray(labels)
    first, average = [], []
    for row, distances in rows_of_distances(distance, embeddings):
        same = labels == labels[row]
        others = distances[~same]
        same[row] = False
        own = np.sort(distances[same])
        if not len(own):
            continue
        place = np.arange(1, len(own) + 1)
        ranks = place + (others[None] <= own[:, None]).sum(1)
        first.append(ranks[0] == 1)
        average.append((place / ranks)[ranks <= len(own)].sum() / len(own))
    if not first:
        return Retrieval(math.nan, math.nan, len(labels))
    return Retrieval(float(np.mean(first)), float(np.mean(average)), len(labels) - len(first))


def few_shot_accuracy(
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    distance: str,
    ways: int,
    shots: int = 1,
    episodes: int = 400,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Estimate:
    """Returns the N-way k-shot accuracy over random episodes, with its interval over them.

    An episode draws N identities, k examples of each to learn from, and one more example of each to
    recognise, which is assigned to the identity with the nearest mean embedding (Snell et al.
    2017). With k = 1 this is the nearest example (Lake et al. 2011; Koch et al. 2015).

    Args:
        embeddings: (n, D).
        labels: (n,), the identities. Those with fewer than k + 1 examples are never drawn.
        distance: a distance of `metrics.embeddings`.
        ways: N, at least 2.
        shots: k.
        episodes: the number of episodes, at least 2.
        seed: the seed of the draw; the same seed draws the same episodes for any embeddings.
        groups: (n,), such as alphabets: the identities of an episode are then of one group, and all
            groups with enough identities are equally likely.

    Raises:
        InputError: when no group has enough identities.

    >>> x, labels = np.arange(6.0)[:, None], np.array([0, 0, 1, 1, 2, 2])
    >>> few_shot_accuracy(10 * np.floor(x / 2) + x, labels, distance="l2", ways=3).value
    1.0
    """
    labels = np.asarray(labels)
    kinds = (
        np.zeros(len(labels), int) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    persons, counts = np.unique(labels, return_counts=True)
    rows = {person: np.flatnonzero(labels == person) for person in persons[counts > shots]}
    by_kind: dict[int, list[int]] = {}
    for person, own in rows.items():
        by_kind.setdefault(int(kinds[own[0]]), []).append(person)
    able = [members for _, members in sorted(by_kind.items()) if len(members) >= ways]
    if not able:
        most = max(map(len, by_kind.values()), default=0)
        raise InputError(
            f"{ways}-way {shots}-shot accuracy needs {ways} identities with {shots + 1} pictures"
            f"{'' if groups is None else ' in one group'}, there are {most}; choose fewer ways"
        )
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(episodes):
        members = able[rng.integers(len(able))]
        drawn = rng.permutation(len(members))[:ways]
        chosen = np.array([rng.permutation(rows[members[index]])[: shots + 1] for index in drawn])
        means = np.asarray(embeddings, np.float64)[chosen[:, :shots]].mean(1)
        found = distance_matrix(distance, embeddings[chosen[:, shots]], means)
        shares.append(np.mean((found <= np.diagonal(found)[:, None]).sum(1) == 1))
    return mean_of(np.array(shares))
