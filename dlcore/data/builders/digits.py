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
    """1,500 digits to train and 297 held out, the same ones always, classes in equal shares.

    An image is uint8 [8, 8, 1]; the 17 levels 0..16 of the original are spread over 0..255, so
    `round(image * 16 / 255)` gives them back.
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
        # Importing scikit-learn takes most of a second, and only the first use needs it.
        from sklearn import datasets, model_selection

        digits = datasets.load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        train, test = model_selection.train_test_split(
            np.arange(len(images)), test_size=297, random_state=0, stratify=digits.target
        )
        return {
            split: self._generate_examples(images, digits.target, np.sort(indices))
            for split, indices in {"train": train, "test": test}.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[Example]:
        for index in indices.tolist():
            png = io.BytesIO()
            Image.fromarray(images[index]).save(png, "png")
            yield index, {"image": png.getvalue(), "label": int(labels[index])}
