"""Spectral normalisation, for layers whose matrix stretches no vector (Miyato et al. 2018)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.types import PyTree, at_least_float32

# The collection of the vectors.
SPECTRAL = "spectral"
_EPSILON = 1e-12


class SpectralNorm(nn.Module):
    """A layer with its `kernel` divided by the kernel's largest singular value, sigma.

    The kernel of a convolution counts as a matrix with one column for each filter. Sigma comes from
    the power method (algorithm 1): v = W u / |W u|, u = W' v / |W' v|, sigma = v' W u. Each call in
    training makes one iteration, which starts from the vector u of the call before, in the
    collection `spectral`. Evaluation takes |W u|. The gradient treats u and v as constants (eq.
    11).

    Attributes:
        layer: a layer such as `Dense` or `Conv`; its own parameters are under "layer".
    """

    layer: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the layer with the normalised kernel.

        Args:
            x: the layer's input.
            train: whether to make an iteration of the power method.
        """

        def normalised(variables: PyTree) -> PyTree:
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: self._divided(leaf, train) if _is_kernel(path) else leaf,
                variables,
            )

        def apply(layer: Any, x: jax.Array) -> jax.Array:
            y: jax.Array = layer(x)
            return y

        mapped = nn.map_variables(
            apply, "params", normalised, init=self.is_initializing(), mutable=True
        )
        y: jax.Array = mapped(self.layer, x)
        return y

    def _divided(self, kernel: jax.Array, train: bool) -> jax.Array:
        wide = kernel.astype(at_least_float32(kernel.dtype))
        matrix = wide.reshape(-1, kernel.shape[-1])
        vector = self.variable(
            SPECTRAL,
            "u",
            lambda: _unit(jax.random.normal(self.make_rng("params"), matrix.shape[-1:])),
        )
        constant = jax.lax.stop_gradient(matrix)
        u = vector.value.astype(matrix.dtype)
        v = _unit(constant @ u)
        if train and not self.is_initializing():
            u = _unit(v @ constant)
            vector.value = u
        sigma = v @ matrix @ u
        return (wide / jnp.maximum(sigma, _EPSILON)).astype(kernel.dtype)


def _is_kernel(path: Any) -> bool:
    return bool(path) and getattr(path[-1], "key", None) == "kernel"


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), _EPSILON)
