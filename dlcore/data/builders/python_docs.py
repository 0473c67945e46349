"""The data set of technical English: Python's language reference and packages' docstrings."""

from collections.abc import Iterator
from typing import TypeAlias

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds

# Packages that dlcore depends on, so that they are always installed.
PACKAGES = (
    installed.PYTHON,
    "numpy",
    "scipy",
    "sklearn",
    "jax",
    "flax",
    "optax",
    "matplotlib",
)


# The key and the features of an example.
Example: TypeAlias = tuple[str, dict[str, str]]


class PythonDocs(tfds.core.GeneratorBasedBuilder):
    """A text with the docstrings of each source file, and one for each topic of the reference.

    Documents are split 90 : 5 : 5 by their names. No paragraph occurs twice in the data set.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(versions=installed.versions(PACKAGES)),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
        for name, text in _documents():
            position = installed.position(name)
            split = "test" if position < 0.05 else "validation" if position < 0.1 else "train"
            splits[split].append((name, text))
        return {name: self._generate_examples(documents) for name, documents in splits.items()}

    def _generate_examples(self, documents: list[tuple[str, str]]) -> Iterator[Example]:
        for name, text in documents:
            # A blank line separates documents, as it separates paragraphs.
            yield name, {"text": text + "\n\n"}


def _documents() -> Iterator[tuple[str, str]]:
    """Yields the name and the text of each document that has text."""
    from pydoc_data import topics

    seen: set[str] = set()
    for name, text in sorted(topics.topics.items()):
        if kept := installed.unseen(text, seen):
            yield f"topics/{name}", kept
    for package in installed.progress(PACKAGES, name="python_docs"):
        for source in installed.sources(package):
            if definitions := installed.documented(source, seen):
                yield source.name, "\n\n".join(text for _, text in definitions)
