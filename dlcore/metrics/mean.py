"""The mergeable mean: what every loss and every metric is."""

import flax.struct
import jax
import jax.numpy as jnp


class Mean(flax.struct.PyTreeNode):
    """A weighted mean that has not been divided yet.

    Two means of parts of the data merge by addition into the mean of all of it, so padding (rows
    of weight 0), accumulation and the number of devices cannot change the result.

    Attributes:
        total: the sum of weight times value, a scalar.
        weight: the sum of the weights, a scalar.

    >>> float(Mean.of(jnp.array([1.0, 3.0])).merge(Mean.of(jnp.array([8.0]))).compute())
    4.0
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> "Mean":
        """The mean of `values`, each counted by its weight (1 by default).

        Args:
            values: numbers of any shape.
            weights: of the same shape. A value of weight 0 is ignored, even when it is not finite.
        """
        values = jnp.asarray(values)
        if weights is None:
            return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
        if values.shape != weights.shape:
            raise ValueError(f"values {values.shape} and weights {weights.shape} differ in shape")
        return cls(jnp.where(weights == 0, 0, values * weights).sum(), weights.sum())

    def merge(self, other: "Mean") -> "Mean":
        """The mean over the data of both."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> jax.Array:
        """The mean; NaN when nothing was counted."""
        return self.total / self.weight
