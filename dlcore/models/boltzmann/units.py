"""The kinds of visible units: distributions of an exponential family with a field per unit.

Given its field f and its precision l, a unit v has p(v | f) proportional to exp(f v - l v^2 / 2).
Binary and softmax units have no precision: their v are bits, whose distribution the field alone
determines.

Shapes: V visible units, `...` any leading axes.
"""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.types import at_least_float32

# What keeps the field of a unit finite that is always on, or never.
_LEAST = 0.01


class Units(abc.ABC):
    """A kind of visible units.

    Attributes:
        has_precision: whether they have a precision [V]; for units without one it is None.
    """

    has_precision: ClassVar[bool] = False

    @abc.abstractmethod
    def log_partition(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        """Returns log of the sum, or integral, of exp(f v - l v^2 / 2) over all v, [...]."""

    @abc.abstractmethod
    def mean(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        """Returns the mean of v given the field [..., V]."""

    @abc.abstractmethod
    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Returns the random numbers that a draw of some shape needs."""

    @abc.abstractmethod
    def draw(self, field: jax.Array, precision: jax.Array | None, noise: jax.Array) -> jax.Array:
        """Returns v drawn given the field [..., V]."""

    @abc.abstractmethod
    def deviance(self, v: jax.Array, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        """Returns -log p(v | f) minus its minimum over all fields, in nats [...]."""

    @abc.abstractmethod
    def field_of(self, mean: np.ndarray, precision: np.ndarray | None) -> np.ndarray:
        """Returns the field [V] under which v has a mean, less extreme for means of 0 or 1."""

    def log_prob(self, v: jax.Array, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        """Returns log p(v | f), [...]."""
        return (
            (field * v.astype(field.dtype)).sum(-1)
            - self_energy(v, precision)
            - self.log_partition(field, precision)
        )


def self_energy(v: jax.Array, precision: jax.Array | None) -> jax.Array:
    """Returns the part of the energy that involves neither biases nor hidden units, [...]."""
    if precision is None:
        return jnp.zeros(v.shape[:-1], at_least_float32(v.dtype))
    v = v.astype(at_least_float32(v.dtype))
    return (jnp.broadcast_to(0.5 * precision.astype(v.dtype), v.shape) * v**2).sum(-1)


@dataclasses.dataclass(frozen=True)
class Binary(Units):
    """Units of 0 and 1."""

    def log_partition(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return jax.nn.softplus(field).sum(-1)

    def mean(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return jax.nn.sigmoid(field)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape)

    def draw(self, field: jax.Array, precision: jax.Array | None, noise: jax.Array) -> jax.Array:
        return (noise.astype(field.dtype) < jax.nn.sigmoid(field)).astype(field.dtype)

    def deviance(self, v: jax.Array, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return -self.log_prob(v, field, precision)

    def field_of(self, mean: np.ndarray, precision: np.ndarray | None) -> np.ndarray:
        p = np.clip(mean, _LEAST, 1 - _LEAST)
        return np.asarray(np.log(p / (1 - p)))


@dataclasses.dataclass(frozen=True)
class Softmax(Units):
    """Groups of bits with a single 1 in each, which are units of several levels.

    Attributes:
        levels: the number of levels of a unit; V is a multiple of it, and the levels of a unit are
            neighbours.
    """

    levels: int

    def _apart(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], -1, self.levels)

    def log_partition(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return jax.nn.logsumexp(self._apart(field), axis=-1).sum(-1)

    def mean(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return jax.nn.softmax(self._apart(field), axis=-1).reshape(field.shape)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.gumbel(key, shape)

    def draw(self, field: jax.Array, precision: jax.Array | None, noise: jax.Array) -> jax.Array:
        best = self._apart(field + noise.astype(field.dtype)).argmax(-1)
        return jax.nn.one_hot(best, self.levels, dtype=field.dtype).reshape(field.shape)

    def deviance(self, v: jax.Array, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return -self.log_prob(v, field, precision)

    def field_of(self, mean: np.ndarray, precision: np.ndarray | None) -> np.ndarray:
        return np.log(np.maximum(mean, _LEAST / self.levels))


@dataclasses.dataclass(frozen=True)
class Gaussian(Units):
    """Real units with a normal distribution of mean f / l and variance 1 / l."""

    has_precision: ClassVar[bool] = True

    def _of(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        assert precision is not None
        return jnp.broadcast_to(precision.astype(field.dtype), field.shape)

    def log_partition(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        scale = self._of(field, precision)
        return 0.5 * (field**2 / scale + jnp.log(2 * jnp.pi / scale)).sum(-1)

    def mean(self, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        return field / self._of(field, precision)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(key, shape)

    def draw(self, field: jax.Array, precision: jax.Array | None, noise: jax.Array) -> jax.Array:
        scale = self._of(field, precision)
        return field / scale + noise.astype(field.dtype) * jax.lax.rsqrt(scale)

    def deviance(self, v: jax.Array, field: jax.Array, precision: jax.Array | None) -> jax.Array:
        scale = self._of(field, precision)
        return 0.5 * (scale * (v.astype(field.dtype) - field / scale) ** 2).sum(-1)

    def field_of(self, mean: np.ndarray, precision: np.ndarray | None) -> np.ndarray:
        assert precision is not None
        return np.asarray(mean * precision)
