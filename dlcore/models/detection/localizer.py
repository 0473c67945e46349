"""Classification with localisation of one object in a picture (Sermanet et al. 2013).

Shapes: B pictures, S their side, C channels, p classes, h w F a map.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dlcore import boxes as geometry
from dlcore.models.cnn.darknet import ConvUnit
from dlcore.models.detection.body import Body, passthrough
from dlcore.models.detection.detector import (
    OVERLAP_LOSSES,
    Decoding,
    cells_of,
    largest,
    objects_of,
    of_place,
)
from dlcore.models.detection.suppression import Detections
from dlcore.nn import Conv, Dense
from dlcore.types import Activations, Batch, at_least_float32


class Localizer(nn.Module):
    """A network for one object of a picture, with its score, its box and its class.

    The outputs are p_c, b_y, b_x, b_h, b_w, c_1 ... c_p: sigmoid(p_c) is the probability of an
    object, b are its centre and sides in shares of the picture, and the softmax of c are the
    probabilities of its class, given that there is an object.

    The net is a body and a 3x3 convolution. A softmax over all cells of the map, trained towards
    the cell of the object's centre, decides where to look. The mean of the features, weighted by
    it, determines the class and the size; the mean of the cells' middles, shifted by an offset from
    the features, is the centre (a spatial soft-argmax, Finn et al. 2016). A dense layer on the
    whole map, as in the first nets of this kind, would have to learn each class anew at each
    position.

    Attributes:
        body: a network that outputs one map, or with a passthrough two, the finer first.
        num_classes: p.
        hidden: the number of filters of the convolution.
        passthrough: the number of filters that the finer map is brought to, see
            `body.passthrough`; 0 for none.
        box_loss: "squares" of the four shares, or 1 minus an overlap of `boxes.OVERLAPS`.
        box_weight: the weight of the box in the loss.
        decoding: the options of the decoding to a single detection.
    """

    body: Body
    num_classes: int
    hidden: int = 128
    passthrough: int = 0
    box_loss: str = "squares"
    box_weight: float = 5.0
    decoding: Decoding = Decoding(most=1)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps images (B, S, S, C) to outputs (B, 5 + p) and the activations by name."""
        maps, activations = self.body(images, train)
        a = dict(activations)
        a["passthrough"] = x = passthrough(maps, self.passthrough, train)
        a["head"] = x = ConvUnit(self.hidden, 3, name="head")(x, train)
        count, rows, columns, features = x.shape
        a["where"] = where = Conv(1, (1, 1), name="where")(x)[..., 0]
        where = jax.nn.softmax(where.reshape(count, -1))
        middles = [(jnp.arange(n, dtype=x.dtype) + 0.5) / n for n in (rows, columns)]
        y, x_ = jnp.meshgrid(*middles, indexing="ij")
        places = jnp.stack([y.ravel(), x_.ravel()], -1)
        centre = jnp.einsum("br,rc->bc", where, places)
        pooled = jnp.einsum("br,brf->bf", where, x.reshape(count, -1, features))
        small = nn.initializers.normal(0.01)
        x = Dense(5 + self.num_classes, kernel_init=small, name="output")(pooled)
        sides = jax.nn.sigmoid(x[:, 3:5])
        # In cells, or the steps of the centre would be a hundred times those of all else.
        centre += x[:, 1:3] / jnp.asarray([[rows, columns]], x.dtype)
        a["output"] = x = jnp.concatenate([x[:, :1], centre, sides, x[:, 5:]], -1)
        return x, a

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the terms of the loss of each picture: "object", "where", "place" and "class".

        The object is the largest one that is to be found; "where" is the cross-entropy of its cell.
        Without an object, "where", "place" and "class" have no part in the loss; with only
        difficult objects or crowds no term has.
        """
        outputs, activations = self(images, train)
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        objects = objects_of(batch)
        side = images.shape[1]
        place, there = largest(objects)
        box, label = of_place(objects.boxes, place), of_place(objects.labels, place)
        looks = activations["where"].astype(outputs.dtype)
        rows, columns = looks.shape[1:]
        row, column = jnp.moveaxis(cells_of(box, side / rows, (rows, columns)), -1, 0)
        cell = row * columns + column
        where = optax.softmax_cross_entropy_with_integer_labels(looks.reshape(len(looks), -1), cell)
        if self.box_loss == "squares":
            wanted = geometry.convert(box / side, "corners", "centre")
            y, x, height, width = wanted[:, 1], wanted[:, 0], wanted[:, 2], wanted[:, 3]
            shares = jnp.stack([y, x, height, width], -1)
            wrong = ((outputs[:, 1:5] - shares) ** 2).sum(-1)
        else:
            wrong = OVERLAP_LOSSES[self.box_loss](self.boxes(outputs, side), box)
        score = optax.sigmoid_binary_cross_entropy(outputs[:, 0], there.astype(outputs.dtype))
        known = there | ~objects.ignored.any(1)
        classes = optax.softmax_cross_entropy_with_integer_labels(outputs[:, 5:], label)
        return {
            "object": jnp.where(known, score, 0),
            "where": jnp.where(there, where, 0),
            "place": self.box_weight * jnp.where(there, wrong, 0),
            "class": jnp.where(there, classes, 0),
        }

    def boxes(self, outputs: jax.Array, side: int) -> jax.Array:
        """Returns the boxes (B, 4) of outputs (B, 5 + p)."""
        y, x, height, width = (side * outputs[:, i] for i in range(1, 5))
        return geometry.convert(jnp.stack([x, y, height, width], -1), "centre", "corners")

    def detect(self, images: jax.Array, batch: Batch) -> Detections:
        """Returns the one object found in images (B, S, S, C), with the score p_c c_i."""
        outputs = self(images)[0]
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        scores = jax.nn.sigmoid(outputs[:, :1]) * jax.nn.softmax(outputs[:, 5:])
        side = images.shape[1]
        return self.decoding(self.boxes(outputs, side)[:, None], scores, side)
