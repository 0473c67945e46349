"""The report sections of an embedding. Shapes: N pictures, D numbers of an embedding, M pairs."""

import pathlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dlcore.metrics import pair_distances, roc
from dlcore.metrics.embeddings import rows_of_distances
from dlcore.report import Section, picture_section
from dlcore.report.markup import paragraph, table
from dlcore.report.plots import plot_lines, plot_rows
from dlcore.report.plots.scatter import LEAST_POINTS, plot_thumbnails, tsne

from .evaluation import Setting

_BINS = 60
_SHOWN = 8  # pairs in a row
_MAPPED = 300  # pictures on the map
_PER_IDENTITY = 10
_CONFUSED = 15  # pairs of identities in the table
_SLOW = 5_000  # pictures among which each looks for its nearest


def sections(
    images: np.ndarray,
    embeddings: np.ndarray,
    setting: Setting,
    names: Sequence[str],
    *,
    distance: str,
    threshold: float | None,
) -> list[Section]:
    """Shows distances, the ROC, pairs around the threshold, confused identities and a map.

    Args:
        images: uint8 [N, H, W, C], of the test part.
        embeddings: [N, D].
        setting: of the part, with the labels and the pairs.
        names: of the identities.
        distance: of `metrics.embeddings`.
        threshold: up to which two pictures are said to be of one identity; None for none.
    """
    first, second, same = setting.pairs
    found = pair_distances(distance, embeddings, first, second)
    pixels = pair_distances("l2", images.reshape(len(images), -1), first, second)
    curves = {"embedding": roc(found, same), "pixels": roc(pixels, same)}
    areas = ", ".join(f"{name} {curve.auc:.4f}" for name, curve in curves.items())
    at = "" if threshold is None else f" The threshold is {threshold:.4g}."
    made = [
        picture_section(
            "Distances",
            "distances",
            lambda path: plot_lines(
                densities(found, same), path, title="Distances", x=distance, y="share of pairs"
            ),
            text=f"Of pairs of one identity and of two, in {_BINS} bins.{at}",
        ),
        picture_section(
            "Verification",
            "roc",
            lambda path: plot_lines(
                {name: (curve.false_accept, curve.true_accept) for name, curve in curves.items()},
                path,
                title="ROC",
                x="false accepts",
                y="true accepts",
            ),
            text=f"Areas under the curves: {areas}.",
        ),
    ]
    if threshold is not None:
        chosen = around(found, same, threshold, _SHOWN)
        rows = {
            kind: np.concatenate([images[first[pairs]], images[second[pairs]]], axis=2)
            for kind, pairs in chosen.items()
            if len(pairs)
        }
        made.append(
            picture_section(
                "Pairs around the threshold",
                "pairs",
                lambda path: plot_rows(rows, path),
                text=f"The pairs of each kind that are nearest to the threshold.{at}",
            )
        )
    made.append(_confused(embeddings, setting.labels, names, distance))
    mapped = sample(setting.labels)
    if len(mapped) >= LEAST_POINTS and embeddings.shape[1] > 1:

        def draw(path: pathlib.Path) -> None:
            points = tsne(embeddings[mapped])
            title = f"{len(mapped)} pictures by t-SNE"
            plot_thumbnails(images[mapped], points, path, title=title)

        text = f"Pictures of one identity should lie together; up to {_PER_IDENTITY} of each."
        made.append(picture_section("Map of embeddings", "map", draw, text=text))
    return made


def densities(distances: np.ndarray, same: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the middles of bins and the shares [60] of each kind of pairs in them."""
    edges = np.linspace(0, max(float(distances.max(initial=0)), 1e-9), _BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    kinds = {"one identity": distances[same], "two identities": distances[~same]}
    return {
        kind: (middles, np.histogram(own, edges)[0] / len(own))
        for kind, own in kinds.items()
        if len(own)
    }


def around(
    distances: np.ndarray, same: np.ndarray, threshold: float, count: int
) -> dict[str, np.ndarray]:
    """Returns the numbers of those pairs of each kind that are nearest to the threshold.

    Args:
        distances: (M,).
        same: (M,), true for pairs of one identity.
        threshold: at which pairs are accepted.
        count: of pairs of each kind, at most.
    """
    accepted = distances <= threshold
    gap = np.abs(distances - threshold)
    order = np.argsort(gap, kind="stable")
    kinds = {
        "one, accepted": same & accepted,
        "one, refused": same & ~accepted,
        "two, accepted": ~same & accepted,
        "two, refused": ~same & ~accepted,
    }
    return {kind: order[chosen[order]][:count] for kind, chosen in kinds.items()}


def confusions(
    embeddings: np.ndarray, labels: np.ndarray, distance: str
) -> list[tuple[int, int, int]]:
    """Returns identity, another that it is nearest to, and how many pictures are; most first."""
    taken: Counter[tuple[int, int]] = Counter()
    for row, distances in rows_of_distances(distance, embeddings):
        own = distances.copy()
        own[row] = np.inf
        nearest = int(labels[own.argmin()])
        if nearest != labels[row]:
            taken[int(labels[row]), nearest] += 1
    ranked = sorted(taken.items(), key=lambda item: (-item[1], item[0]))
    return [(one, other, count) for (one, other), count in ranked]


def sample(labels: np.ndarray) -> np.ndarray:
    """Returns the numbers of some pictures of some identities at even distances."""
    identities, counts = np.unique(labels, return_counts=True)
    several = identities[counts > 1]
    most = _MAPPED // _PER_IDENTITY
    if len(several) > most:
        several = several[np.linspace(0, len(several) - 1, most).round().astype(int)]
    rows = [np.flatnonzero(labels == identity)[:_PER_IDENTITY] for identity in several]
    return np.concatenate([np.zeros(0, int), *rows])


def _confused(
    embeddings: np.ndarray, labels: np.ndarray, names: Sequence[str], distance: str
) -> Section:
    among = np.linspace(0, len(labels) - 1, min(len(labels), _SLOW)).round().astype(int)
    found = confusions(embeddings[among], labels[among], distance)
    if not found:
        text = "Every picture is nearest to another one of its identity."
        return Section("Most confused identities", lambda _: paragraph(text))
    counts = np.bincount(labels[among], minlength=len(names))
    rows = [
        (names[one], names[other], f"{count} of {counts[one]}")
        for one, other, count in found[:_CONFUSED]
    ]
    header = ("identity", "nearest to", "pictures")
    return Section("Most confused identities", lambda _: table(rows, header=header))
