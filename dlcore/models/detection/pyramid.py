"""A pyramid of features (Lin et al. 2017). Shapes: B batch, L levels, h w F a map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import boxes as geometry
from dlcore.nn import Conv

# A box of this side belongs to the level whose cells are a fourteenth of it: 224 pixels to the
# stride 16 (equation 1, of networks that are made for ImageNet's pictures).
_CELLS = 14


class Pyramid(nn.Module):
    """A feature pyramid, which gives maps of every stride the semantics of the coarsest one.

    A 1x1 convolution brings each map to one width. Each map is added to the next coarser one
    enlarged to its size (nearest cell), and a 3x3 convolution smooths the result.

    Attributes:
        features: the width of all levels.
    """

    features: int

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Maps L maps (B, h, w, F), the finest first, to L maps of `features` channels."""
        levels: list[jax.Array] = []
        for level in reversed(range(len(maps))):
            x = Conv(self.features, (1, 1), name=f"lateral{level}")(maps[level])
            if levels:
                x += jax.image.resize(levels[0], x.shape, "nearest")
            levels.insert(0, x)
        return tuple(
            Conv(self.features, (3, 3), padding="same", name=f"output{level}")(x)
            for level, x in enumerate(levels)
        )


def level_of(boxes: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    """Returns the level at which each box (..., 4) is read, int32 (...), by its area.

    It is the last level whose stride is at most a fourteenth of the root of the area, or the first.
    """
    root = jnp.sqrt(geometry.area(boxes))
    starts = jnp.asarray([_CELLS * stride for stride in strides[1:]], root.dtype)
    return jnp.searchsorted(starts, root, side="right").astype(jnp.int32)
