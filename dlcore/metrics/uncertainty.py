"""The uncertainty of a model that predicts several times.

Shapes: S samples, N examples, K classes."""

from typing import NamedTuple

import numpy as np


class Uncertain(NamedTuple):
    """Probabilities that are means over samples, and their uncertainty in nats.

    Attributes:
        probabilities: the probabilities of the classes, (N, K).
        entropy: the entropy of the mean probabilities, (N,): the total uncertainty.
        mutual_information: the mutual information of class and model, (N,): the part of the entropy
            that comes from the samples' disagreement, which more data could remove; the rest is the
            mean entropy of the samples.
    """

    probabilities: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray


def uncertainty(samples: np.ndarray) -> Uncertain:
    """Returns the mean of samples of a model's probabilities, and their uncertainty.

    The sources are Gal & Ghahramani (2016) and, for the two parts of the entropy, Houlsby et al.
    (2011, eq. 2).

    Args:
        samples: (S, N, ..., K), each sample from one model; all axes except the first are kept.

    >>> found = uncertainty(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    >>> found.probabilities.tolist(), found.entropy.round(3), found.mutual_information.round(3)
    ([[0.5, 0.5]], array([0.693]), array([0.693]))
    """
    samples = np.asarray(samples, np.float64)
    mean = samples.mean(0)
    entropy = _entropy(mean)
    # Rounding can make the difference of equal numbers negative.
    information = np.maximum(entropy - _entropy(samples).mean(0), 0)
    return Uncertain(mean, entropy, information)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    return np.asarray(-(probabilities * logs).sum(-1))
