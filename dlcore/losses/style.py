"""Costs of neural style transfer (Gatys et al. 2015, A Neural Algorithm of Artistic Style).

All costs are computed in float32 at least. Shapes: B pictures; h w, N height, width and channels of
the activations of a layer; M = h w its positions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32


def gatys_content_cost(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Returns half the squared distance of activations, 1/2 |F - P|^2 (equation 1), (B,).

    Args:
        found: (B, h, w, N) F, the activations of the picture that is made.
        wanted: (B, h, w, N) P, the activations of the content.
    """
    return 0.5 * _squared_distance(found, wanted)


def ng_content_cost(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Returns the squared distance of activations divided by 4 M N, (B,).

    This is the scaling in Ng's course on convolutional networks (2017); the cost does not grow with
    the picture. The arguments are as for `gatys_content_cost`.
    """
    return _squared_distance(found, wanted) / (4 * found[0].size)


# The costs of content by the name of the source that defines them.
CONTENT_COSTS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "gatys": gatys_content_cost,
    "ng": ng_content_cost,
}


def gram_matrix(activations: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Returns the style matrix: the mean over the positions of products of channels, (B, N, N).

    It is the Gram matrix of equation 3 divided by the number of positions, so that matrices of
    pictures of different sizes can be compared. With a mask it is the mean of the positions
    weighted by the mask (the guided Gram matrix of Gatys et al. 2017, Controlling Perceptual
    Factors in Neural Style Transfer, section 4).

    Args:
        activations: (B, h, w, N).
        mask: (h, w) from 0 to 1; None means 1 everywhere.

    >>> gram_matrix(jnp.array([[[[1.0, 2.0], [3.0, 0.0]]]])).tolist()
    [[[5.0, 1.0], [1.0, 2.0]]]
    """
    activations = activations.astype(at_least_float32(activations.dtype))
    places = activations.reshape(len(activations), -1, activations.shape[-1])
    if mask is None:
        return jnp.swapaxes(places, 1, 2) @ places / places.shape[1]
    weights = mask.reshape(1, -1, 1).astype(places.dtype)
    # A mask that is black everywhere asks for nothing.
    total = jnp.maximum(weights.sum(), 1e-6)
    return jnp.swapaxes(places * weights, 1, 2) @ places / total


def style_cost(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Returns 1 / (4 N^2) times the squared distance of two style matrices, (B,).

    With matrices that are divided by M it is the cost of a layer in equation 4 of Gatys et al.,
    1 / (4 N^2 M^2) |G - A|^2, and the cost in Ng's course, 1 / (2 N h w)^2 |G - A|^2, which are the
    same.

    Args:
        found: (B, N, N), the `gram_matrix` of the picture that is made.
        wanted: (B, N, N) or (1, N, N), the `gram_matrix` of the style.
    """
    return _squared_distance(found, wanted) / (4 * found.shape[-1] ** 2)


def _squared_distance(found: jax.Array, wanted: jax.Array) -> jax.Array:
    kind = at_least_float32(found.dtype)
    squares = jnp.square(found.astype(kind) - wanted.astype(kind))
    return squares.sum(range(1, squares.ndim))
