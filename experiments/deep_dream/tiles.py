"""Large pictures seen tile by tile, so that a network's activations of all are never there at once.

Shapes: H W the size of a picture, C its channels, T the side of a tile.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def mean_over_tiles(
    function: Callable[[jax.Array], jax.Array], picture: jax.Array, side: int
) -> jax.Array:
    """Returns the mean of a function over the tiles of a picture.

    Its gradient holds the activations of one tile at a time. Tiles are of one size, and overlap
    where that does not divide the picture's. Where a picture is rolled by random amounts, their
    borders leave no seams.

    Args:
        function: (1, h, w, C) -> (1,).
        picture: (1, H, W, C).
        side: T, the largest height and width of a tile.
    """
    height, width = min(side, picture.shape[1]), min(side, picture.shape[2])
    corners = [
        (top, left)
        for top in _starts(picture.shape[1], height)
        for left in _starts(picture.shape[2], width)
    ]
    if len(corners) == 1:
        return function(picture)
    tiles = jnp.stack(
        [picture[:, top : top + height, left : left + width] for top, left in corners]
    )
    return jax.lax.map(jax.checkpoint(function), tiles).mean(0)


def _starts(size: int, side: int) -> list[int]:
    """Returns where tiles begin that cover a size evenly."""
    count = -(-size // side)
    return np.linspace(0, size - side, count).round().astype(int).tolist()
