"""The data set of passages of docstrings, labelled with the one of five packages they are from."""

import re
from collections.abc import Iterator
from typing import TypeAlias

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds

CLASSES = ("jax", "matplotlib", installed.PYTHON, "scipy", "sklearn")
# Words that would give the package away.
_NAMES = re.compile(
    r"scikit[- ]?learn|sk-?learn|matplotlib|pyplot|scipy|python|jax|\b(?:plt|mpl|jnp|lax)\b",
    re.IGNORECASE,
)
_MASK = "PACKAGE"
# A passage ends with the paragraph in which it reaches _FULL words. The rest of a text is kept as a
# passage if it has _LEAST words.
_FULL, _LEAST = 100, 80


# The key and the features of an example.
Example: TypeAlias = tuple[str, dict[str, str]]


class Docstrings(tfds.core.GeneratorBasedBuilder):
    """Passages of about 100 words or more, in which the names of the packages are masked.

    A definition at the top of a module is cut into passages, which all fall into the same split,
    80 : 20 by the definition's name. No paragraph occurs twice in the whole data set.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=CLASSES)}
            ),
            supervised_keys=("text", "label"),
            metadata=tfds.core.MetadataDict(versions=installed.versions(CLASSES)),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        splits: dict[str, list[tuple[str, str, str]]] = {"train": [], "test": []}
        seen: set[str] = set()
        for package in installed.progress(CLASSES, name="docstrings"):
            for source in installed.sources(package):
                for name, text in installed.documented(source, seen):
                    key = f"{source.name}/{name}"
                    split = "test" if installed.position(key) < 0.2 else "train"
                    for number, passage in enumerate(_passages(text)):
                        splits[split].append((f"{key}/{number}", passage, package))
        return {name: self._generate_examples(passages) for name, passages in splits.items()}

    def _generate_examples(self, passages: list[tuple[str, str, str]]) -> Iterator[Example]:
        for key, text, label in passages:
            yield key, {"text": _NAMES.sub(_MASK, text), "label": label}


def _passages(text: str) -> Iterator[str]:
    """Cuts a text, between paragraphs, into passages."""
    passage: list[str] = []
    words = 0
    for paragraph in installed.paragraphs(text):
        passage.append(paragraph)
        words += len(paragraph.split())
        if words >= _FULL:
            yield "\n\n".join(passage)
            passage, words = [], 0
    if words >= _LEAST:
        yield "\n\n".join(passage)
