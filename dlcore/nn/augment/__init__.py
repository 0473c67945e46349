"""Augmentation on the device: pure, keyed functions that run inside the compiled step.

`augmentation("flip,crop:4,cutout:8,mixup:0.2")` combines several steps into one function
(key, batch) -> batch. The steps are in `geometry` (maps between pixels, which `warp` applies to
images, boxes and landmarks), `colour`, `mixing`, `rand` (RandAugment) and, for detection, `mosaic`.
The draws of an example depend on the batch's key and on the example's position in the global batch
alone, so that every layout, gradient accumulation and a resumed run see the same batch.
"""

from dlcore.nn.augment.colour import principal_colours
from dlcore.nn.augment.compose import (
    OF_ONE_PICTURE,
    STEPS,
    Augment,
    augmentation,
    augmentation_of_one,
)
from dlcore.nn.augment.warp import warp_boxes, warp_images, warp_landmarks

__all__ = [
    "OF_ONE_PICTURE",
    "STEPS",
    "Augment",
    "augmentation",
    "augmentation_of_one",
    "principal_colours",
    "warp_boxes",
    "warp_images",
    "warp_landmarks",
]
