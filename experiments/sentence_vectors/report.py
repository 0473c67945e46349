"""The report sections of sentence vectors. Shapes: N pairs."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from dlcore.data.text import ScoredPair
from dlcore.evaluation.statistics import fisher_interval, pearson, spearman
from dlcore.report import Section, markup, picture_section
from dlcore.report.plots.scatter import plot_scores

_WORST = 15


def sections(
    pairs: Sequence[ScoredPair],
    similarities: np.ndarray,
    overlap: np.ndarray,
    span: tuple[float, float],
    nearest: Mapping[str, Sequence[tuple[str, float]]],
) -> list[Section]:
    """Shows correlations, similarity by score, the worst pairs, and neighbours of sentences.

    Args:
        pairs: N test pairs.
        similarities: of their vectors, [N].
        overlap: of their words, [N].
        span: the lowest and the highest score.
        nearest: training sentences and their similarities by a test sentence.
    """
    scores = np.array([pair.score for pair in pairs])
    similarities = np.asarray(similarities, np.float64)
    rows = []
    for name, values in (("this model", similarities), ("overlap of words", overlap)):
        rank = spearman(values, scores)
        low, high = fisher_interval(rank, len(scores))
        rows.append(
            [name, f"{rank:.4f}", f"{low:.3f} to {high:.3f}", f"{pearson(values, scores):.4f}"]
        )
    header = ["", "Spearman's correlation", "95 % interval", "Pearson's correlation"]
    correlations = markup.join(
        [
            markup.table(rows, header=header),
            markup.paragraph(f"Similarities and scores of {len(pairs):,} test pairs."),
        ]
    )
    places = [_shares(values) for values in (similarities, scores)]
    worst = np.argsort(-np.abs(places[0] - places[1]), kind="stable")[:_WORST]
    mistakes = markup.table(
        [
            [f"{scores[at]:g}", f"{similarities[at]:.2f}", pairs[at].first, pairs[at].second]
            for at in worst
        ],
        header=["score", "similarity", "first", "second"],
    )
    near = markup.table(
        [
            [one, markup.join([markup.paragraph(f"{value:.2f} {other}") for other, value in found])]
            for one, found in nearest.items()
        ],
        header=["test sentence", "nearest training sentences and their similarities"],
    )
    draw = functools.partial(
        plot_scores, scores, {"similarity": similarities, "overlap of words": overlap}, span=span
    )
    return [
        Section("Correlations", lambda _: correlations),
        picture_section(
            "Similarity by score",
            "scores",
            draw,
            text="The line joins the means within tenths of the range of scores.",
        ),
        Section("Pairs whose ranks differ most", lambda _: mistakes),
        Section("Neighbours", lambda _: near),
    ]


def _shares(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each value as a share of all, [N]."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return order / max(len(values) - 1, 1)
