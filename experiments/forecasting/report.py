"""The report sections of a forecaster: forecasts, errors by step ahead and by column, intervals."""

from typing import Any

import numpy as np

from dlcore.report import Section, markup, picture_section, plots
from dlcore.report.plots.series import ShownForecast, plot_forecasts
from dlcore.types import Variables

_SHOWN = 6  # panels


def sections(task: Any, variables: Variables) -> list[Section]:
    """Shows forecasts of test windows, and the errors beside those of the baselines.

    Args:
        task: the finished `Forecasting`.
        variables: in the type that the run computes in.
    """
    steps = np.arange(1, task.config.horizon + 1)
    curves = {name: (steps, scores.mse.mean(1)) for name, scores in task.scores.items()}
    found = [
        _forecasts(task, variables),
        picture_section(
            "Error by step ahead",
            "error_by_step",
            lambda path: plots.plot_lines(
                curves,
                path,
                title="Error by step ahead",
                x="steps ahead",
                y="mean squared error (scaled units)",
            ),
        ),
        Section("Errors by column", lambda folder: _table(task)),
    ]
    if task.config.levels():
        found.append(_calibration(task))
    return found


def _forecasts(task: Any, variables: Variables) -> Section:
    test, levels, point = task.windows["test"], task.config.levels(), task.point
    columns = task.info.columns
    mean, deviation = np.array(task.info.mean), np.array(task.info.deviation)
    # Spread over the test part and the columns.
    chosen = np.unique(np.linspace(0, len(test) - 1, _SHOWN).astype(int))
    windows = test.gather(chosen)
    own = task.forecaster(variables)(windows["context"])
    other = task.linear(windows["context"])[..., 0]
    panels = []
    for place, number in enumerate(chosen):
        column = place % len(columns)

        def own_units(scaled: np.ndarray, column: int = column) -> np.ndarray:
            found: np.ndarray = scaled * deviation[column] + mean[column]
            return found

        ends = [own_units(own[place, :, column, q]) for q in (0, -1)] if len(levels) > 1 else None
        panels.append(
            ShownForecast(
                f"{columns[column]}, window {number + 1:,} of {len(test):,}",
                own_units(windows["context"][place, :, column]),
                own_units(windows["target"][place, :, column]),
                own_units(own[place, :, column, point]),
                ends[0] if ends else None,
                ends[1] if ends else None,
                own_units(other[place, :, column]),
            )
        )
    interval = f"from {levels[0]:g} to {levels[-1]:g}" if len(levels) > 1 else ""
    return picture_section(
        "Forecasts",
        "forecasts",
        lambda path: plot_forecasts(panels, path, interval=interval, compared="linear map"),
        text="Windows of the test part, in the units of the series.",
    )


def _table(task: Any) -> markup.Html:
    names = [*task.scores]
    rows = [
        [column, *(f"{task.scores[name].mse[:, n].mean():.4g}" for name in names)]
        for n, column in enumerate(task.info.columns)
    ]
    rows.append(["all", *(f"{task.scores[name].mse.mean():.4g}" for name in names)])
    text = "Mean squared errors of the test part, in variances of each column's training part."
    return markup.join([markup.paragraph(text), markup.table(rows, header=["column", *names])])


def _calibration(task: Any) -> Section:
    own, levels = task.scores["model"], task.config.levels()
    rows = [[f"{level:g}", f"{share:.1%}"] for level, share in zip(levels, own.below, strict=True)]
    text = "Share of the true values of the test part that are at most the quantile."
    if len(levels) > 1:
        text += (
            f" From the lowest to the highest, which is to hold {levels[-1] - levels[0]:.0%}, lie "
            f"{own.coverage:.1%}; the mean width is {own.width:.3g} deviations."
        )
    return Section(
        "Coverage",
        lambda folder: markup.join(
            [markup.paragraph(text), markup.table(rows, header=["quantile", "share below"])]
        ),
    )
