"""The data set of handwritten digits: 1,797 images of 8 x 8 in 10 classes from scikit-learn.

They are the test set of Alpaydin and Kaynak's "Optical Recognition of Handwritten Digits" (UCI,
1998).
"""

import io
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from PIL import Image

from dlcore.data.tfds import tfds

# The key and the features of an example.
Example: TypeAlias = tuple[int, dict[str, bytes | int]]


class Digits(tfds.core.GeneratorBasedBuilder):
    """Always the same 1,500 digits to train on and 297 held out, with classes in equal shares.

    An image is uint8 [8, 8, 1]; the 17 levels 0..16 of the original are spread over 0..255, so
    `round(image * 16 / 255)` restores them.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        images, labels, parts = split_digits()
        images = np.round(images * (255 / 16)).astype(np.uint8)
        return {
            split: self._generate_examples(images, labels, indices)
            for split, indices in parts.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[Example]:
        for index in indices.tolist():
            png = io.BytesIO()
            Image.fromarray(images[index]).save(png, "png")
            yield index, {"image": png.getvalue(), "label": int(labels[index])}


def split_digits() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns digits of levels 0..16 [1797, 8, 8], their labels, and the indices of each split."""
    # Importing scikit-learn takes most of a second, and only the first use needs it.
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    train, test = model_selection.train_test_split(
        np.arange(len(digits.images)), test_size=297, random_state=0, stratify=digits.target
    )
    return digits.images, digits.target, {"train": np.sort(train), "test": np.sort(test)}
