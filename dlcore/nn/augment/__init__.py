"""Augmentation on the device: pure, keyed functions that run inside the compiled step.

`augmentation("flip,crop:4,cutout:8,mixup:0.2")` combines several steps into one function
(key, batch) -> batch. The steps are in `geometry` (maps between pixels, which `warp` applies to
images, boxes and landmarks), `colour` and `mixing`. The draws of an example depend on the batch's
key and on the example's position in the global batch alone, so that every layout, gradient
accumulation and a resumed run see the same batch.
"""

from dlcore.nn.augment.colour import principal_colours as principal_colours
from dlcore.nn.augment.compose import STEPS as STEPS
from dlcore.nn.augment.compose import Augment as Augment
from dlcore.nn.augment.compose import augmentation as augmentation
from dlcore.nn.augment.warp import warp_boxes as warp_boxes
from dlcore.nn.augment.warp import warp_images as warp_images
from dlcore.nn.augment.warp import warp_landmarks as warp_landmarks
