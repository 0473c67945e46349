"""Augmentation that mixes each example with another of the same global batch, labels and all.

The partner of position p is p + B/2 (modulo B): batches are shuffled, so it is any example. No
layout changes this rule. Micro-batch i of a holds the rows i, i + a, i + 2a, ...; where their
number is even, a divides B/2 and the partner is among them, half the micro-batch away. Under pmap
the devices fetch their partners from one another. Shapes: B global batch, H W image, C channels,
K classes; the functions see the rows that are at hand.
"""

import jax
import jax.numpy as jnp

from dlcore import parallel
from dlcore.errors import InputError
from dlcore.nn.augment.colour import rectangle

Batch = dict[str, jax.Array]


def mixup(
    keys: jax.Array, batch: Batch, *, alpha: float = 0.2, num_classes: int | None = None
) -> Batch:
    """share * example + (1 - share) * partner, images and labels alike (Zhang et al. 2018).

    Args:
        keys: one for each example.
        batch: "image" and "label", see `augmentation`; rows of "weight" 0 are no partners.
        alpha: the share is drawn from Beta(alpha, alpha), for each example.
        num_classes: K, needed where labels are integers.

    Returns:
        The batch with its images mixed and its labels floats (B, K).

    Raises:
        InputError: for an odd number of examples, labels that cannot be mixed, boxes or landmarks.
    """
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)
    share = jnp.where(_paired(batch), share, 1.0)
    mixed = _blend(share[:, None, None, None], batch["image"])
    return batch | {"image": mixed, "label": _blend_labels(batch, share, num_classes)}


def cutmix(
    keys: jax.Array,
    batch: Batch,
    *,
    alpha: float = 1.0,
    probability: float = 1.0,
    num_classes: int | None = None,
) -> Batch:
    """A rectangle of the partner's image in the example's (Yun et al. 2019, equations 1 and 2).

    The rectangle has the image's shape, its centre is any point, and what reaches over the edge is
    cut off. Labels are mixed by the areas that are seen.

    Args:
        keys: one for each example.
        batch: "image" and "label", see `augmentation`; rows of "weight" 0 are no partners.
        alpha: the example's share before cutting off is drawn from Beta(alpha, alpha).
        probability: of a rectangle at all.
        num_classes: K, needed where labels are integers.

    Returns:
        The batch with its images mixed and its labels floats (B, K).

    Raises:
        InputError: for an odd number of examples, labels that cannot be mixed, boxes or landmarks.
    """
    height, width = batch["image"].shape[1:3]
    size = jnp.array([height, width])

    def cut(key: jax.Array) -> jax.Array:
        share_key, place_key, done_key = jax.random.split(key, 3)
        share = jax.random.beta(share_key, alpha, alpha)
        share = jnp.where(jax.random.bernoulli(done_key, probability), share, 1.0)
        sides = jnp.round(size * jnp.sqrt(1 - share)).astype(jnp.int32)
        start = jax.random.randint(place_key, (2,), 0, size) - sides // 2
        return rectangle(height, width, start, start + sides)

    covered = jax.vmap(cut)(keys) & _paired(batch)[:, None, None]
    share = 1 - covered.mean((1, 2))
    mixed = jnp.where(covered[..., None], partners(batch["image"]), batch["image"])
    return batch | {"image": mixed, "label": _blend_labels(batch, share, num_classes)}


def partners(rows: jax.Array) -> jax.Array:
    """For each example at hand the row of the example half a global batch away.

    Args:
        rows: (B, ...), what is at hand of them.

    Raises:
        InputError: when their number is odd.
    """
    axis = parallel.axis_name()
    everything = rows if axis is None else jax.lax.all_gather(rows, axis, tiled=True)
    count = len(everything)
    if count % 2:
        raise InputError(
            f"mixup and cutmix pair the examples of a batch and cannot pair {count}; make the "
            "batch size divided by the micro-batches of accumulation even"
        )
    turned = jnp.roll(everything, count // 2, 0)
    if axis is None:
        return turned
    return jax.lax.dynamic_slice_in_dim(turned, jax.lax.axis_index(axis) * len(rows), len(rows))


def soft_labels(labels: jax.Array, num_classes: int | None) -> jax.Array:
    """Labels as the probabilities of the classes, float32 (B, K).

    Args:
        labels: integers (B,), or floats (B, K), which stay.
        num_classes: K, needed where labels are integers.

    Raises:
        InputError: when the number of classes is not known.
    """
    if labels.ndim == 2:
        return labels.astype(jnp.float32)
    if num_classes is None:
        raise InputError("mixup and cutmix make soft labels of integers; say num_classes")
    return jax.nn.one_hot(labels, num_classes)


def _blend(share: jax.Array, rows: jax.Array) -> jax.Array:
    return share * rows + (1 - share) * partners(rows)


def _blend_labels(batch: Batch, share: jax.Array, num_classes: int | None) -> jax.Array:
    alone = sorted({"boxes", "landmarks"} & batch.keys())
    if alone or "label" not in batch:
        raise InputError(
            f"mixup and cutmix mix labels and have no rule for {alone or 'examples without them'}; "
            "use cutout to hide parts of images"
        )
    return _blend(share[:, None], soft_labels(batch["label"], num_classes))


def _paired(batch: Batch) -> jax.Array:
    """Bools (B,), false where the partner only pads the batch."""
    if "weight" not in batch:
        return jnp.ones(len(batch["image"]), bool)
    return partners(batch["weight"]) > 0
