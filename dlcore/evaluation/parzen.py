"""The Parzen window estimate of a log-likelihood, only for comparison with old papers.

It says little about a model of many pixels: samples that copy the training data score best (Theis
et al. 2016, section 3.2).

Shapes: S samples, N examples, D pixels.
"""

from typing import NamedTuple

import numpy as np

_ROWS = 64
# Between which bandwidths are tried, in units of pixels of 0 to 1.
_BANDWIDTHS = np.geomspace(0.05, 1.0, 10)


class Parzen(NamedTuple):
    """A Parzen window estimate.

    Attributes:
        mean: the mean log-likelihood of the test data, in nats.
        standard_error: the standard error of the mean.
        bandwidth: the bandwidth that was chosen on the validation data.
    """

    mean: float
    standard_error: float
    bandwidth: float


def parzen_log_densities(samples: np.ndarray, x: np.ndarray, bandwidth: float) -> np.ndarray:
    """Returns log mean_s N(x; sample s, bandwidth^2 I), [N] (Breuleux et al. 2011).

    Args:
        samples: [S, D], samples of the model.
        x: the examples [N, D].
        bandwidth: the standard deviation of each kernel.
    """
    samples, x = np.asarray(samples, np.float64), np.asarray(x, np.float64)
    found = np.empty(len(x))
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        squares = (rows**2).sum(1)[:, None] + (samples**2).sum(1) - 2 * rows @ samples.T
        exponents = -np.maximum(squares, 0) / (2 * bandwidth**2)
        top = exponents.max(1)
        found[start : start + _ROWS] = top + np.log(np.exp(exponents - top[:, None]).mean(1))
    return found - x.shape[1] * np.log(bandwidth * np.sqrt(2 * np.pi))


def parzen(samples: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Parzen:
    """Returns the estimate with the bandwidth that suits the validation data best.

    Goodfellow et al. 2014 (section 5) choose it in this way, with 10,000 samples.

    Args:
        samples: [S, D], samples of the model, with pixels from 0 to 1.
        validation: [N, D], validation data, none of which is in the test data.
        test: [N', D], the test data.
    """
    means = [parzen_log_densities(samples, validation, width).mean() for width in _BANDWIDTHS]
    bandwidth = float(_BANDWIDTHS[int(np.argmax(means))])
    values = parzen_log_densities(samples, test, bandwidth)
    return Parzen(float(values.mean()), float(values.std() / np.sqrt(len(values))), bandwidth)
