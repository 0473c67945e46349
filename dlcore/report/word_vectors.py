"""What word vectors report. Shapes: n words, D features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.evaluation.word_vectors import AnalogyScores, SimilarityScore
from dlcore.report import markup
from dlcore.report.plots.scatter import plot_names, tsne
from dlcore.report.sections import Section, picture_section

MOST_WORDS = 200
"""How many words of the picture can be read."""

_LEAST_WORDS = 4
_MAP_TEXT = (
    "Words whose vectors have a great cosine stand beside each other. What is far apart, and how "
    "dense a group is, says nothing."
)


class Neighbours(NamedTuple):
    """A word and the words nearest to it.

    Attributes:
        word: which.
        nearest: the words and their cosines with it, the nearest first.
    """

    word: str
    nearest: Sequence[tuple[str, float]]


def word_vector_sections(
    *,
    words: Sequence[str],
    vectors: np.ndarray,
    neighbours: Sequence[Neighbours] = (),
    analogies: Mapping[str, AnalogyScores] | None = None,
    similarities: Mapping[str, SimilarityScore] | None = None,
) -> list[Section]:
    """The scores on analogies and similarities, the neighbours of words, and a map of words.

    Args:
        words: n to be drawn, the first `MOST_WORDS` of which are: chosen ones or the most frequent.
        vectors: theirs, (n, D).
        neighbours: of chosen words.
        analogies: the scores by their names, as of the file and method.
        similarities: the scores by their names, as of the file.
    """
    sections = []
    if analogies:
        parts = [
            part
            for name, scores in analogies.items()
            for part in (
                markup.heading(name),
                markup.table(scores.rows()[1:], header=scores.rows()[0]),
                markup.paragraph(scores.rule),
            )
        ]
        sections.append(Section("Analogies", lambda _: markup.join(parts)))
    if similarities:
        header = ["", "Spearman's correlation", "95 % interval", "pairs", "coverage"]
        rows = [[name, *score.row()] for name, score in similarities.items()]
        rules = dict.fromkeys(score.rule for score in similarities.values())
        table = markup.join([markup.table(rows, header=header), *map(markup.paragraph, rules)])
        sections.append(Section("Word similarity", lambda _: table))
    if neighbours:
        lines = [
            [word, ", ".join(f"{other} {cosine:.2f}" for other, cosine in nearest)]
            for word, nearest in neighbours
        ]
        near = markup.table(lines, header=["word", "nearest words and their cosines"])
        sections.append(Section("Neighbours", lambda _: near))
    return [*sections, *_map(words, vectors)]


def _map(words: Sequence[str], vectors: np.ndarray) -> list[Section]:
    """The picture; none where there are too few words for one."""
    shown, vectors = list(words[:MOST_WORDS]), np.asarray(vectors, np.float64)[:MOST_WORDS]
    if len(shown) < _LEAST_WORDS or vectors.shape[1] < 2:
        return []
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths == 0, 1, lengths)
    return [
        picture_section(
            "Map of words",
            "words",
            lambda path: plot_names(shown, tsne(units), path, title=f"{len(shown)} words by t-SNE"),
            text=_MAP_TEXT,
        )
    ]
