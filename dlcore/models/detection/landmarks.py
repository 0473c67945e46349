"""Landmarks, the positions of the parts of an object.

Shapes: B pictures, S their side, C channels, N objects, P landmarks, h w F a map.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.models.cnn.darknet import SLOPE, ConvUnit
from dlcore.models.detection.body import Body, passthrough
from dlcore.models.detection.detector import largest, objects_of, of_place
from dlcore.nn import Conv, Dense
from dlcore.types import Activations, Batch, at_least_float32

FORMS = ("coordinates", "soft_argmax", "heat_map")
# Added to the values of heat maps before their logarithm.
_LEAST = 1e-6


class Landmarks(NamedTuple):
    """The landmarks found in each of B pictures.

    Attributes:
        points: (B, P, 2), y and x in pixels.
        scores: (B, P), the highest value of each heat map, from 0 to 1; 1 without heat maps.
    """

    points: jax.Array
    scores: jax.Array


class LandmarkNet(nn.Module):
    """A network for P landmarks of the largest object of a picture, in one of three forms.

      - "coordinates": a hidden dense layer on the whole map, and two numbers for each landmark,
        whose sigmoids are its position in shares of the picture.
      - "soft_argmax": a heat map for each landmark, whose softmax is a probability of each cell;
        the position is the mean of the cells' middles (Sun et al. 2018, Integral human pose
        regression). It is trained by the positions alone.
      - "heat_map": the same maps, each trained towards a Gaussian around the landmark by the
        cross-entropy of all cells. The position is the middle of the highest cell, moved to the
        peak of the parabola through the logarithms of its neighbours, which is exact for a Gaussian
        (Zhang et al. 2020, Distribution-aware coordinate representation).

    The heat maps have twice the resolution of the body's map, which is enlarged and convolved once
    more, in a lighter form of Xiao et al. 2018. With a passthrough, a finer map of the body, which
    locates edges better, is joined to the enlarged one (Newell et al. 2016, Stacked hourglass
    networks).

    Attributes:
        body: a network that outputs one map, or with a passthrough two, the finer first.
        num_landmarks: P.
        form: one of `FORMS`.
        hidden: the units of the hidden layer, or the filters before the heat maps.
        passthrough: the number of filters that the finer map is brought to; 0 for none.
        deviation: the standard deviation of the Gaussians, in cells of the heat maps.
    """

    body: Body
    num_landmarks: int
    form: str = "soft_argmax"
    hidden: int = 96
    passthrough: int = 0
    deviation: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps images (B, S, S, C) to outputs and the activations by name.

        Returns:
            Numbers (B, P, 2), or heat maps (B, 2h, 2w, P) before their softmax.
        """
        maps, activations = self.body(images, train)
        a = dict(activations)
        small = nn.initializers.normal(0.01)
        if self.form == "coordinates":
            a["passthrough"] = x = passthrough(maps, self.passthrough, train)
            x = x.reshape(x.shape[0], -1)
            a["hidden"] = x = nn.leaky_relu(Dense(self.hidden, name="hidden")(x), SLOPE)
            x = Dense(2 * self.num_landmarks, kernel_init=small, name="output")(x)
            a["output"] = x = x.reshape(-1, self.num_landmarks, 2)
            return x, a
        x = ConvUnit(self.hidden, 3, name="before")(maps[-1], train)
        count, height, width, _ = x.shape
        x = jax.image.resize(x, (count, 2 * height, 2 * width, self.hidden), "bilinear")
        if self.passthrough:
            fine = ConvUnit(self.passthrough, 1, name="passthrough")(maps[0], train)
            # A pool leaves out the last row of an odd number.
            fine = fine[:, : 2 * height, : 2 * width]
            a["passthrough"] = x = jnp.concatenate([fine, x], -1)
        a["head"] = x = ConvUnit(self.hidden, 3, name="head")(x, train)
        x = Conv(self.num_landmarks, (1, 1), kernel_init=small, name="output")(x)
        a["output"] = x
        return x, a

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the loss of each picture, "place", the mean over its visible landmarks.

        It is 1,000 times the squared distance in shares of the picture, or the cross-entropy of a
        heat map in nats. The landmarks are those of the largest object that is to be found.
        """
        outputs = self(images, train)[0]
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        points, visible = truth(batch)
        side = images.shape[1]
        if self.form == "heat_map":
            log_probability = jax.nn.log_softmax(_flat(outputs))
            losses = -(self._gaussians(points, outputs.shape[1:3], side) * log_probability).sum(-1)
        else:
            distance = (self.points(outputs, side) - points) / side
            losses = 1000 * (distance**2).sum(-1)
        count = visible.sum(1).astype(losses.dtype)
        total = jnp.where(visible, losses, 0).sum(1)
        return {"place": total / jnp.maximum(count, 1)}

    def points(self, outputs: jax.Array, side: int) -> jax.Array:
        """Returns the positions (B, P, 2), in pixels, that outputs of `__call__` describe."""
        if self.form == "coordinates":
            return side * jax.nn.sigmoid(outputs)
        rows, columns = outputs.shape[1:3]
        maps = jax.nn.softmax(_flat(outputs)).reshape(len(outputs), -1, rows, columns)
        if self.form == "soft_argmax":
            # The middles of cells, in cells.
            y, x = (jnp.arange(n, dtype=maps.dtype) + 0.5 for n in (rows, columns))
            places = [
                (maps.sum(3) * y[None, None]).sum(-1),
                (maps.sum(2) * x[None, None]).sum(-1),
            ]
        else:
            places = _peaks(maps)
        return jnp.stack([places[0] * (side / rows), places[1] * (side / columns)], -1)

    def detect(self, images: jax.Array, batch: Batch) -> Landmarks:
        """Returns the landmarks in images (B, S, S, C)."""
        outputs = self(images)[0]
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        points = self.points(outputs, images.shape[1])
        scores = jnp.ones(points.shape[:2], points.dtype)
        if self.form != "coordinates":
            scores = jax.nn.softmax(_flat(outputs)).max(-1)
        return Landmarks(points, scores)

    def _gaussians(self, points: jax.Array, size: tuple[int, int], side: int) -> jax.Array:
        """Returns heat maps (B, P, h w) that sum to 1, around points (B, P, 2)."""
        parts = []
        for axis, count in enumerate(size):
            middle = jnp.arange(count, dtype=points.dtype) + 0.5
            away = points[..., axis, None] * (count / side) - middle[None, None]
            parts.append(-0.5 * (away / self.deviation) ** 2)
        return jax.nn.softmax(
            (parts[0][..., :, None] + parts[1][..., None, :]).reshape(*points.shape[:2], -1)
        )


def truth(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns the landmarks (B, P, 2) of the largest object, and which are visible (B, P)."""
    place, there = largest(objects_of(batch))
    points, visible = (of_place(batch[name], place) for name in ("landmarks", "landmarks_mask"))
    return points, visible & there[:, None]


def _flat(maps: jax.Array) -> jax.Array:
    """Reshapes maps (B, h, w, P) to (B, P, h w)."""
    return jnp.moveaxis(maps, -1, 1).reshape(len(maps), maps.shape[-1], -1)


def _peaks(maps: jax.Array) -> list[jax.Array]:
    """Returns rows and columns (B, P) of the peaks of maps (B, P, h, w), in cells."""
    rows, columns = maps.shape[2:]
    logs = jnp.log(maps + _LEAST)
    best = jnp.argmax(maps.reshape(*maps.shape[:2], -1), -1).astype(jnp.int32)
    row, column = best // columns, best % columns

    def value(down: int, right: int) -> jax.Array:
        r, c = (row + down).clip(0, rows - 1), (column + right).clip(0, columns - 1)
        flat = logs.reshape(*logs.shape[:2], -1)
        return jnp.take_along_axis(flat, (r * columns + c)[..., None], -1)[..., 0]

    def moved(place: jax.Array, count: int, down: int, right: int) -> jax.Array:
        before, here, after = value(-down, -right), value(0, 0), value(down, right)
        bend = before - 2 * here + after
        shift = 0.5 * (before - after) / jnp.where(bend < 0, bend, -1)
        # At the edge of the map there is no neighbour to look at.
        inside = (place > 0) & (place < count - 1) & (bend < 0)
        return place.astype(logs.dtype) + 0.5 + jnp.where(inside, shift.clip(-0.5, 0.5), 0)

    return [moved(row, rows, 1, 0), moved(column, columns, 0, 1)]
