"""Data for detection: pictures with boxes, and with landmarks where there are any.

`load_detection` reads the embedded digit scenes, prepared data sets of TFDS and users' own files in
the layouts of Pascal VOC (`voc`), COCO (`coco`) and YOLO (`yolo`) as one kind of object; `objects`
has the rules for annotations with faults.
"""

from dlcore.data.detection.objects import PictureId
from dlcore.data.detection.scenes import (
    DetectionData,
    fit_letterbox,
    load_detection,
    read_squares,
)

__all__ = ["DetectionData", "PictureId", "fit_letterbox", "load_detection", "read_squares"]
