"""The data set of four-voice pieces that rules of counterpoint draw.

Nothing in it was composed, see `dlcore.data.counterpoint`: no dependency ships music.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from dlcore.data import counterpoint
from dlcore.data.tfds import tfds

# The key and the features of an example.
Example: TypeAlias = tuple[int, dict[str, np.ndarray]]


class Counterpoint(tfds.core.GeneratorBasedBuilder):
    """Generated pieces of 24 to 64 chords of bass, tenor, alto and soprano in C major.

    The metadata have the entropy rate, in nats for each chord after the first.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "chords": tfds.features.Tensor(
                        shape=(None, len(counterpoint.VOICES)), dtype=np.int32, encoding="bytes"
                    )
                }
            ),
            metadata=tfds.core.MetadataDict(entropy_rate=counterpoint.chain().entropy_rate),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        return {
            split: self._generate_examples(counterpoint.draw(size, seed))
            for seed, (split, size) in enumerate(counterpoint.SIZES.items())
        }

    def _generate_examples(self, pieces: list[np.ndarray]) -> Iterator[Example]:
        for key, piece in enumerate(pieces):
            yield key, {"chords": piece.astype(np.int32)}
