"""The systems of the detection job, by name, and their options."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number
from dlcore.launch.options import parse_options
from dlcore.models import image_spec
from dlcore.models.detection import landmarks
from dlcore.models.detection.body import Body, make_body
from dlcore.models.detection.detector import BOX_LOSSES, Decoding
from dlcore.models.detection.landmarks import LandmarkNet
from dlcore.models.detection.localizer import Localizer
from dlcore.models.detection.suppression import COMPARISONS
from dlcore.models.detection.yolo import YOLOv1, YOLOv2

_YOLO = ("yolo_v1", "yolo_v2")
# Those that have anchors fitted to the data.
WITH_ANCHORS = ("yolo_v2", "faster_rcnn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemGroup(launch.Group):
    """Detectors of one stage."""

    title = "Detector"

    hidden: int = integer(
        128,
        1,
        LARGEST,
        "units of the dense layer, or filters of the convolution, between body and output",
    )
    grid: int = integer(7, 1, 1024, "cells along a side", when={"model": ("yolo_v1",)})
    predictors: int = integer(2, 1, 100, "boxes of a cell", when={"model": ("yolo_v1",)})
    dropout: float = number(
        0.5, 0, 1, "share of the hidden units dropped", below=True, when={"model": ("yolo_v1",)}
    )
    passthrough: int = integer(
        16,
        0,
        LARGEST,
        "filters of a second map of half the stride that the detector also reads; 0 for none",
        when={"model": ("localizer", "landmarks", "yolo_v2")},
    )
    anchors: int = integer(
        5, 1, 100, "shapes fitted to the training boxes", when={"model": WITH_ANCHORS}
    )
    box_loss: str = choice(
        "squares",
        BOX_LOSSES,
        "loss of a box: squared errors, or 1 minus this overlap",
        when={"model": ("localizer", "yolo_v2")},
    )
    box_weight: float | None = number(
        None,
        0,
        LARGEST_NUMBER,
        "weight of boxes in the loss; default 1 for yolo_v2, else 5",
        when={"model": ("localizer", *_YOLO)},
    )
    object_weight: float = number(
        5, 0, LARGEST_NUMBER, "weight of scores of objects", when={"model": ("yolo_v2",)}
    )
    background_weight: float | None = number(
        None,
        0,
        LARGEST_NUMBER,
        "weight of scores of the background; default 1 for yolo_v2, 0.5 for yolo_v1",
        when={"model": _YOLO},
    )
    focal: float = number(
        0, 0, 10, "exponent of the focal loss of scores", when={"model": ("yolo_v2",)}
    )
    scales: float = number(
        0,
        0,
        1,
        "share by which the side of training pictures varies; it changes every ten steps",
        below=True,
        when={"model": ("yolo_v2",)},
    )
    form: str = choice(
        "soft_argmax",
        landmarks.FORMS,
        "how landmarks are predicted",
        when={"model": ("landmarks",)},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingGroup(launch.Group):
    """How detections are made of what a network says."""

    title = "Detections"
    group_conditions = {}

    score_threshold: float = number(0.001, 0, 1, "score that a detection must pass", free=True)
    iou_threshold: float = number(
        0.5, 0, 1, "overlap at which the weaker of two boxes of a class is removed", free=True
    )
    comparison: str = choice(">", COMPARISONS, "how both thresholds are compared", free=True)
    most: int = integer(100, 1, 10_000, "largest number of detections of a picture", free=True)

    def decoding(self) -> Decoding:
        """Returns the decoding of the configuration."""
        return Decoding(
            self.score_threshold,
            self.iou_threshold,
            self.comparison,  # type: ignore[arg-type]
            most=self.most,
        )


class Setting(NamedTuple):
    """What the data settles of a system.

    Attributes:
        num_classes: of the data.
        num_landmarks: of each object.
        image_shape: (S, S, C).
        shapes: float [k, 2], the anchors; none where a system has no anchors.
    """

    num_classes: int
    num_landmarks: int
    image_shape: tuple[int, int, int]
    shapes: np.ndarray


def network_of(config: Any) -> nn.Module:
    """Returns the classifier that the body of a configuration is of.

    Raises:
        InputError: for an option that the model does not have.
    """
    build = image_spec(config.body).build
    return build(num_classes=1, **parse_options(config.body, build, config.option))


def body_of(
    config: Any, image_shape: tuple[int, int, int], strides: tuple[int, ...] | None = None
) -> Body:
    """Returns the body of a configuration, for pictures of a shape.

    It gives the maps of these strides, by default the one of --stride.

    Raises:
        InputError: for an option that the model does not have, and one without such a map.
    """
    options = parse_options(config.body, image_spec(config.body).build, config.option)
    return make_body(config.body, strides or (config.stride,), image_shape, **options)[0]


def _strides(config: Any) -> tuple[int, ...]:
    """Returns the strides of the maps that a model with --passthrough reads.

    Raises:
        InputError: for a stride that has no half.
    """
    if not config.passthrough:
        return (config.stride,)
    if config.stride < 2:
        raise InputError(
            f"--passthrough={config.passthrough} needs a map of half of --stride={config.stride}; "
            "give a larger stride, or --passthrough=0"
        )
    return config.stride // 2, config.stride


def _given(config: Any, *names: str) -> dict[str, Any]:
    """Returns the values of fields that are given; those of None are the system's own defaults."""
    values = {name: getattr(config, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _localizer(config: Any, setting: Setting) -> nn.Module:
    return Localizer(
        body_of(config, setting.image_shape, _strides(config)),
        setting.num_classes,
        hidden=config.hidden,
        passthrough=config.passthrough,
        decoding=dataclasses.replace(config.decoding(), most=1),
        **_given(config, "box_loss", "box_weight"),
    )


def _landmarks(config: Any, setting: Setting) -> nn.Module:
    if not setting.num_landmarks:
        raise InputError("--model=landmarks needs landmarks, and the data has none")
    return LandmarkNet(
        body_of(config, setting.image_shape, _strides(config)),
        setting.num_landmarks,
        form=config.form,
        hidden=config.hidden,
        passthrough=config.passthrough,
    )


def _yolo_v1(config: Any, setting: Setting) -> nn.Module:
    return YOLOv1(
        body_of(config, setting.image_shape),
        setting.num_classes,
        decoding=config.decoding(),
        **_given(config, "grid", "predictors", "hidden", "dropout"),
        **_given(config, "box_weight", "background_weight"),
    )


def _yolo_v2(config: Any, setting: Setting) -> nn.Module:
    return YOLOv2(
        body_of(config, setting.image_shape, _strides(config)),
        setting.num_classes,
        shapes=tuple((float(height), float(width)) for height, width in setting.shapes),
        stride=config.stride,
        features=config.hidden,
        passthrough=config.passthrough,
        decoding=config.decoding(),
        **_given(config, "box_loss", "box_weight", "object_weight", "background_weight", "focal"),
    )


# Each makes a Linen module with `losses` and `detect` (`dlcore.models.detection.detector`).
SYSTEMS: dict[str, Callable[[Any, Setting], nn.Module]] = {
    "localizer": _localizer,
    "landmarks": _landmarks,
    "yolo_v1": _yolo_v1,
    "yolo_v2": _yolo_v2,
}
