"""The report sections of a detector. Shapes: N pictures, S their side, k anchors, P landmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlcore import boxes as geometry
from dlcore.metrics.detection import Judgement, coco_scores, error_scores, voc_scores
from dlcore.models.detection import anchors
from dlcore.report import Section, picture_section
from dlcore.report.markup import preformatted, table
from dlcore.report.plots import plot_bars, plot_lines
from dlcore.report.plots.detection import Shown, plot_detections, plot_shapes

_SHOWN = 12  # pictures
_CURVES = 7  # as many as there are colours
_SHAPES = 10  # the largest number of anchors in the table
_NOTHING = np.zeros((0, 2), np.float32)


def detection_sections(
    batch: Mapping[str, np.ndarray],
    found: Any,
    judgement: Judgement,
    *,
    sizes: np.ndarray,
    shapes: np.ndarray,
    shown_score: float,
) -> list[Section]:
    """Shows pictures, precision and recall, kinds of errors, the worst pictures and the anchors.

    Args:
        batch: of test pictures, as `dlcore.data.detection` has it.
        found: the detections in them.
        judgement: of these.
        sizes: [n, 2], of the training objects.
        shapes: [k, 2], the anchors, if there are any.
        shown_score: the score from which detections are drawn and errors counted.
    """
    voc, coco = voc_scores(judgement), coco_scores(judgement)
    names = judgement.class_names
    rows = [
        (name, f"{ap50:.3f}", f"{ap:.3f}")
        for name, ap50, ap in zip(names, voc.by_class, coco.by_class, strict=True)
    ]
    summary = [("all", f"{voc.mean:.3f}", f"{coco.ap:.3f}"), *rows]
    by_size = [(n, f"{getattr(coco, n):.3f}") for n in ("small", "medium", "large")]
    ranked = [int(k) for k in np.argsort(voc.by_class) if not np.isnan(voc.by_class[k])]
    curves = {names[k]: (voc.curves[k].recall, voc.curves[k].precision) for k in ranked[:_CURVES]}
    errors = error_scores(judgement, score_threshold=shown_score)
    count = len(batch["image"])
    wrong = np.array([_errors(batch, found, n, shown_score) for n in range(count)])
    worst = np.argsort(-wrong, kind="stable")[:_SHOWN]

    def draw(chosen: Sequence[int], title: str) -> Section:
        pictures = [
            _shown(batch, found, int(n), names, shown_score, f"{wrong[n]} errors") for n in chosen
        ]
        name = title.lower().replace(" ", "_")
        text = "Objects are green, detections orange and dashed."
        return picture_section(
            title, name, lambda path: plot_detections(pictures, path, title=title), text=text
        )

    header = ("class", "mAP50", "AP")
    sections = [
        draw(range(min(_SHOWN, count)), "Pictures"),
        Section("Average precision", lambda _: table(summary, header=header)),
        Section("AP by size of object", lambda _: table(by_size, header=("size", "AP"))),
    ]
    if curves:
        sections.append(
            picture_section(
                "Precision and recall",
                "precision_recall",
                lambda path: plot_lines(
                    curves, path, title="Precision and recall", x="recall", y="precision"
                ),
                text="At an IoU of 0.5, of the classes with the lowest average precision.",
            )
        )
    sections += [
        picture_section(
            "Errors by kind",
            "errors",
            lambda path: plot_bars(
                {kind: float(n) for kind, n in errors.counts.items()},
                path,
                title="Errors by kind",
                x="kind",
                y="errors",
            ),
            text=f"Of detections with a score of at least {shown_score:g}.",
        ),
        draw(worst.tolist(), "Worst pictures"),
    ]
    if len(shapes):
        overlap = geometry.pairwise(geometry.iou, _centred(sizes), _centred(shapes))
        most = min(_SHAPES, len(np.unique(sizes, axis=0)))
        text = anchors.render(anchors.fit_each(sizes[:1000], range(1, most + 1)))
        sections += [
            picture_section(
                "Anchors over the data",
                "anchors",
                lambda path: plot_shapes(sizes, shapes, overlap.argmax(1), path),
            ),
            Section("Recall by number of anchors", lambda _: preformatted(text)),
        ]
    return sections


def landmark_sections(
    batch: Mapping[str, np.ndarray],
    found: np.ndarray,
    points: np.ndarray,
    visible: np.ndarray,
    scale: np.ndarray,
) -> list[Section]:
    """Shows pictures, and those whose landmarks are farthest off.

    Args:
        batch: of test pictures.
        found: [N, P, 2], the landmarks found.
        points: [N, P, 2], the true ones.
        visible: bool [N, P].
        scale: [N], what distances are divided by.
    """
    distance = np.sqrt(((found - points) ** 2).sum(-1)) / np.maximum(scale, 1)[:, None]
    error = np.where(visible, distance, 0).sum(1) / np.maximum(visible.sum(1), 1)

    def draw(chosen: Sequence[int], title: str) -> Section:
        pictures = [
            Shown(
                batch["image"][n],
                np.zeros((0, 4)),
                (),
                np.zeros((0, 4)),
                (),
                points[n][visible[n]],
                found[n],
                f"error {100 * error[n]:.1f} %",
            )
            for n in chosen
        ]
        name = title.lower().replace(" ", "_")
        text = "True landmarks are green circles, those found orange crosses."
        return picture_section(
            title, name, lambda path: plot_detections(pictures, path, title=title), text=text
        )

    worst = np.argsort(-error, kind="stable")[:_SHOWN].tolist()
    return [draw(range(min(_SHOWN, len(error))), "Pictures"), draw(worst, "Worst pictures")]


def _centred(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([-sizes / 2, sizes / 2], -1)


def _errors(batch: Mapping[str, np.ndarray], found: Any, n: int, shown_score: float) -> int:
    """The detections of a picture that have no object of their own, and the objects without one."""
    real = batch["boxes_mask"][n] & ~batch["difficult"][n] & ~batch["crowd"][n]
    kept = found.mask[n] & (found.scores[n] >= shown_score)
    free, wrong = real.copy(), 0
    for box, label in zip(found.boxes[n][kept], found.labels[n][kept], strict=True):
        alike = batch["boxes_mask"][n] & (batch["labels"][n] == label)
        overlap = np.where(alike, geometry.iou(box[None], batch["boxes"][n]), 0)
        best = int(np.where(free, overlap, 0).argmax())
        if free[best] and overlap[best] >= 0.5:
            free[best] = False
        elif not (overlap[~real] >= 0.5).any():
            wrong += 1
    return wrong + int(free.sum())


def _shown(
    batch: Mapping[str, np.ndarray],
    found: Any,
    n: int,
    names: Sequence[str],
    shown_score: float,
    caption: str,
) -> Shown:
    there = batch["boxes_mask"][n]
    kept = found.mask[n] & (found.scores[n] >= shown_score)
    labelled = zip(found.labels[n][kept], found.scores[n][kept], strict=True)
    return Shown(
        batch["image"][n],
        batch["boxes"][n][there],
        [names[label] for label in batch["labels"][n][there]],
        found.boxes[n][kept],
        [f"{names[label]} {score:.2f}" for label, score in labelled],
        _NOTHING,
        _NOTHING,
        caption,
    )
