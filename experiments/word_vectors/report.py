"""The report sections of word vectors. Shapes: n words, D features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.evaluation.word_vectors import AnalogyScores, SimilarityScore
from dlcore.report import markup
from dlcore.report.plots.scatter import plot_names, tsne
from dlcore.report.sections import Section, picture_section

MOST_WORDS = 200
"""The largest number of words that can be read in the picture."""

_LEAST_WORDS = 4
_MAP_TEXT = (
    "Words whose vectors have a great cosine stand beside each other. Great distances and the "
    "density of a group mean nothing."
)


class Neighbours(NamedTuple):
    """A word and the words nearest to it.

    Attributes:
        word: the word.
        nearest: other words and their cosines with it, the nearest first.
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
    """Shows scores on analogies and similarities, the neighbours of words, and a map of words.

    Args:
        words: n words for the map, chosen ones or the most frequent; the first `MOST_WORDS` are
            drawn.
        vectors: their vectors, (n, D).
        neighbours: the neighbours of chosen words.
        analogies: the scores on analogies by their names, such as that of file and method.
        similarities: the scores on similarities by their names, such as that of the file.
    """
    sections = []
    if analogies:
        parts = [
            html
            for name, scores in analogies.items()
            for html in (
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
    """Makes the section with the map; none where there are too few words."""
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
