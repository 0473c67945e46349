"""Verification of whether two pictures are of one identity.

Shapes: N examples, M pairs, T thresholds. A pair is accepted as one identity if its distance is at
most a threshold. Equal distances are accepted or refused together, so that an encoder that maps
everything to one point has an AUC of 1/2 and an equal error rate of 1/2.
"""

import math
from typing import NamedTuple

import numpy as np

from dlcore.metrics.intervals import Estimate, share_of


class Pairs(NamedTuple):
    """Pairs of examples, without repeats.

    Attributes:
        first: (M,), indices of examples.
        second: (M,), indices of examples.
        same: (M,), true for two examples of one identity.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def verification_pairs(labels: np.ndarray, *, most: int, seed: int = 0) -> Pairs:
    """Returns all pairs of one identity and all pairs of two, or a limited number of each.

    Args:
        labels: (N,), the identities. An identity with a single example is only in pairs of two
            identities.
        most: the largest number of pairs of each kind; if there are more, they are drawn at random.
        seed: the seed of the draw.

    >>> pairs = verification_pairs(np.array([0, 0, 1]), most=9)
    >>> [column.tolist() for column in pairs]
    [[0, 0, 1], [1, 2, 2], [True, False, False]]
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    _, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    within = [rows[np.array(np.triu_indices(len(rows), 1))] for rows in members]
    same = np.concatenate([np.zeros((2, 0), int), *within], axis=1)
    if same.shape[1] > most:
        same = same[:, np.sort(rng.permutation(same.shape[1])[:most])]
    every = len(labels) * (len(labels) - 1) // 2
    apart = every - int((counts * (counts - 1) // 2).sum())
    if apart <= most:
        different = np.array(np.triu_indices(len(labels), 1))
        different = different[:, group[different[0]] != group[different[1]]]
    else:
        different = _drawn(group, most, rng)
    first, second = np.concatenate([same, different], axis=1)
    return Pairs(first, second, np.arange(len(first)) < same.shape[1])


def _drawn(group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` different pairs of two groups, [2, count], out of a larger number."""
    found = np.zeros(0, np.int64)
    while len(found) < count:
        pairs = np.sort(rng.integers(0, len(group), (2, 2 * count)), axis=0)
        pairs = pairs[:, group[pairs[0]] != group[pairs[1]]]
        new = pairs[0] * len(group) + pairs[1]
        both = np.concatenate([found, new])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
    return np.array(np.divmod(np.sort(found[:count]), len(group)))


class ROC(NamedTuple):
    """The receiver operating characteristic of verification.

    Attributes:
        thresholds: (T,), each distance that occurs, rising; the first is -inf, at which nothing is
            accepted.
        false_accept: (T,), the share of pairs of two identities at or below each.
        true_accept: (T,), the share of pairs of one identity at or below each.
    """

    thresholds: np.ndarray
    false_accept: np.ndarray
    true_accept: np.ndarray

    @property
    def auc(self) -> float:
        """The area under the curve: the share of cases where the pair of one identity is closer."""
        height = (self.true_accept[1:] + self.true_accept[:-1]) / 2
        return float((np.diff(self.false_accept) * height).sum())

    @property
    def equal_error_rate(self) -> float:
        """The error rate at which false acceptances and false refusals are equally frequent.

        Between two thresholds both rates are interpolated.
        """
        if np.isnan(self.false_accept).any() or np.isnan(self.true_accept).any():
            return math.nan
        gap = self.false_accept - (1 - self.true_accept)  # from -1 to 1
        after = int(np.argmax(gap >= 0))
        low, high = gap[after - 1], gap[after]
        part = -low / (high - low)
        before = self.false_accept[after - 1]
        return float(before + part * (self.false_accept[after] - before))


def roc(distances: np.ndarray, same: np.ndarray) -> ROC:
    """Returns the curve of pairs.

    Args:
        distances: the distances (M,).
        same: (M,), true for pairs of one identity. If one kind of pairs is missing, its rates are
            NaN.

    >>> curve = roc(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, True, False]))
    >>> curve.auc, curve.equal_error_rate
    (0.75, 0.5)
    """
    order = np.argsort(distances, kind="stable")
    found, same = np.asarray(distances, np.float64)[order], np.asarray(same, bool)[order]
    last = np.append(found[1:] != found[:-1], True) if len(found) else np.zeros(0, bool)

    def rates(accepted: np.ndarray) -> np.ndarray:
        count = accepted.sum()
        shares = np.cumsum(accepted)[last] / (count if count else math.nan)
        return np.concatenate([[0.0], shares])

    return ROC(np.concatenate([[-math.inf], found[last]]), rates(~same), rates(same))


def threshold_at(distances: np.ndarray, same: np.ndarray, false_accept_rate: float) -> float:
    """Returns the largest threshold that falsely accepts at most a share of pairs.

    It lies just below the next distance of two identities. It should be found on other pairs than
    those that accuracy is measured on, such as pairs of a validation part.

    Args:
        distances: (M,).
        same: (M,), true for pairs of one identity.
        false_accept_rate: from 0 to 1; 0 accepts no pair of two identities.

    Returns:
        A distance; inf where all pairs of two identities may be accepted.

    >>> distances, same = np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, True, False])
    >>> 0.3 < threshold_at(distances, same, 0.5) < 0.4
    True
    """
    different = np.sort(np.asarray(distances, np.float64)[~np.asarray(same, bool)])
    # A share that is a whole number of pairs must not be lost by rounding.
    allowed = math.floor(false_accept_rate * len(different) + 1e-9)
    if allowed >= len(different):
        return math.inf
    return float(np.nextafter(different[allowed], -math.inf))


class Decisions(NamedTuple):
    """The accuracy of the decisions by a threshold.

    Attributes:
        accuracy: the share of right decisions. Its interval assumes that pairs are independent,
            although pairs that share a picture are not.
        false_accept: the share of pairs of two identities that are accepted.
        true_accept: the share of pairs of one identity that are accepted.
    """

    accuracy: Estimate
    false_accept: Estimate
    true_accept: Estimate


def decisions(distances: np.ndarray, same: np.ndarray, threshold: float) -> Decisions:
    """Returns the accuracy of a threshold's decisions on pairs; arguments as for `roc`."""
    same = np.asarray(same, bool)
    accepted = np.asarray(distances) <= threshold
    return Decisions(
        share_of(accepted == same), share_of(accepted[~same]), share_of(accepted[same])
    )
