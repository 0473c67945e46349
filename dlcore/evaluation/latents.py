"""Measures how much the latent units of a variational autoencoder tell about the data.

A unit whose posterior equals the prior tells nothing about an image. If this is so for most units,
the posterior has collapsed: the decoder models the data without them.

Shapes: N examples, K latent units.
"""

from typing import NamedTuple

import numpy as np

ACTIVE = 0.01  # the variance of a posterior mean over the data above which a unit is active
_ROWS = 64  # examples that are compared with all others at once


class LatentUse(NamedTuple):
    """The information of each latent unit about the data, in nats.

    On average over the data, KL = mutual information + distance from the prior (Hoffman & Johnson
    2016).

    Attributes:
        kl: [K], the mean KL(q(z | x) || p(z)).
        information: [K], the mutual information of unit and image under q, at most log N.
        active: bool [K], see `active_units`.
    """

    kl: np.ndarray
    information: np.ndarray
    active: np.ndarray

    @property
    def collapsed(self) -> bool:
        """Returns whether fewer than a tenth of the units are active."""
        return bool(10 * self.active.sum() < len(self.active))


def active_units(means: np.ndarray) -> np.ndarray:
    """Returns which units are active, bool [K]: the variance of their mean is above 0.01.

    Args:
        means: [N, K], the means of q(z | x) (Burda et al. 2016, section 5.2).
    """
    return np.asarray(np.asarray(means, np.float64).var(0) > ACTIVE)


def latent_use(means: np.ndarray, log_variances: np.ndarray, *, seed: int = 0) -> LatentUse:
    """Returns KL, mutual information and activity of each unit.

    The mutual information is the mean of log q(z | x) - log q(z) over one sample z of each example,
    with q(z) the mean of the posteriors of all N examples; it takes N^2 K steps.

    Args:
        means: [N, K], the means of q(z | x).
        log_variances: [N, K], the logarithms of its variances.
        seed: the seed of the samples.
    """
    means, log_variances = (np.asarray(a, np.float64) for a in (means, log_variances))
    kl = 0.5 * (means**2 + np.exp(log_variances) - 1 - log_variances)
    noise = np.random.default_rng(seed).standard_normal(means.shape)
    samples = means + np.exp(0.5 * log_variances) * noise
    # log N(z; m, v) less log sqrt(2 pi), which both densities have.
    own = -0.5 * (noise**2 + log_variances)
    precisions = np.exp(-log_variances)
    mixture = np.empty_like(own)
    for start in range(0, len(means), _ROWS):
        rows = samples[start : start + _ROWS, None]
        densities = -0.5 * ((rows - means) ** 2 * precisions + log_variances)
        top = densities.max(1)
        mixture[start : start + _ROWS] = top + np.log(np.exp(densities - top[:, None]).mean(1))
    return LatentUse(kl.mean(0), (own - mixture).mean(0), active_units(means))
