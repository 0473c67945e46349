"""The report sections of retrieval. Shapes: P pictures, C different captions, D numbers."""

from typing import NamedTuple

import numpy as np

from dlcore.metrics import recall_curve
from dlcore.report import Section, picture_section
from dlcore.report.plots import plot_found_pictures, plot_found_texts, plot_lines

from .pairs import TO_IMAGE, TO_TEXT, Setting

_QUERIES = 8
_LISTED = 5
_RANKS = 50  # that the curve shows
_NAMES = {TO_TEXT: "image to text", TO_IMAGE: "text to image"}


def sections(
    images: np.ndarray,
    pictures: np.ndarray,
    captions: np.ndarray,
    setting: Setting,
    baseline: dict[str, np.ndarray],
) -> list[Section]:
    """Shows recall by rank, and what some pictures and some texts find.

    Args:
        images: uint8 [P, H, W, C], of the test part.
        pictures: [P, D], their embeddings.
        captions: [C, D], those of the texts of the setting.
        setting: of the test part.
        baseline: the ranks by the names of the nearest pictures, in each direction.
    """
    ranks = setting.ranks(pictures, captions)
    sizes = {TO_TEXT: len(captions), TO_IMAGE: len(pictures)}
    curves = {
        f"{_NAMES[way]}{suffix}": recall_curve(found[way], min(size, _RANKS))
        for suffix, found in (("", ranks), (", nearest picture", baseline))
        for way, size in sizes.items()
    }
    own = {*map(tuple, setting.relevant.tolist())}
    return [
        picture_section(
            "Recall",
            "recall",
            lambda path: plot_lines(
                curves, path, title="Recall", x="rank", y="share found up to this rank"
            ),
            text="Beside the towers, what the caption of the nearest training picture finds, by "
            "the words that it shares with others.",
        ),
        *(
            _of_pictures(title, name, choose(ranks[TO_TEXT]), images, best, setting, own)
            for best in (_Found(ranks[TO_TEXT], pictures, captions),)
            for title, name, choose in (
                ("Pictures and their texts", "texts", _evenly),
                ("Pictures that find their text last", "last_texts", _last),
            )
        ),
        *(
            _of_texts(title, name, choose(ranks[TO_IMAGE]), images, best, setting, own)
            for best in (_Found(ranks[TO_IMAGE], captions, pictures),)
            for title, name, choose in (
                ("Texts and their pictures", "pictures", _evenly),
                ("Texts that find their picture last", "last_pictures", _last),
            )
        ),
    ]


class _Found(NamedTuple):
    """The ranks of queries, and their embeddings and those of the gallery."""

    ranks: np.ndarray
    queries: np.ndarray
    gallery: np.ndarray

    def best(self, rows: np.ndarray) -> list[list[int]]:
        """Returns the numbers of the best of the gallery for some queries."""
        scores = self.queries[rows] @ self.gallery.T
        best: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :_LISTED].tolist()
        return best


def _evenly(ranks: np.ndarray) -> np.ndarray:
    """Returns the numbers of some queries at even distances."""
    return np.unique(np.linspace(0, len(ranks) - 1, _QUERIES).round().astype(int))


def _last(ranks: np.ndarray) -> np.ndarray:
    """Returns the numbers of the queries of the highest ranks."""
    return np.argsort(-ranks, kind="stable")[:_QUERIES]


def _of_pictures(
    title: str,
    name: str,
    queries: np.ndarray,
    images: np.ndarray,
    found: _Found,
    setting: Setting,
    own: set[tuple[int, ...]],
) -> Section:
    lines = [
        [(setting.texts[n], (query, n) in own) for n in row]
        for query, row in zip(queries.tolist(), found.best(queries), strict=True)
    ]
    texts = {picture: setting.texts[text] for picture, text in reversed(setting.relevant.tolist())}
    titles = [f"{texts[query]} (rank {found.ranks[query]:,})" for query in queries.tolist()]
    return picture_section(
        title,
        name,
        lambda path: plot_found_texts(images[queries], titles, lines, path),
        text="Beside each picture its own text, and below that the texts that it finds, the best "
        "one first. Right ones are green.",
    )


def _of_texts(
    title: str,
    name: str,
    queries: np.ndarray,
    images: np.ndarray,
    found: _Found,
    setting: Setting,
    own: set[tuple[int, ...]],
) -> Section:
    rows = found.best(queries)
    right = np.array(
        [
            [(n, query) in own for n in row]
            for query, row in zip(queries.tolist(), rows, strict=True)
        ]
    )
    titles = [f"{setting.texts[n]} (rank {found.ranks[n]:,})" for n in queries.tolist()]
    return picture_section(
        title,
        name,
        lambda path: plot_found_pictures(titles, images[np.array(rows)], right, path),
        text="Below each text the pictures that it finds, the best one first. Right ones have a "
        "green frame.",
    )
