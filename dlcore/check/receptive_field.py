"""Computes receptive fields in three ways: in closed form, from the graph, and by gradients."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import choose
from dlcore.plan.walk import ApplyFn, walk
from dlcore.types import Variables

Box = tuple[tuple[int, int], ...]


def receptive_field(
    sizes: Sequence[int], *, strides: Sequence[int], dilations: Sequence[int] | None = None
) -> int:
    """Returns the receptive field of a chain of windows along one axis, in pixels.

    R = 1 + sum_j D_j (F_j - 1) prod_{i<j} S_i, with all D_j = 1 unless given (Araujo et al. 2019).

    Args:
        sizes: F_j, the window or filter sizes in order of execution.
        strides: S_j, the strides.
        dilations: D_j, the dilations.

    Raises:
        ValueError: when the sequences differ in length.

    >>> receptive_field([3, 3], strides=[1, 1])
    5
    """
    field, jump = 1, 1
    for size, stride, dilation in zip(sizes, strides, dilations or [1] * len(sizes), strict=True):
        field += dilation * (size - 1) * jump
        jump *= stride
    return field


def centre(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the index of the central unit: example 0, the middle of each axis, feature 0.

    >>> centre((4, 7, 8, 3))
    (0, 3, 4, 0)
    """
    return (0, *(extent // 2 for extent in shape[1:-1]), 0)


def expected_boxes(
    apply_fn: ApplyFn, variables: Variables, inputs: jax.Array | jax.ShapeDtypeStruct
) -> dict[str, Box]:
    """Finds from the graph the input pixels that each activation's central unit can depend on.

    Args:
        apply_fn: (variables, images) -> (logits, activations by name), in evaluation mode.
        variables: arrays or ShapeDtypeStructs.
        inputs: array or ShapeDtypeStruct (B, spatial axes..., C).

    Returns:
        For each activation the half-open interval of pixels along each spatial axis, clipped to the
        image. Activations that do not depend on the input are left out.
    """
    _, shapes = jax.eval_shape(apply_fn, variables, inputs)
    _, (_, activations) = walk(apply_fn, variables, inputs)
    boxes = {}
    for name, fields in activations.items():
        if fields is None:
            continue
        intervals = [field.interval(centre(shapes[name].shape)) for field in fields]
        boxes[name] = tuple(
            (max(start, 0), min(end, extent))
            for (start, end), extent in zip(intervals, inputs.shape[1:-1], strict=True)
        )
    return boxes


def measured_receptive_field(
    apply_fn: ApplyFn,
    variables: Variables,
    shape: Sequence[int],
    *,
    activation: str,
    key: jax.Array,
    draws: int = 16,
) -> Box:
    """Measures the input pixels with a gradient from the central unit of an activation.

    They are collected over several random images, because a rectifier or a maximum hides some
    pixels in each. All features of the unit count, each multiplied by a random factor.

    Args:
        apply_fn: (variables, images float (B, H, W, C)) -> (logits, activations by name), in
            evaluation mode, so that the images of a batch do not interact.
        variables: the model's arrays.
        shape: the shape of one image, (spatial axes..., C).
        activation: the name of the activation.
        key: the key that draws the images.
        draws: the number of images.

    Returns:
        The half-open interval of pixels along each spatial axis; (0, 0) where no gradient arrives.

    Raises:
        InputError: when the model has no activation of this name.
    """
    image_key, factor_key = jax.random.split(key)
    images = jax.random.normal(image_key, (draws, *shape))
    _, shapes = jax.eval_shape(apply_fn, variables, images)
    if activation not in shapes:
        raise choose("activation", activation, shapes)
    unit = (slice(None), *centre(shapes[activation].shape)[1:-1])
    factors = jax.random.normal(factor_key, shapes[activation].shape[-1:])

    @jax.jit
    def gradient(variables: Variables, images: jax.Array) -> jax.Array:
        def response(images: jax.Array) -> jax.Array:
            return jnp.sum(apply_fn(variables, images)[1][activation][unit] @ factors)

        return jax.grad(response)(images)

    reached = np.any(np.asarray(gradient(variables, images)) != 0, axis=(0, -1))
    return tuple(_interval(reached, axis) for axis in range(reached.ndim))


def _interval(reached: np.ndarray, axis: int) -> tuple[int, int]:
    others = tuple(a for a in range(reached.ndim) if a != axis)
    positions = np.flatnonzero(reached.any(axis=others))
    return (int(positions[0]), int(positions[-1]) + 1) if positions.size else (0, 0)
