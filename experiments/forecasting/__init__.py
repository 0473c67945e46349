"""Forecasting: networks that map a window of a time series to the steps that come after it.

By default a recurrent network on four channels of an electroencephalogram that Matplotlib ships,
which needs no network and no file. `--data_path=FILE.csv` takes a table of equal steps, whose first
line names the columns and whose first column may be dates. Errors are in units of the deviation of
each column in the training part, and the result has those of persistence, of the season before and
of a linear map beside its own.
`--predict=FILE.csv --workdir=DIR` forecasts what comes after the end of files with these columns.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data.series import (
    EMBEDDED_SERIES,
    GAPS,
    Series,
    Windows,
    load_series,
    read_series,
    split_rows,
    split_windows,
)
from dlcore.errors import InputError
from dlcore.evaluation import (
    Forecast,
    ForecastScores,
    LinearMap,
    find_period,
    fit_linear,
    persistence,
    score_forecasts,
    seasonal_naive,
)
from dlcore.launch.fields import LARGEST, choice, integer, names, path, switch, text, texts
from dlcore.launch.options import parse_options
from dlcore.losses import pinball
from dlcore.models.forecasting import FORECASTERS, Forecaster, body
from dlcore.nn.reversible import EPSILON
from dlcore.report import Section
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
    at_least_float32,
)

from .report import sections

_SCORED = 512  # windows that are forecast at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.OptimizerConfig,
    launch.DevicesConfig,
    launch.RunConfig,
    steps=300,
    learning_rate=1e-3,
    schedule="cosine",
    weight_decay=0.01,
    clip_norm=1.0,
    eval_every=20,
    patience=5,
):
    """The configuration of a forecaster."""

    model: str = choice("gru", FORECASTERS, "network that reads the context")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the network, such as features=32; a wrong name lists all"
    )
    dataset: str = choice("eeg", tuple(EMBEDDED_SERIES), "embedded series")
    data_path: str | None = path(None, "CSV file of your own series instead of --dataset")
    columns: tuple[str, ...] = names("columns to forecast; default all")
    gaps: str = choice("error", GAPS, "what to do with empty cells and missing dates", free=True)
    split: str = text(
        "0.7,0.1,0.2",
        "TRAIN,VALIDATION,TEST as shares, or as numbers of rows such as 8640,2880,2880",
    )
    context: int = integer(64, 1, LARGEST, "steps from which a forecast is made")
    horizon: int = integer(16, 1, LARGEST, "steps that are forecast")
    batch_size: int = integer(64, 1, LARGEST, "windows per step, over all devices")
    quantiles: tuple[str, ...] = names(
        "quantiles to forecast, such as 0.1,0.5,0.9; default the mean"
    )
    reversible: bool = switch(
        False, "normalise each window and undo it on its forecast, as RevIN does"
    )
    residual: bool = switch(
        True,
        "let the network learn only the residual of a fixed least-squares linear map",
        when={"model": FORECASTERS[:-1]},
    )
    season: int | None = integer(
        None,
        1,
        LARGEST,
        "steps of a season, for the seasonal baseline; default by the autocorrelation",
        free=True,
    )

    @property
    def on_linear(self) -> bool:
        """True where the network learns the rest that a linear map leaves."""
        return self.residual and self.unread("residual") is None

    def levels(self) -> tuple[float, ...]:
        """Returns the quantiles in rising order; none where the mean is forecast.

        Raises:
            InputError: for what is no number between 0 and 1, is given twice, or lacks the median.
        """
        try:
            found = sorted(map(float, self.quantiles))
        except ValueError:
            found = [0.0]
        if not all(0 < level < 1 for level in found) or len({*found}) < len(found):
            raise InputError(
                f"--quantiles={','.join(self.quantiles)} are not different numbers between 0 and "
                "1; give such as 0.1,0.5,0.9"
            )
        if found and 0.5 not in found:
            raise InputError(
                f"--quantiles={','.join(self.quantiles)} lack the median, which is the point "
                "forecast; add 0.5"
            )
        return tuple(found)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a forecaster remembers.

    Attributes:
        columns: their names.
        mean: of each column in the training part.
        deviation: likewise; 1 of a column that is constant there.
        step: the distance of two dates in words; None without dates.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    step: str | None = None

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Returns values [T, D] in units of the deviations from the means, float32."""
        return ((values - np.array(self.mean)) / np.array(self.deviation)).astype(np.float32)


class Forecasting(launch.Task[Config, Info]):
    """A forecaster, trained by squared error or by the loss of quantiles."""

    metric = ("mse", "min")
    reads = "files"
    start: LinearMap | None = None  # that a new run begins with

    # The data.

    def series(self) -> Series:
        """Returns the series of --data_path or --dataset, and says what is noted of it."""
        config = self.config
        if config.data_path is None:
            return load_series(config.dataset).only(config.columns)
        return self.read(config.data_path, config.columns)

    def read(self, path: str, columns: Sequence[str]) -> Series:
        """Returns the series in a file, and says what is noted of it."""
        series = read_series(path, columns=columns, gaps=self.config.gaps)
        for note in series.notes:
            launch.say(note)
        return series

    def data(self) -> launch.Data[Info]:
        config, series = self.config, self.series()
        self.metric = ("loss", "min") if config.levels() else ("mse", "min")
        parts = split_rows(config.split, len(series))
        fitted = series.values[: parts.train]
        deviation = fitted.std(0)
        constant = deviation <= 1e-12 * np.abs(fitted).max(0)
        if constant.any():
            which = ", ".join(np.array(series.columns)[constant])
            launch.say(
                f"these columns are constant in the training part and so are not scaled: {which}"
            )
        deviation = np.where(constant, 1.0, deviation)
        step = None if series.dates is None else str(series.dates.step)
        self.info = Info(
            series.columns, tuple(fitted.mean(0).tolist()), tuple(deviation.tolist()), step
        )
        self.values = self.info.scale(series.values)
        self.windows = dict(
            zip(
                parts._fields,
                split_windows(self.values, parts, config.context, config.horizon),
                strict=True,
            )
        )
        left = len(series) - parts.test
        train, validation, test = self.windows.values()
        launch.say(
            f"{series.name}: {len(series):,} steps of {len(series.columns)} columns; windows of "
            f"{config.context} + {config.horizon}: {len(train):,} to train on, "
            f"{len(validation):,} to validate with, {len(test):,} to "
            "test" + (f"; the last {left:,} steps are not used" if left else "")
        )
        self.period = config.season or find_period(self.values[: parts.train], config.context)
        if self.period > config.context:
            raise InputError(
                f"--season={self.period} is longer than the context of {config.context}; give a "
                "longer --context"
            )
        if config.on_linear:
            change = normalised if config.reversible else lambda batches: batches
            both = (change(passes(part)) for part in (train, validation))
            self.start = fit_linear(*both, shared=True)
            launch.say(f"the network learns what a linear map leaves over: {self.start.form}")
        return self.split_data(train, test, self.info, validation=validation)

    # The network.

    @functools.cached_property
    def model(self) -> Forecaster:
        """The network."""
        config = self.config
        options = parse_options(config.model, body(config.model), config.option)
        return Forecaster(
            config.model,
            len(self.info.columns),
            config.horizon,
            max(1, len(config.levels())),
            config.reversible,
            config.on_linear,
            tuple(sorted(options.items())),
        )

    def init(self, key: jax.Array) -> Variables:
        shape = 1, self.config.context, len(self.info.columns)
        variables: Variables = self.model.init(key, jnp.zeros(shape))
        if self.start is None:
            return variables
        linear = {
            "kernel": jnp.asarray(self.start.kernel[0], jnp.float32),
            "bias": jnp.asarray(self.start.bias[0], jnp.float32),
        }
        return {**variables, "linear": linear}

    def forward(
        self, variables: Variables, context: jax.Array, **options: Any
    ) -> tuple[jax.Array, Activations]:
        """Maps contexts [B, C, D] to forecasts [B, H, D, Q] and activations."""
        kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
        found, activations = self.model.apply(
            variables, jnp.asarray(context).astype(kind), **options
        )
        return found.astype(at_least_float32(found.dtype)), activations

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        found, _ = self.forward(
            {"params": params, **model_state}, batch["context"], train=True, rngs={"dropout": rng}
        )
        return self.measure(found, batch)["loss"], Aux(model_state, {})

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        variables = {"params": state.params, **state.model_state}
        found, _ = self.forward(variables, batch["context"])
        # Quantiles that cross are put in order, which never raises their loss (Chernozhukov et al.
        # 2010).
        return self.measure(jnp.sort(found, axis=-1), batch)

    def measure(self, found: jax.Array, batch: Batch) -> Metrics:
        """Returns the loss of forecasts [B, H, D, Q], and the errors of the point forecasts."""
        levels, target = self.config.levels(), jnp.asarray(batch["target"]).astype(found.dtype)
        error = found[..., self.point] - target
        losses = pinball(found, target, jnp.array(levels)).mean(-1) if levels else error**2
        each = {"loss": losses, "mse": error**2, "mae": jnp.abs(error)}
        weight = batch["weight"]
        return {name: Mean.of(values.mean((1, 2)), weight) for name, values in each.items()}

    @property
    def point(self) -> int:
        """The place of the point forecast among the outputs: the median, or the mean alone."""
        levels = self.config.levels()
        return levels.index(0.5) if levels else 0

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(self.forward, "context")

    # Judging.

    @functools.cached_property
    def _forecasts(self) -> Callable[[Variables, jax.Array], jax.Array]:
        return jax.jit(
            lambda variables, context: jnp.sort(self.forward(variables, context)[0], axis=-1)
        )

    def forecaster(self, variables: Variables) -> Forecast:
        """Returns a function from contexts [n, C, D] to forecasts [n, H, D, Q], both scaled."""

        def forecast(context: np.ndarray) -> np.ndarray:
            return np.asarray(self._forecasts(variables, jnp.asarray(context, jnp.float32)))

        return forecast

    def baselines(self) -> dict[str, Forecast]:
        """Returns the forecasts to beat by name, and says how they were made."""
        horizon = self.config.horizon
        found = {"persistence": persistence(horizon)}
        if self.period > 1:
            found["seasonal"] = seasonal_naive(horizon, self.period)
        period = f"{self.period} steps" if self.period > 1 else "none"
        launch.say(f"baselines: season {period}; linear map {self.linear.form}")
        return {**found, "linear": self.linear}

    @functools.cached_property
    def linear(self) -> LinearMap:
        """The linear map of least squares."""
        return fit_linear(passes(self.windows["train"]), passes(self.windows["validation"]))

    def assess(self, outcome: launch.Outcome) -> launch.Outcome:
        test = self.windows["test"]
        variables = self.computing(outcome.variables)
        own = score_forecasts(self.forecaster(variables), passes(test), point=self.point)
        self.scores: dict[str, ForecastScores] = {"model": own}
        for name, baseline in self.baselines().items():
            self.scores[name] = score_forecasts(baseline, passes(test))
        metrics = {
            f"{name}_{metric}": float(getattr(scores, metric).mean())
            for name, scores in self.scores.items()
            for metric in ("mse", "mae")
            if name != "model"
        }
        levels = self.config.levels()
        if len(levels) > 1:
            metrics |= {"coverage": own.coverage, "width": own.width}
        summary = {
            "by_column": {
                column: {"mse": float(own.mse[:, n].mean()), "mae": float(own.mae[:, n].mean())}
                for n, column in enumerate(self.info.columns)
            },
            "mse_by_step": {
                name: scores.mse.mean(1).tolist() for name, scores in self.scores.items()
            },
            **({"below": dict(zip(map(str, levels), own.below.tolist(), strict=True))} if levels
               else {}),
        }  # fmt: skip
        return outcome.extended(metrics, **summary)

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        return sections(self, self.computing(outcome.variables))

    # Use.

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> list[np.ndarray]:
        """Returns what comes after the end of each file, float64 [H, D, Q] in its own units.

        An input is the path of a CSV file, or an array [T, D] of the columns of `info.columns`.

        Raises:
            InputError: for a file that lacks a column, is shorter than the context, or is of
                another step.
        """
        return [self._predict_one(variables, one) for one in inputs]

    def _predict_one(self, variables: Variables, given: Any) -> np.ndarray:
        info, context = self.info, self.config.context
        series = self._given(given)
        if len(series) < context:
            raise InputError(
                f"{series.name} has {len(series):,} rows, and a forecast is made of {context}; "
                "give a longer series"
            )
        scaled = info.scale(series.values[-context:])
        found = self.forecaster(variables)(scaled[None])[0].astype(np.float64)
        return found * np.array(info.deviation)[:, None] + np.array(info.mean)[:, None]

    def _given(self, given: Any) -> Series:
        columns = self.info.columns
        if not isinstance(given, np.ndarray):
            series = self.read(given, columns)
            step = None if series.dates is None else str(series.dates.step)
            if step and self.info.step and len(series) > 1 and step != self.info.step:
                raise InputError(
                    f"{given} has a step of {step}, and the forecaster learned of {self.info.step}"
                    "; give a series of that step"
                )
            return series
        if given.ndim != 2 or given.shape[1] != len(columns) or not np.isfinite(given).all():
            raise InputError(
                f"an array of shape {given.shape} is not a series of {len(columns)} columns of "
                "finite "
                "numbers; give one [T, D], or the path of a CSV file"
            )
        return Series("the array", columns, given)

    def answers(
        self, inputs: Sequence[Any], outputs: Sequence[np.ndarray]
    ) -> list[list[dict[str, Any]]]:
        return [[*self._rows(*pair)] for pair in zip(inputs, outputs, strict=True)]

    def _rows(self, given: Any, output: np.ndarray) -> Iterator[dict[str, Any]]:
        series, levels = self._given(given), self.config.levels()
        for ahead, values in enumerate(output, 1):
            when = {"date": series.dates.at(len(series) + ahead - 1)} if series.dates else {}
            for column, row in zip(self.info.columns, values, strict=True):
                quantiles = zip(levels, row, strict=True) if levels else ()
                yield {
                    "ahead": ahead,
                    **when,
                    "column": column,
                    "forecast": float(row[self.point]),
                    **{f"q{level:g}": float(value) for level, value in quantiles},
                }


def passes(windows: Windows) -> Iterator[dict[str, np.ndarray]]:
    """Yields the windows of a split in batches."""
    for start in range(0, len(windows), _SCORED):
        yield windows.gather(np.arange(start, min(start + _SCORED, len(windows))))


def normalised(batches: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Yields windows in units of the deviation and the mean of their contexts, as a network sees
    them behind a new `ReversibleNorm`."""
    for batch in batches:
        context = batch["context"]
        mean = context.mean(1, keepdims=True)
        deviation = np.sqrt(context.var(1, keepdims=True) + EPSILON)
        yield {name: (values - mean) / deviation for name, values in batch.items()}


if __name__ == "__main__":
    launch.main(Forecasting)
