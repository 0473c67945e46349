"""Data: the embedded and prepared data sets, and the seekable loader that batches them.

A batch is a dict of NumPy arrays with one leading axis: {"image": uint8 [B, H, W, C], "label":
int32 [B], "weight": float32 [B]}. A weight of 0 marks a row that is padding. Nothing here imports
JAX.
"""

from dlcore.data.images import load_images as load_images
from dlcore.data.loader import Loader as Loader
from dlcore.data.loader import evaluation_batches as evaluation_batches
from dlcore.data.pictures import read_images as read_images
from dlcore.data.sources import Arrays as Arrays
from dlcore.data.sources import Batch as Batch
from dlcore.data.sources import ImageData as ImageData
from dlcore.data.sources import Records as Records
from dlcore.data.sources import Split as Split
from dlcore.data.statistics import balanced_weights as balanced_weights
from dlcore.data.statistics import channel_moments as channel_moments
from dlcore.data.statistics import evenly_spaced as evenly_spaced
from dlcore.data.statistics import labels_of as labels_of
