"""Draws curves over the steps of training or over time."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlcore.report.plots.figure import COLOURS, dress, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]]

_MOST_MARKERS = 40
# A part of the data has one colour, whichever of the others are drawn beside it.
_SPLITS = {"train": COLOURS[0], "test": COLOURS[1], "validation": COLOURS[2]}
_DIAGNOSTICS = ("grad_norm", "clipped")
_SHARES = ("accuracy", "precision", "recall", "f1", "exact_match", "clipped")
_TITLES = {"grad_norm": "Gradient norm", "clipped": "Gradients clipped"}


class Reading(NamedTuple):
    """The form in which a metric is shown.

    Attributes:
        title: its name in words.
        unit: its unit; "" for a number without one.
        factor: the factor from the metric to the number that is shown.
    """

    title: str
    unit: str
    factor: float

    @property
    def label(self) -> str:
        """The name with its unit."""
        name = self.title[:1].lower() + self.title[1:]
        return f"{name} ({self.unit})" if self.unit else name

    def text(self, value: float) -> str:
        """Returns a value as text, with as many digits as people compare."""
        if self.unit == "%":
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip()

    def difference(self, value: float) -> str:
        """Returns the difference of two values as text, with its sign."""
        if self.unit == "%":
            return f"{100 * value:+.2f} points"
        return f"{value:+.4g} {self.unit}".rstrip()


def reading(metric: str) -> Reading:
    """Returns the form in which a metric is shown, by its name.

    >>> reading("top5_accuracy").text(0.98123)
    '98.12 %'
    """
    words = metric.replace("_", " ")
    title = _TITLES.get(metric) or words[:1].upper() + words[1:]
    if metric.endswith(_SHARES):
        return Reading(title, "%", 100)
    return Reading(title, "nats" if metric.endswith("loss") else "", 1)


def evaluated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the main metrics of a run: the loss, and everything measured on held-out data.

    Args:
        rows: the lines of metrics.jsonl.
    """
    held_out = (row for row in rows if row["split"] != "train")
    names = dict.fromkeys(["loss", *itertools.chain.from_iterable(held_out)])
    return [name for name in names if name not in ("step", "split")]


def plot_lines(
    curves: Curves,
    path: pathlib.Path,
    *,
    title: str,
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    logarithmic: bool = True,
) -> None:
    """Draws curves over one axis, logarithmic where they span more than a factor of ten.

    Args:
        curves: the abscissae and ordinates of each curve by its name; values that are not finite
            are left out.
        path: the PNG to write.
        title: the title above the picture.
        x: the label of the abscissa, with its unit.
        y: the label of the ordinate, with its unit.
        levels: values to compare with, by name, drawn as dashed lines from side to side.
        logarithmic: whether the axis may be logarithmic, which cannot show zeros.
    """
    figure = new_figure(6.4, 4)
    _draw(figure.subplots(), curves, levels or {}, title=title, x=x, y=y, logarithmic=logarithmic)
    save(figure, path)


def curves_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the metrics that have a curve: the main ones, and those of the gradient.

    Args:
        rows: the lines of metrics.jsonl.
    """
    names = dict.fromkeys([*evaluated(rows), *_DIAGNOSTICS])
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def plot_metric(rows: Sequence[Mapping[str, Any]], metric: str, path: pathlib.Path) -> None:
    """Draws a metric over the steps, on each part of the data.

    Args:
        rows: the lines of metrics.jsonl: "step", "split" and the metrics. Values that are None or
            missing are left out.
        metric: the name of the metric in these lines.
        path: the picture to write.
    """
    shown = reading(metric)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.get(metric) is not None:
            steps, values = curves.setdefault(row["split"], ([], []))
            steps.append(row["step"])
            values.append(row[metric] * shown.factor)
    figure = new_figure(6.4, 4)
    _draw(
        figure.subplots(),
        curves,
        {},
        title=shown.title,
        x="step",
        y=shown.label,
        logarithmic=shown.unit != "%",
    )
    save(figure, path)


def plot_rate_range(
    rates: np.ndarray,
    losses: np.ndarray,
    smooth: np.ndarray,
    path: pathlib.Path,
    *,
    steepest: float | None,
) -> None:
    """Draws the losses of a range test by learning rate, as they are and smoothed.

    Losses far above the first ones are cut off.

    Args:
        rates: the learning rate of each step.
        losses: the loss of each step.
        smooth: the smoothed losses.
        path: the picture to write.
        steepest: the rate at which the loss falls fastest, if it falls.
    """
    figure = new_figure(6.4, 4)
    axis = figure.subplots()
    axis.plot(rates, losses, color="#bbbbbb", linewidth=0.8, label="loss of a batch")
    axis.plot(rates, smooth, color=COLOURS[0], linewidth=1.6, label="smoothed")
    if steepest is not None:
        label = f"steepest descent: {steepest:.1e}"
        axis.axvline(steepest, color=COLOURS[1], linestyle="--", linewidth=1, label=label)
    axis.set_xscale("log")
    low, first = float(losses.min()), float(losses[0])
    margin = 0.5 * (first - low) + 0.05 * abs(first)
    if losses.max() > first + margin > low:
        axis.set_ylim(low - 0.1 * margin, first + margin)
    axis.set(title="Loss while the learning rate grows", xlabel="learning rate", ylabel="loss")
    dress(axis)
    axis.legend(framealpha=0.8, edgecolor="none")
    save(figure, path)


def plot_gradient_by_distance(curves: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Draws how the norm of a gradient changes with the distance back in time.

    Args:
        curves: the result of `dlcore.check.gradient_by_distance` for each net by its name.
        path: the PNG to write.
    """
    plot_lines(
        {name: (range(len(norms)), norms) for name, norms in curves.items()},
        path,
        title="Gradient by distance in time",
        x="steps back in time",
        y="norm of the gradient by the carry",
    )


def plot_gradient_norms(
    steps: Sequence[int], norms: Sequence[float], path: pathlib.Path, *, threshold: float
) -> None:
    """Draws the norm of the gradient before and after clipping by the global norm.

    Args:
        steps: the steps of training.
        norms: the norms before clipping.
        path: the PNG to write.
        threshold: the greatest norm after clipping.
    """
    before = np.asarray(norms, np.float64)
    plot_lines(
        {
            "before clipping": (steps, before),
            "after clipping": (steps, np.minimum(before, threshold)),
        },
        path,
        title=f"Gradient norm: {np.mean(before > threshold):.0%} of the steps are clipped",
        x="step",
        y="norm of the gradient",
        levels={f"threshold {threshold:g}": threshold},
    )


def _draw(
    axis: "Axes",
    curves: Curves,
    levels: Mapping[str, float],
    *,
    title: str,
    x: str,
    y: str,
    logarithmic: bool = True,
) -> None:
    drawn = list(levels.values())
    for (name, (abscissae, ordinates)), colour in zip(
        curves.items(), itertools.cycle(COLOURS), strict=False
    ):
        values = np.asarray(ordinates, np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            continue
        marker = "o" if finite.sum() <= _MOST_MARKERS else None
        axis.plot(
            np.asarray(abscissae)[finite],
            values[finite],
            color=_SPLITS.get(name, colour),
            marker=marker,
            markersize=3,
            linewidth=1.3,
            label=name,
        )
        drawn.extend(values[finite])
    for (name, level), style in zip(levels.items(), itertools.cycle(("--", ":")), strict=False):
        axis.axhline(level, color="#555555", linestyle=style, linewidth=1, label=name)
    positive = [value for value in drawn if value > 0]
    if logarithmic and positive and min(drawn) >= 0 and max(positive) > 10 * min(positive):
        _logarithmic(axis, max(positive) / min(positive))
    axis.set(title=title, xlabel=x, ylabel=y)
    dress(axis)
    if drawn:
        axis.legend(framealpha=0.8, edgecolor="none")


def _logarithmic(axis: "Axes", span: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_yscale("log", nonpositive="mask")
    if span < 1e3:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
