"""Combines several augmentations, read from a short text, into one function."""

import functools
import inspect
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError, choose
from dlcore.nn.augment import colour, geometry, mixing, mosaic, rand
from dlcore.nn.augment.mixing import Batch
from dlcore.nn.augment.warp import (
    Fill,
    computed_once,
    warp_boxes,
    warp_images,
    warp_landmarks,
)
from dlcore.parallel import row_keys

# Maps a key and a batch to the augmented batch.
Augment = Callable[[jax.Array, Batch], Batch]
# Maps return a matrix, colours and erasers an image, mixers a batch.
Step = Callable[..., Any]

# The stages, in the order in which they run: all maps share one interpolation, no later step
# changes the values that an eraser leaves, and mixing sees finished images. A name in two stages is
# one step with a part in each, which draw from the same key.
MAPS: dict[str, Step] = {
    "flip": geometry.flip,
    "crop": geometry.crop,
    "resized_crop": geometry.resized_crop,
    "rotate": geometry.rotate,
    "scale": geometry.scale,
    "affine": geometry.affine,
    "object_crop": geometry.object_crop,
    "randaugment": rand.rand_map,
}
# The maps that neither turn nor shear.
_AXIS_ALIGNED = {"flip", "crop", "resized_crop", "scale", "object_crop"}
COLOURS: dict[str, Step] = {
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "saturation": colour.saturation,
    "hue": colour.hue,
    "lighting": colour.lighting,
    "noise": colour.noise,
    "randaugment": rand.rand_colours,
}
ERASERS: dict[str, Step] = {"cutout": colour.cutout}
MIXERS: dict[str, Step] = {"mixup": mixing.mixup, "cutmix": mixing.cutmix, "mosaic": mosaic.mosaic}
# All steps of augmentation by name: maps, colours, erasers and mixers.
STEPS = MAPS | COLOURS | ERASERS | MIXERS
# Those that take one picture, and no boxes.
OF_ONE_PICTURE = tuple(sorted({*STEPS} - {*MIXERS, "object_crop"}))

# The options that a text can give to steps, and their least and largest values.
RANGES: dict[str, tuple[float, float]] = {
    "probability": (0, 1),
    "padding": (0, 10_000),
    "smallest": (0.001, 1),
    "aspect": (1, 10),
    "degrees": (0, 180),
    "rotation": (0, 180),
    "factor": (1, 10),
    "stretch": (0, 2),
    "shear": (0, 2),
    "shift": (0, 1),
    "strength": (0, 1),
    "turn": (0, 0.5),
    "deviation": (0, 255),
    "size": (1, 10_000),
    "alpha": (0.01, 100),
    "visible": (0, 1),
    "zoom": (0.5, 1),
    "number": (1, len(rand.OPERATIONS)),
    "magnitude": (0, rand.LARGEST),
}


def augmentation(
    text: str,
    *,
    num_classes: int | None = None,
    colours: tuple[np.ndarray, np.ndarray] | None = None,
    fill: Fill = 0.0,
    pairs: Sequence[tuple[int, int]] = (),
    least_visible: float = 0.25,
) -> Augment:
    """Makes a function (key, batch) -> batch from a text like "flip,crop:4,cutout:8,mixup:0.2".

    Commas separate the steps. Each is a name of `STEPS` and, after colons, the values of its
    options in the order of its signature: "cutmix:1:0.5". Maps of all pixels run first, with one
    interpolation, then colours, then cutout, then mixing; within these stages the text's order
    counts. Each step draws from the key folded with its name, so that adding a step leaves the
    draws of the others unchanged. "none" or an empty text augments nothing.

    The batch is a dict with "image" (B, H, W, C) of 0..255 and any of the following; other entries
    pass unchanged.

    - "label": integers (B,) or probabilities (B, K). Mixing turns integers into probabilities.
    - "boxes" (B, N, 4), y_min, x_min, y_max, x_max in pixels, and "boxes_mask" (B, N), true for
      real boxes: see `warp_boxes`. "object_crop" needs boxes, and "mosaic" turns N of them into 4
      N, with their "labels", "difficult" and "crowd" (B, N).
    - "candidates" and "candidates_mask": further boxes, which move in the same way.
    - "landmarks" (B, M, 2), y, x in pixels, and "landmarks_mask" (B, M), true for visible ones:
      see `warp_landmarks`. Landmarks of boxes are (B, N, M, 2); where their box becomes padding,
      they are not visible.

    Pixel (i, j) covers [i, i + 1) x [j, j + 1). Cutout changes neither boxes nor landmarks.

    Args:
        text: the steps.
        num_classes: K, needed by mixing where labels are integers.
        colours: the result of `principal_colours` on the training images, needed by "lighting".
        fill: the values outside the image and in the square of cutout, one for all channels or one
            for each.
        pairs: landmarks that are each other's mirror images.
        least_visible: the share of a box that must be inside the image, or it becomes padding.

    Returns:
        A pure function that runs under jit; it returns the images as float32 (B, H, W, C).

    Raises:
        InputError: for unknown or repeated steps, and values that are not numbers or out of range.

    >>> flip = jax.jit(augmentation("flip:1"))
    >>> batch = {"image": jnp.array([[[[1.0], [2.0]]]]), "label": jnp.array([3])}
    >>> flip(jax.random.key(0), batch)["image"].tolist()
    [[[[2.0], [1.0]]]]
    """
    from_caller: dict[str, object] = {
        "num_classes": num_classes,
        "fill": fill,
        "least_visible": least_visible,
    }
    if colours is not None:
        from_caller |= {"eigenvalues": colours[0], "eigenvectors": colours[1]}
    steps = _parse(text)
    maps, tints, erasers, mixers = (
        [
            (name, _bound(name, stage[name], options, from_caller))
            for name, options in steps.items()
            if name in stage
        ]
        for stage in (MAPS, COLOURS, ERASERS, MIXERS)
    )

    axis_aligned = all(name in _AXIS_ALIGNED for name, _ in maps)

    def augment(key: jax.Array, batch: Batch) -> Batch:
        images = batch["image"].astype(jnp.float32)
        count, height, width = images.shape[:3]

        def keys_of(name: str) -> jax.Array:
            return row_keys(jax.random.fold_in(key, zlib.crc32(name.encode())), count)

        size = {"height": height, "width": width}

        def warped(name: str, whole: jax.Array) -> tuple[jax.Array, jax.Array]:
            return warp_boxes(
                batch[name], batch[f"{name}_mask"], whole, least_visible=least_visible, **size
            )

        def draw_map(name: str, step: Step, before: jax.Array | None) -> jax.Array:
            """Draws a map and returns it composed with those before it."""
            objects = _objects(name, step, batch)
            if objects and before is not None:
                objects = warped("boxes", before)
            drawn = jax.vmap(lambda own, *of: step(own, height, width, *of))(
                keys_of(name), *objects
            )
            return drawn if before is None else _compose(before, drawn)

        new = dict(batch)
        if maps:
            whole: jax.Array | None = None
            for name, step in maps:
                whole = draw_map(name, step, whole)
            assert whole is not None
            images = computed_once(warp_images(images, whole, fill=fill, axis_aligned=axis_aligned))
            for name in ("boxes", "candidates"):
                if name in batch:
                    new[name], new[f"{name}_mask"] = warped(name, whole)
            if "landmarks" in batch:
                new["landmarks"], new["landmarks_mask"] = warp_landmarks(
                    batch["landmarks"], batch["landmarks_mask"], whole, pairs=pairs, **size
                )
                if batch["landmarks"].ndim == 4:
                    there = new["boxes_mask"].astype(new["landmarks_mask"].dtype)
                    new["landmarks_mask"] *= there[..., None]
        for name, step in tints + erasers:
            images = computed_once(jax.vmap(step)(keys_of(name), images))
        new["image"] = images
        for name, step in mixers:
            new = step(keys_of(name), new)
        return new

    return augment


def _objects(name: str, step: Step, batch: Batch) -> tuple[jax.Array, ...]:
    """Returns the boxes of a batch and their mask for a step that needs them, else nothing."""
    if "boxes" not in inspect.signature(step).parameters:
        return ()
    if "boxes" not in batch:
        raise InputError(
            f"augmentation {name!r} needs boxes, which the examples do not have; leave it out; "
            "resized_crop needs none"
        )
    return batch["boxes"], batch["boxes_mask"].astype(bool)


def _compose(first: jax.Array, second: jax.Array) -> jax.Array:
    # Accelerators' default precision would round away whole pixels.
    return jnp.matmul(first, second, precision="highest")


def augmentation_of_one(text: str) -> Augment:
    """Returns `augmentation(text)` for pictures that must not be mixed with each other.

    Raises:
        InputError: for steps that mix pictures, and as for `augmentation`.
    """
    for name in _parse(text):
        if name in MIXERS:
            raise InputError(
                f"augmentation {text!r}: {name} mixes several pictures, which this job keeps "
                "apart; leave it out"
            )
    return augmentation(text)


def _parse(text: str) -> dict[str, dict[str, float]]:
    """Returns the options that a text gives to its steps, by the steps' names."""
    steps: dict[str, dict[str, float]] = {}
    items = [item.strip() for item in text.split(",")]
    for item in [] if items in (["none"], [""]) else items:
        name, *values = item.split(":")
        if name not in STEPS:
            raise choose("augmentation", name, STEPS)
        if name in steps:
            raise InputError(f"augmentation {name!r} is named twice in {text!r}; name it once")
        signature = inspect.signature(STEPS[name]).parameters
        options = {option: signature[option].default for option in signature if option in RANGES}
        if len(values) > len(options):
            raise InputError(
                f"augmentation {item!r} has {len(values)} values; {name} takes "
                f"{':'.join(options)}; leave out the rest"
            )
        steps[name] = {
            option: _number(item, option, value, type(default))
            for (option, default), value in zip(options.items(), values, strict=False)
        }
    return steps


def _bound(
    name: str, step: Step, options: dict[str, float], from_caller: dict[str, object]
) -> Step:
    """Returns a step with the options of the text and of the caller."""
    signature = inspect.signature(step).parameters
    if "eigenvalues" in signature and "eigenvalues" not in from_caller:
        raise InputError(
            f"augmentation {name!r} needs the principal colours of the training images; pass "
            "colours=principal_colours(images) or leave it out"
        )
    other = {option: from_caller[option] for option in signature if option in from_caller}
    return functools.partial(step, **options, **other)


def _number(item: str, option: str, value: str, kind: type) -> float:
    low, high = RANGES[option]
    try:
        number = kind(value)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(
            f"augmentation {item!r}: {option} is {value!r}; give {expected} from {low} to {high}"
        )
    return number
