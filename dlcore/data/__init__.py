"""Data: the embedded and prepared data sets, and the seekable loader that batches them.

A batch is a dict of NumPy arrays with one leading axis: {"image": uint8 [B, H, W, C], "label":
int32 [B], "weight": float32 [B]}. Where an image may have several labels, "label" is
float32 [B, K]; `DetectionData` describes batches for detection. A weight of 0 marks a row that is
padding. Nothing here imports JAX.

>>> import numpy as np
>>> from dlcore.data import Arrays, Loader
>>> split = Arrays({"image": np.zeros((6, 8, 8, 1), np.uint8), "label": np.arange(6)})
>>> loader = Loader(split, 4, seed=0)  # batch n is a function of the seed and n
>>> batch = loader.batch(12)
>>> batch["image"].shape, batch["weight"].tolist()
((4, 8, 8, 1), [1.0, 1.0, 1.0, 1.0])
"""

from dlcore.data.captions import CaptionData, Captioned, PictureTexts, load_captions
from dlcore.data.detection import DetectionData, load_detection
from dlcore.data.identities import IdentityData, load_identities
from dlcore.data.identity_loader import IdentityLoader
from dlcore.data.images import load_images
from dlcore.data.loader import Loader, evaluation_batches, parts_of_batches
from dlcore.data.one_shot_runs import OneShotRun, read_one_shot_runs
from dlcore.data.pictures import read_images
from dlcore.data.sources import Arrays, Batch, ImageData, Records, Split
from dlcore.data.statistics import (
    balanced_positive_weights,
    balanced_weights,
    channel_moments,
    evenly_spaced,
    labels_of,
)

__all__ = [
    "Arrays",
    "Batch",
    "CaptionData",
    "Captioned",
    "DetectionData",
    "IdentityData",
    "IdentityLoader",
    "ImageData",
    "Loader",
    "OneShotRun",
    "PictureTexts",
    "Records",
    "Split",
    "balanced_positive_weights",
    "balanced_weights",
    "channel_moments",
    "evaluation_batches",
    "evenly_spaced",
    "labels_of",
    "load_captions",
    "load_detection",
    "load_identities",
    "load_images",
    "parts_of_batches",
    "read_images",
    "read_one_shot_runs",
]
