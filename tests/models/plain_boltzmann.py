"""Boltzmann machines written plainly in NumPy: all states are enumerated."""

import itertools

import numpy as np


def states(count):
    """All vectors of so many bits, [2^count, count]."""
    return np.array([*itertools.product((0.0, 1.0), repeat=count)])


def one_hots(units, levels):
    """All states of softmax units, [levels^units, units * levels]."""
    rows = itertools.product(range(levels), repeat=units)
    return np.array([np.eye(levels)[[*row]].ravel() for row in rows])


class PlainRBM:
    """An RBM by W [V, H], b [V], c [H] in float64."""

    def __init__(self, params):
        self.w, self.b, self.c = (
            np.asarray(params[name], np.float64) for name in ("kernel", "visible_bias", "bias")
        )

    def energy(self, v, h):
        return -(v @ self.b) - h @ self.c - np.einsum("...i,ij,...j", v, self.w, h)

    def free_energy(self, v):
        """By the sum over all hidden states."""
        every = states(len(self.c))
        return np.array([-np.log(np.exp(-self.energy(row[None], every)).sum()) for row in v])

    def log_z(self, visible=None):
        visible = states(len(self.b)) if visible is None else visible
        return np.log(np.exp(-self.free_energy(visible)).sum())

    def log_likelihood(self, v, visible=None):
        return -self.free_energy(v) - self.log_z(visible)

    def gradient(self, data, k=None):
        """Of the mean of -log p(v), by expectations; with k, that which CD-k has on the average.

        Then the machine's part is not under p(v), but after k steps of Gibbs sampling.
        """
        v, h = states(len(self.b)), states(len(self.c))
        p = np.exp(self.log_likelihood(v))
        if k is not None:
            up, down = sigmoid(self.c + v @ self.w), sigmoid(self.b + h @ self.w.T)
            step = chances(up, h) @ chances(down, v)
            starts = (data[:, None] == v).all(-1).mean(0)
            p = starts @ np.linalg.matrix_power(step, k)

        def mean(v, weights):
            h = sigmoid(self.c + v @ self.w)
            return {
                "kernel": np.einsum("n,ni,nj", weights, v, h),
                "bias": weights @ h,
                "visible_bias": weights @ v,
            }

        ours, theirs = mean(data, np.full(len(data), 1 / len(data))), mean(v, p)
        return {name: theirs[name] - ours[name] for name in ours}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def chances(p, bits):
    """The probability of vectors of bits [m, count] by each of the means p [n, count], [n, m]."""
    return np.prod(np.where(bits > 0, p[:, None], 1 - p[:, None]), axis=-1)


def bars_and_stripes(side):
    """The patterns of full rows or full columns, [n, side * side] (MacKay 2003, section 43.2)."""
    rows = [np.tile(bits[:, None], (1, side)) for bits in states(side)]
    return np.unique([image.ravel() for bars in rows for image in (bars, bars.T)], axis=0)
