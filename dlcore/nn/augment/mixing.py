"""Augmentation that mixes each example and its label with another example of the global batch.

The partner of position p is position p + B/2 (modulo B); batches are shuffled, so this is a random
example. The rule holds in every layout. Of a micro-batches, the i-th holds the rows i, i + a,
i + 2a, ...; where their number is even, a divides B/2, and the partner lies half the micro-batch
away. Under pmap the devices fetch their partners from one another. Shapes: B global batch, H W
image, C channels, K classes; under pmap or accumulation the functions see a part of the B rows.
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
    """Mixes images and labels to share * example + (1 - share) * partner (Zhang et al. 2018).

    Args:
        keys: one key for each example.
        batch: "image" and "label", see `augmentation`; rows of "weight" 0 are never partners.
        alpha: each example draws its share from Beta(alpha, alpha).
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
    """Pastes a rectangle of the partner's image into the example's (Yun et al. 2019, eq. 1 and 2).

    The rectangle has the image's aspect ratio, its centre is any point, and the image's edge cuts
    it off. The visible areas weigh the labels.

    Args:
        keys: one key for each example.
        batch: "image" and "label", see `augmentation`; rows of "weight" 0 are never partners.
        alpha: each example draws its share, before cutting off, from Beta(alpha, alpha).
        probability: the probability that an example gets a rectangle at all.
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
        sides = jnp.round(size.astype(share.dtype) * jnp.sqrt(1 - share)).astype(jnp.int32)
        start = jax.random.randint(place_key, (2,), 0, size) - sides // 2
        return rectangle(height, width, start, start + sides)

    covered = jax.vmap(cut)(keys) & _paired(batch)[:, None, None]
    share = 1 - covered.mean((1, 2))
    mixed = jnp.where(covered[..., None], partners(batch["image"]), batch["image"])
    return batch | {"image": mixed, "label": _blend_labels(batch, share, num_classes)}


def partners(rows: jax.Array, part: int = 1, parts: int = 2) -> jax.Array:
    """Returns for each row its partner, the row a part (such as half) of the global batch away.

    Args:
        rows: (B, ...), or this device's part of them.
        part: the distance of the partner, in parts of the batch.
        parts: the number of parts that make up the batch; partners form sets of this many rows.

    Raises:
        InputError: when the number of rows is not a multiple of the parts.

    >>> partners(jnp.array([1, 2, 3, 4])).tolist()
    [3, 4, 1, 2]
    """
    axis = parallel.axis_name()
    everything = rows if axis is None else jax.lax.all_gather(rows, axis, tiled=True)
    count = len(everything)
    if count % parts:
        raise InputError(
            f"mixup and cutmix pair the examples of a batch and cannot pair {count}; make the "
            "batch size divided by the micro-batches of accumulation even"
            if parts == 2
            else f"mosaic takes {parts} examples of a batch at a time, which cannot be done with "
            f"{count}; make the batch size divided by the micro-batches of accumulation a multiple "
            f"of {parts}"
        )
    turned = jnp.roll(everything, -part * (count // parts), 0)
    if axis is None:
        return turned
    return jax.lax.dynamic_slice_in_dim(turned, jax.lax.axis_index(axis) * len(rows), len(rows))


def soft_labels(labels: jax.Array, num_classes: int | None) -> jax.Array:
    """Returns labels as the probabilities of the classes, float32 (B, K).

    Args:
        labels: integers (B,), or floats (B, K), which stay as they are.
        num_classes: K, needed where labels are integers.

    Raises:
        InputError: for integers without the number of classes.
    """
    if labels.ndim == 2:
        return labels.astype(jnp.float32)
    if num_classes is None:
        raise InputError("mixup and cutmix make soft labels of integers; give num_classes")
    return jax.nn.one_hot(labels, num_classes)


def _blend(share: jax.Array, rows: jax.Array) -> jax.Array:
    return share * rows + (1 - share) * partners(rows)


def _blend_labels(batch: Batch, share: jax.Array, num_classes: int | None) -> jax.Array:
    alone = sorted({"boxes", "landmarks"} & batch.keys())
    if alone or "label" not in batch:
        raise InputError(
            f"mixup and cutmix mix labels and have no rule for {alone or 'examples without them'}; "
            "use cutout to hide parts of images, or mosaic for boxes"
        )
    return _blend(share[:, None], soft_labels(batch["label"], num_classes))


def _paired(batch: Batch) -> jax.Array:
    """Returns bools (B,), false where the partner only pads the batch."""
    if "weight" not in batch:
        return jnp.ones(len(batch["image"]), bool)
    return partners(batch["weight"]) > 0
