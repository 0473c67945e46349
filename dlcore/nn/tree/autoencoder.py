"""The cell of a recursive autoencoder. Shapes: D features, `...` any leading axes."""

import dataclasses

import jax
import jax.numpy as jnp

from dlcore.nn.tree.cells import Params, Recursive

_TINY = 1e-12  # below the square of any length that is divided by


@dataclasses.dataclass(frozen=True)
class Autoencoder(Recursive):
    """A cell p = tanh(W [c1; c2] + b), scaled to length 1; V p + d reconstructs the children.

    Leaves are words of length 1, so that no node can make its error small by being short (Socher et
    al. 2011, "Semi-supervised recursive autoencoders", eq. 4-6 and section 2.2). Parameters: those
    of `Recursive`, `decoder` (D, 2 D) and `decoder_bias` (2 D,).
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        params = super().init(key, inputs)
        return {
            **params,
            "decoder": params["kernel"].T,
            "decoder_bias": jnp.zeros(2 * self.features),
        }

    def leaf(self, params: Params, x: jax.Array) -> jax.Array:
        return _unit(x)

    def combine(
        self, projected: jax.Array, word: jax.Array | None, children: jax.Array
    ) -> jax.Array:
        return _unit(jnp.tanh(projected))

    def error(
        self, params: Params, node: jax.Array, children: jax.Array, sizes: jax.Array
    ) -> jax.Array:
        """Returns the reconstruction error (...) of nodes (..., D).

        It sums the squared distances to the children, weighted by their numbers of words (ibid.,
        eq. 10).

        Args:
            params: the parameters.
            node: the nodes.
            children: (..., 2, D).
            sizes: the number of words of each child, (..., 2).
        """
        bias = params["decoder_bias"].reshape((1,) * (node.ndim - 1) + (-1,))
        guess = (node @ params["decoder"] + bias).reshape(children.shape)
        distances = ((guess - children) ** 2).sum(axis=-1)
        shares = sizes / jnp.maximum(sizes.sum(axis=-1, keepdims=True), 1)
        return (shares * distances).sum(axis=-1)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.maximum((x**2).sum(axis=-1, keepdims=True), _TINY))
