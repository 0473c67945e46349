"""Operations of detection, ours and torchvision's, and trained detectors, each as a step for
`contenders`.
"""

import numpy as np
from contenders import Step

PICTURES = 8


def candidates(count: int, objects: int, classes: int) -> tuple[np.ndarray, ...]:
    """Boxes (count, 4) in form "corners", scores and labels: around objects, or anywhere for 0."""
    rng = np.random.default_rng(0)
    places = rng.uniform(50, 450, (objects or count, 2))
    sides = rng.uniform(30, 100, (objects or count, 2))
    chosen = rng.integers(objects, size=count) if objects else np.arange(count)
    middle = places[chosen] + rng.normal(0, 6, (count, 2))
    half = sides[chosen] * np.exp(rng.normal(0, 0.15, (count, 2))) / 2
    boxes = np.concatenate([middle - half, middle + half], 1).astype(np.float32)
    return boxes, rng.uniform(size=count).astype(np.float32), rng.integers(classes, size=count)


def our_suppression(count: int, objects: int, classes: int) -> Step:
    """The best 100 of one picture; per class where there are several."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.models.detection import suppress

    runtime.configure()
    boxes, scores, labels = candidates(count, objects, classes)
    arrays = [jnp.asarray(x)[None] for x in (boxes, scores, labels.astype(np.int32))]

    def step() -> None:
        jax.block_until_ready(suppress(*arrays, iou_threshold=0.5, most=100, per_class=classes > 1))

    return step


def their_suppression(count: int, objects: int, classes: int) -> Step:
    """The same by `nms`, or `batched_nms` for several classes."""
    import torch
    from torchvision import ops

    boxes, scores, labels = map(torch.tensor, candidates(count, objects, classes))

    def step() -> None:
        if classes > 1:
            kept = ops.batched_nms(boxes, scores, labels, 0.5)
        else:
            kept = ops.nms(boxes, scores, 0.5)
        kept = kept[:100]
        _ = boxes[kept], scores[kept], labels[kept]

    return step


def maps(side: int, channels: int, regions: int) -> tuple[np.ndarray, np.ndarray]:
    """A map (B, side, side, channels) with cells of 8 pixels, and boxes (B, regions, 4)."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 6 * side, (PICTURES, regions, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 6 * side, low.shape)], -1)
    features = rng.normal(size=(PICTURES, side, side, channels))
    return features.astype(np.float32), boxes.astype(np.float32)


def our_regions(kind: str, side: int, channels: int, regions: int, *, gradient: bool) -> Step:
    """7 x 7 bins of each box."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.nn import regions as ours

    runtime.configure()
    features, boxes = map(jnp.asarray, maps(side, channels, regions))
    pool = {"align": ours.roi_align, "pool": ours.roi_pool}[kind]

    def loss(features: jax.Array) -> jax.Array:
        return (pool(features, boxes, stride=8) ** 2).sum()

    function = jax.jit(jax.grad(loss) if gradient else lambda x: pool(x, boxes, stride=8))

    def step() -> None:
        jax.block_until_ready(function(features))

    return step


def their_regions(kind: str, side: int, channels: int, regions: int, *, gradient: bool) -> Step:
    """The same by torchvision, whose images are (B, C, H, W)."""
    import torch
    from torchvision import ops

    features, boxes = map(torch.tensor, maps(side, channels, regions))
    features = features.movedim(-1, 1).contiguous().requires_grad_(gradient)
    rows = list(boxes[..., [1, 0, 3, 2]])

    def pool() -> torch.Tensor:
        if kind == "align":
            return ops.roi_align(features, rows, (7, 7), 1 / 8, 2, aligned=True)
        return ops.roi_pool(features, rows, (7, 7), 1 / 8)

    def step() -> None:
        y = pool()
        if gradient:
            torch.autograd.grad((y**2).sum(), features)

    return step


def trained_detector(workdir: str) -> Step:
    """Takes one picture after the other to its detections, and searches its candidates first."""
    import dlcore
    from dlcore.data.detection import load_detection

    trained = dlcore.load(workdir)
    data = load_detection("digit_scenes", image_size=trained.task.info.image_shape[0])
    images = data.test.gather(np.arange(64))["image"]
    number = 0

    def step() -> None:
        nonlocal number
        trained.task.found(trained.variables, images[number : number + 1])
        number = (number + 1) % len(images)

    return step
