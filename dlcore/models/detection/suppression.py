"""Non-max suppression with fixed sizes, inside of a compiled function.

Shapes: B pictures, N candidate boxes of each, M detections of each. Boxes are (..., 4) in form
"corners" (see `dlcore.boxes`). One comparison applies to both thresholds. Under ">" a candidate
counts if its score > the threshold, and drops a weaker one if their IoU > the threshold, as in the
usual libraries; under ">=" values exactly at a threshold count too, as in the form with the score
0.6 and the IoU 0.5 that courses teach.
"""

import functools
import operator
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from dlcore import boxes as geometry
from dlcore import errors

Comparison = Literal[">", ">="]
Decay = Literal["linear", "gaussian"]

COMPARISONS: dict[str, Callable[..., jax.Array]] = {">": operator.gt, ">=": operator.ge}
# What the score of a candidate of this IoU with a chosen one is multiplied by. Shapes: IoU,
# whether it reaches the threshold, sigma.
DECAYS: dict[str, Callable[[jax.Array, jax.Array, float], jax.Array]] = {
    "linear": lambda iou, reached, sigma: jnp.where(reached, 1 - iou, 1),
    "gaussian": lambda iou, reached, sigma: jnp.exp(-(iou**2) / sigma),
}
_BLOCK = 32  # candidates that are decided at once


class Detections(NamedTuple):
    """The detections in each of B pictures, the best first.

    Attributes:
        boxes: (B, M, 4) in form "corners", in pixels.
        scores: (B, M).
        labels: int32 (B, M), from 0.
        mask: bool (B, M), false for unused entries, whose other values are 0.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    mask: jax.Array


@functools.partial(
    jax.jit,
    static_argnames=(
        "score_threshold",
        "iou_threshold",
        "comparison",
        "most",
        "candidates",
        "per_class",
    ),
)
def suppress(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    *,
    score_threshold: float = -float("inf"),
    iou_threshold: float = 0.5,
    comparison: Comparison = ">",
    most: int = 100,
    candidates: int | None = None,
    per_class: bool = True,
) -> Detections:
    """Keeps the best of the boxes that overlap: greedy non-max suppression.

    The candidate with the best score is kept and drops the weaker ones that overlap it, then the
    best of the rest does the same, and so on. Of equal scores, the lower index is the better one.

    The loop takes the best waiting candidates in blocks, so that the time depends on how many are
    kept. Within a block all start as kept, and rounds apply the rule that a candidate is kept if no
    kept one drops it; after round n the best n are decided, so that the rounds end in the result of
    the greedy loop, usually after a handful. Then the kept ones drop candidates that wait behind
    them.

    Args:
        boxes: the boxes (B, N, 4).
        scores: (B, N); candidates with score -inf or NaN never count.
        labels: int32 (B, N).
        score_threshold: the threshold that a score must pass.
        iou_threshold: the overlap at which the weaker box is dropped.
        comparison: ">" or ">=", for both thresholds.
        most: M, the number of detections that each picture has room for.
        candidates: the number of best-scored boxes of each picture that take part; by default all.
        per_class: whether boxes drop only boxes with their own label.

    Raises:
        InputError: for an unknown comparison.

    >>> boxes = jnp.array([[[0.0, 0, 4, 4], [0, 1, 4, 5], [0, 2, 4, 6]]])
    >>> labels = jnp.zeros((1, 3), jnp.int32)
    >>> suppress(boxes, jnp.array([[0.7, 0.9, 0.8]]), labels, most=2).scores.tolist()
    [[0.8999999761581421, 0.0]]
    """
    reaches = errors.pick("comparison", comparison, COMPARISONS)
    scores = _playing(scores, score_threshold, reaches)
    if candidates is not None and candidates < scores.shape[1]:
        scores, order = jax.lax.top_k(scores, candidates)
        boxes, labels = _taken((boxes, labels), order)

    def drops(some: tuple[jax.Array, jax.Array], others: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Which of some boxes and labels (B, I) would drop which others (B, J): (B, I, J)."""
        overlap = geometry.pairwise(geometry.iou, some[0], others[0])
        dropped = reaches(overlap, iou_threshold)
        return dropped & (some[1][:, :, None] == others[1][:, None]) if per_class else dropped

    scores = jnp.where(_undropped(drops, boxes, scores, labels, most), scores, -jnp.inf)
    best, order = jax.lax.top_k(scores, min(most, scores.shape[1]))
    boxes, labels = _taken((boxes, labels), order)
    return _filled(boxes, best, labels, most)


@functools.partial(
    jax.jit,
    static_argnames=(
        "decay",
        "score_threshold",
        "iou_threshold",
        "sigma",
        "comparison",
        "most",
        "per_class",
    ),
)
def soft_suppress(
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    *,
    decay: Decay = "gaussian",
    score_threshold: float = 0.001,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    comparison: Comparison = ">",
    most: int = 100,
    per_class: bool = True,
) -> Detections:
    """Lowers the scores of boxes that overlap a better one: soft-NMS (Bodla et al. 2017).

    Each step takes the candidate with the best score, and multiplies the scores of the others by
    1 - IoU where the IoU reaches the threshold ("linear"), or by exp(-IoU^2 / sigma) ("gaussian").
    There is one step for each of the M detections.

    Args:
        boxes: (B, N, 4).
        scores: (B, N), not negative; candidates of score -inf or NaN never count.
        labels: int32 (B, N).
        decay: "linear" or "gaussian".
        score_threshold: the threshold that a score must pass, before and after it is lowered.
        iou_threshold: the threshold of the linear decay.
        sigma: the sigma of the Gaussian decay.
        comparison: ">" or ">=", for both thresholds.
        most: M.
        per_class: whether boxes lower only the scores of boxes with their own label.

    Returns:
        The detections with their lowered scores.

    Raises:
        InputError: for an unknown comparison or decay.
    """
    reaches = errors.pick("comparison", comparison, COMPARISONS)
    lower = errors.pick("decay", decay, DECAYS)
    scores = _playing(scores, score_threshold, reaches)
    places = jnp.arange(scores.shape[1], dtype=jnp.int32)

    def step(scores: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        best = jnp.argmax(scores, axis=-1, keepdims=True)  # the first of equals
        box, score, label = _taken((boxes, scores, labels), best)
        iou = geometry.iou(box, boxes)
        factor = lower(iou, reaches(iou, iou_threshold), sigma)
        factor = jnp.where(labels == label, factor, 1) if per_class else factor
        scores = jnp.where(places[None] == best, -jnp.inf, scores * factor)
        # What is out of play stays there: -inf * 0 would be NaN.
        return _playing(scores, score_threshold, reaches), (best[:, 0], score[:, 0])

    _, (order, lowered) = jax.lax.scan(step, scores, None, min(most, scores.shape[1]))
    order, lowered = order.T, lowered.T
    boxes, labels = _taken((boxes, labels), order)
    return _filled(boxes, lowered, labels, most)


def _playing(scores: jax.Array, threshold: float, reaches: Callable[..., jax.Array]) -> jax.Array:
    """Returns the scores (B, N) of candidates that count, and -inf for the others."""
    counts = reaches(scores, threshold) & (scores > -jnp.inf)
    return jnp.where(counts, scores, -jnp.inf)


def _undropped(
    drops: Callable[..., jax.Array],
    boxes: jax.Array,
    scores: jax.Array,
    labels: jax.Array,
    most: int,
) -> jax.Array:
    """Returns which boxes (B, N, 4) with scores above -inf are kept, at least the best `most`."""
    size = min(_BLOCK, scores.shape[1])
    earlier = jnp.triu(jnp.ones((size, size), bool), 1)[None]
    picture = jnp.arange(len(scores), dtype=jnp.int32)[:, None]

    def go_on(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        waiting, kept = state
        return ((waiting > -jnp.inf).any(1) & (kept.sum(1) < most)).any()

    def block(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        waiting, kept = state
        # Of equals, `top_k` takes the lower index first.
        best, order = jax.lax.top_k(waiting, size)
        one = _taken((boxes, labels), order)
        winners = _rounds(drops(one, one) & earlier, best > -jnp.inf)
        dropped = (drops(one, (boxes, labels)) & winners[:, :, None]).any(1)
        waiting = jnp.where(dropped, -jnp.inf, waiting).at[picture, order].set(-jnp.inf)
        return waiting, kept.at[picture, order].max(winners)

    return jax.lax.while_loop(go_on, block, (scores, jnp.zeros(scores.shape, bool)))[1]


def _rounds(drops: jax.Array, playing: jax.Array) -> jax.Array:
    """Returns which of I boxes (B, I) in play are kept, given which drop later ones, (B, I, I)."""

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        new = playing & ~(drops & kept[:, :, None]).any(1)
        return new, (new != kept).any()

    return jax.lax.while_loop(lambda state: state[1], again, (playing, playing.any()))[0]


def _filled(boxes: jax.Array, scores: jax.Array, labels: jax.Array, most: int) -> Detections:
    """Returns M detections from at most M sorted candidates, ignoring those of score -inf."""
    mask = scores > -jnp.inf

    def fill(x: jax.Array) -> jax.Array:
        real = jnp.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, jnp.zeros((), x.dtype))
        return jnp.pad(real, ((0, 0), (0, most - x.shape[1])) + ((0, 0),) * (x.ndim - 2))

    return Detections(fill(boxes), fill(scores), fill(labels), fill(mask))


def _taken(arrays: tuple[jax.Array, ...], order: jax.Array) -> tuple[jax.Array, ...]:
    """Returns rows of arrays (B, N, ...) by indices (B, M)."""
    return tuple(
        jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)
        for x in arrays
    )
