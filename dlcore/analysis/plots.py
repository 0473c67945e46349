"""Pictures: each function takes arrays and writes one PNG.

N examples, K classes, H W C height, width and channels of an image. Colours are those of Okabe and
Ito (2008) and of Matplotlib's perceptually uniform maps, which readers who are colour-blind can
tell apart.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_COLOURS = {"train": "#0072B2", "test": "#D55E00"}
_OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MOST_CLASSES_WITH_NUMBERS = 20


def _figure(width: float, height: float) -> Any:
    """A figure of inches that needs no display: drawn by Agg, outside of pyplot's state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def plot_curves(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Loss, and accuracy where there is any, over the steps, one line per split.

    Args:
        rows: the lines of metrics.jsonl: "step", "split", "loss" in nats, "accuracy" in 0..1.
            Values that are None or missing are left out.
        path: the PNG to write.
    """
    panels = [
        (name, label, factor)
        for name, label, factor in (("loss", "loss (nats)", 1), ("accuracy", "accuracy (%)", 100))
        if any(row.get(name) is not None for row in rows)
    ]
    figure = _figure(5.2 * max(len(panels), 1), 3.6)
    axes = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    others = iter(_OTHERS * len(splits))
    colours = {split: _COLOURS.get(split) or next(others) for split in splits}
    for axis, (name, label, factor) in zip(axes, panels, strict=False):
        for split in splits:
            points = [
                (row["step"], row[name] * factor)
                for row in rows
                if row["split"] == split and row.get(name) is not None
            ]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) <= 40 else None
            axis.plot(steps, values, color=colours[split], marker=marker, markersize=3, label=split)
        drawn = [y for line in axis.get_lines() for y in line.get_ydata()]
        if name == "loss" and min(drawn) > 0:
            axis.set_yscale("log")
        axis.set(title=label.split(" (")[0].capitalize(), xlabel="step", ylabel=label)
        axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(path)


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], path: pathlib.Path) -> None:
    """The confusion matrix: counts as numbers, the share of the true class as colour.

    Args:
        matrix: (K, K) counts, true class by row, predicted class by column.
        class_names: K names.
        path: the PNG to write.
    """
    from matplotlib.colors import PowerNorm

    count = len(class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(4.2, 0.5 * count + 1.6), 11)
    figure = _figure(side + 0.9, side)
    axis = figure.subplots()
    # A root scale: the few mistakes are the message, and invisible beside the diagonal without it.
    shown = axis.imshow(shares * 100, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    figure.colorbar(shown, ax=axis, label="share of the true class (%)", shrink=0.8)
    if count <= _MOST_CLASSES_WITH_NUMBERS:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if shares[row, column] > 0.4 else "black"
                axis.text(column, row, number, ha="center", va="center", color=colour, fontsize=8)
    positions = range(0, count, max(1, count // 50))
    names = [str(class_names[p]) for p in positions]
    long = max(map(len, names)) > 3
    axis.set_xticks(positions, names, rotation=90 if long else 0, fontsize=8)
    axis.set_yticks(positions, names, fontsize=8)
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    axis.set(
        title=f"Confusion matrix: {accuracy:.2%} of {matrix.sum():,} right",
        xlabel="predicted class",
        ylabel="true class",
    )
    figure.savefig(path)


def plot_mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    path: pathlib.Path,
    *,
    most: int = 20,
) -> None:
    """The mistakes that the model was surest of, with what it took them for.

    Args:
        images: (N, H, W, C) uint8, C = 1 or 3.
        labels: (N,) true classes.
        probabilities: (N, K).
        class_names: K names.
        path: the PNG to write.
        most: how many to show at most.
    """
    worst = worst_mistakes(labels, probabilities)[:most]
    columns = min(max(len(worst), 1), 5)
    rows = max(-(-len(worst) // columns), 1)
    figure = _figure(max(1.75 * columns, 5), 2.05 * rows + 0.5)
    figure.suptitle("Worst mistakes" if len(worst) else "No mistakes")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, index in zip(axes, worst, strict=False):
        predicted = int(probabilities[index].argmax())
        _show(axis, images[index])
        axis.set_title(
            f"is {_short(class_names[int(labels[index])])}\n"
            f"taken for {_short(class_names[predicted])} ({probabilities[index, predicted]:.0%})",
            fontsize=8,
        )
    figure.savefig(path)


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The indices of the wrong predictions, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _show(axis: Any, image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axis.imshow(image, interpolation="nearest")


def plot_filters(kernel: np.ndarray, path: pathlib.Path, *, most: int = 64) -> None:
    """The filters of the first layer.

    Args:
        kernel: (H, W, C, filters). C = 3 is shown as colour; else the mean over the channels, blue
            below zero and red above it, all filters on one scale.
        path: the PNG to write.
        most: how many to show at most.
    """
    filters = np.moveaxis(np.asarray(kernel, np.float32), -1, 0)[:most]
    columns = min(len(filters), 8)
    rows = -(-len(filters) // columns)
    figure = _figure(max(0.85 * columns + 1.2, 4.5), 0.85 * rows + 0.8)
    total = kernel.shape[-1]
    shown_of = f"{total}" if len(filters) == total else f"the first {len(filters)} of {total}"
    figure.suptitle(f"First layer: {shown_of} filters")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    colour = filters.shape[-1] == 3
    shown = filters if colour else filters.mean(axis=-1)
    limit = max(float(np.abs(shown).max()), 1e-12)
    for axis, values in zip(axes.ravel(), shown, strict=False):
        if colour:
            axis.imshow(0.5 + values / (2 * limit), interpolation="nearest")
        else:
            picture = axis.imshow(
                values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
            )
    if not colour:
        figure.colorbar(picture, ax=axes, label="weight", shrink=0.9)
    figure.savefig(path)
