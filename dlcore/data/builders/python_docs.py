"""Technical English: the Python language reference and the docstrings of installed packages."""

from collections.abc import Iterator
from typing import Any

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds

# Those that dlcore needs, so that they are always there.
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


class PythonDocs(tfds.core.GeneratorBasedBuilder):
    """A text for each source file, its docstrings, and one for each topic of the reference.

    Documents are split 90 : 5 : 5 by their names. No paragraph occurs twice in the whole.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(versions=installed.versions(PACKAGES)),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
        for name, text in _documents():
            position = installed.position(name)
            split = "test" if position < 0.05 else "validation" if position < 0.1 else "train"
            splits[split].append((name, text))
        return {name: self._generate_examples(documents) for name, documents in splits.items()}

    def _generate_examples(
        self, documents: list[tuple[str, str]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, text in documents:
            # A blank line between documents as between paragraphs.
            yield name, {"text": text + "\n\n"}


def _documents() -> Iterator[tuple[str, str]]:
    """The name and the text of each document, without empty ones."""
    from pydoc_data import topics

    seen: set[str] = set()
    for name, text in sorted(topics.topics.items()):
        if kept := installed.unseen(text, seen):
            yield f"topics/{name}", kept
    for package in installed.progress(PACKAGES, of="python_docs"):
        for source in installed.sources(package):
            if found := installed.documented(source, seen):
                yield source.name, "\n\n".join(text for _, text in found)
