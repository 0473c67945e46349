"""Which of five packages a passage of docstrings belongs to."""

import re
from collections.abc import Iterator
from typing import Any

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds

CLASSES = ("jax", "matplotlib", installed.PYTHON, "scipy", "sklearn")
# What gives the package away.
_NAMES = re.compile(
    r"scikit[- ]?learn|sk-?learn|matplotlib|pyplot|scipy|python|jax|\b(?:plt|mpl|jnp|lax)\b",
    re.IGNORECASE,
)
_MASK = "PACKAGE"
# Words of a passage: it ends with the paragraph that reaches the first number; what is left over is
# kept from the second on.
_FULL, _LEAST = 100, 80


class Docstrings(tfds.core.GeneratorBasedBuilder):
    """Passages of about 100 words or more, in which the names of the packages are masked.

    A definition at the top of a module is cut into passages, which all fall into the same split, 80
    : 20 by the definition's name. No paragraph occurs twice in the whole.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=CLASSES)}
            ),
            supervised_keys=("text", "label"),
            metadata=tfds.core.MetadataDict(versions=installed.versions(CLASSES)),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits: dict[str, list[tuple[str, str, str]]] = {"train": [], "test": []}
        seen: set[str] = set()
        for package in installed.progress(CLASSES, of="docstrings"):
            for source in installed.sources(package):
                for name, text in installed.documented(source, seen):
                    key = f"{source.name}/{name}"
                    split = "test" if installed.position(key) < 0.2 else "train"
                    for number, passage in enumerate(_passages(text)):
                        splits[split].append((f"{key}/{number}", passage, package))
        return {name: self._generate_examples(passages) for name, passages in splits.items()}

    def _generate_examples(
        self, passages: list[tuple[str, str, str]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
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
