"""Mosaic of four: each example shares its image with three others of the global batch.

The partners of position p are the positions p + B/4, p + B/2 and p + 3 B/4 (modulo B), by the rule
of `mixing`: they are the same in every layout, and a strided micro-batch holds them where the
number of its rows is a multiple of four. Shapes: B global batch, H W image, C channels, N boxes, M
landmarks of a box.
"""

import functools

import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.nn.augment.mixing import Batch, partners
from dlcore.nn.augment.warp import cut_boxes, warp_images

# What a batch says of each box.
_OF_BOXES = (
    "boxes",
    "boxes_mask",
    "labels",
    "difficult",
    "crowd",
    "landmarks",
    "landmarks_mask",
)


def mosaic(
    keys: jax.Array,
    batch: Batch,
    *,
    probability: float = 1.0,
    zoom: float = 0.75,
    least_visible: float = 0.25,
) -> Batch:
    """Puts the example and three partners into one image (Bochkovskiy et al. 2020, section 3.3).

    The four images are made smaller by one factor z, uniform from 1/2 to `zoom`, and meet in one
    point, which is uniform where they leave no gap: at (1 - z) to z of each side. The example is at
    the upper left; its partners are at the upper right, lower left and lower right. Parts of images
    and boxes beyond the edges are cut off.

    Args:
        keys: one key for each example.
        batch: "image", "boxes" and "boxes_mask", and any of "labels", "difficult", "crowd",
            "landmarks" (B, N, M, 2) and "landmarks_mask"; see `augmentation`. Where a partner is a
            row of "weight" 0, the example stays as it is.
        probability: the probability that an example becomes a mosaic at all.
        zoom: the largest factor; at 1/2 all four images are visible as a whole.
        least_visible: the share of a box that must be inside its quarter, or it becomes padding.

    Returns:
        The batch with 4 N boxes for each example; its own boxes come first.

    Raises:
        InputError: for examples without boxes, or with candidates, landmarks of the image or a
            label of the image, and when the number of examples is not a multiple of four.
    """
    single = sorted({"label", "candidates"} & batch.keys())
    if "landmarks" in batch and batch["landmarks"].ndim != 4:
        single.append("landmarks")
    if single or "boxes" not in batch:
        raise InputError(
            f"mosaic moves boxes and has no rule for {single or 'examples without them'}; leave it "
            "out; mixup and cutmix mix images with one label"
        )
    images = batch["image"]
    height, width = images.shape[1:3]
    size = jnp.array([height, width], jnp.float32)[None]

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        zoom_key, place_key, done_key = jax.random.split(key, 3)
        factor = jax.random.uniform(zoom_key, minval=0.5, maxval=zoom)
        place = 1 - factor + (2 * factor - 1) * jax.random.uniform(place_key, (2,))
        return factor, place, jax.random.bernoulli(done_key, probability)

    factor, place, done = jax.vmap(draw)(keys)
    if "weight" in batch:
        real = batch["weight"] > 0
        done &= functools.reduce(jnp.logical_and, [partners(real, k, 4) for k in (1, 2, 3)])
    # From here on arrays are of the four quarters, (4, B, ...), which are one batch to `warp`.
    names = [name for name in _OF_BOXES if name in batch]
    quarters = {
        name: jnp.stack([partners(batch[name], k, 4) for k in range(4)])
        for name in ("image", *names)
    }
    lower = jnp.array([[[0.0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]])
    meeting = (place * size)[None]  # y, x in pixels
    side = factor[None, :, None] * size[None]
    corner = meeting - (1 - lower) * side
    low, high = lower * meeting, jnp.where(lower > 0, size[None], meeting)
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in quarters.items()}
    factors = jnp.tile(factor, 4)
    corners, lows, highs = (points.reshape(-1, 2) for points in (corner, low, high))
    tiles = warp_images(flat.pop("image"), _to_input(factors, corners))
    moved = _moved(flat, factors, corners, lows, highs, least_visible)

    y, x = jnp.arange(0.5, height)[None, :, None], jnp.arange(0.5, width)[None, None, :]
    inside = (y >= lows[:, :1, None]) & (y < highs[:, :1, None])
    inside &= (x >= lows[:, 1:, None]) & (x < highs[:, 1:, None])
    seen = jnp.where(inside[..., None], tiles, 0).reshape(quarters["image"].shape).sum(0)
    new = {"image": jnp.where(done[:, None, None, None], seen, images)}
    for name in names:
        whole = moved[name].reshape(quarters[name].shape)
        alone = jnp.concatenate([batch[name][None], jnp.zeros_like(whole[1:])])
        chosen = jnp.where(done.reshape(1, -1, *(1,) * (whole.ndim - 2)), whole, alone)
        new[name] = jnp.moveaxis(chosen, 0, 1).reshape(len(keys), -1, *whole.shape[3:])
    return batch | new


def _to_input(factor: jax.Array, corner: jax.Array) -> jax.Array:
    """Returns the maps (B, 3, 3) of images that are shrunk and moved to a corner (B, 2)."""
    inverse = 1 / factor
    zero, one = jnp.zeros_like(factor), jnp.ones_like(factor)
    lines = [
        [inverse, zero, -corner[:, 0] * inverse],
        [zero, inverse, -corner[:, 1] * inverse],
        [zero, zero, one],
    ]
    return jnp.stack([jnp.stack(line, -1) for line in lines], -2)


def _moved(
    objects: Batch,
    factor: jax.Array,
    corner: jax.Array,
    low: jax.Array,
    high: jax.Array,
    least_visible: float,
) -> Batch:
    """Returns the objects of images that were shrunk by a factor (B,) and moved to a corner.

    They are clipped to the rectangle from `low` to `high`, y and x (B, 2) each.
    """
    mask = objects["boxes_mask"].astype(bool)
    whole = objects["boxes"] * factor[:, None, None] + jnp.tile(corner, 2)[:, None]
    rectangle = jnp.tile(low, 2)[:, None], jnp.tile(high, 2)[:, None]
    boxes, kept = cut_boxes(whole, mask, *rectangle, least_visible)
    new = objects | {"boxes": boxes, "boxes_mask": kept.astype(objects["boxes_mask"].dtype)}
    if "landmarks" in objects:
        points = objects["landmarks"] * factor[:, None, None, None] + corner[:, None, None]
        limits = low[:, None, None], high[:, None, None]
        inside = ((points >= limits[0]) & (points <= limits[1])).all(-1) & kept[..., None]
        there = objects["landmarks_mask"].astype(bool) & inside
        new["landmarks"] = jnp.where(there[..., None], points, 0)
        new["landmarks_mask"] = there.astype(objects["landmarks_mask"].dtype)
    return new
