"""Time series: tables with equal steps in CSV files, and the windows that forecasters learn from.

The first line of a file names its columns. The first column may be dates in ISO 8601, such as
2016-07-01 or 2016-07-01 13:00:00, which must have equal steps, in seconds or in months.

Shapes: T steps of a series, D columns, C steps of a context, H steps of a horizon, N windows.
"""

import calendar
import collections
import csv
import dataclasses
import datetime
import io
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlcore.data.sources import Batch
from dlcore.errors import InputError, choose, pick
from dlcore.files import read_text

# What stands in an empty cell.
_EMPTY = {"", "na", "n/a", "nan", "null", "none"}
# Ways to treat what a file lacks.
GAPS = ("error", "interpolate")


class Step(NamedTuple):
    """The distance of neighbouring dates.

    Attributes:
        months: the step in months; 0 where it is in seconds.
        seconds: the step in seconds, where it is not in months.
        ends: whether dates are the last days of their months.
    """

    months: int
    seconds: float
    ends: bool = False

    def after(self, first: datetime.datetime, count: int) -> datetime.datetime:
        """Returns the date that lies a number of steps after the first one.

        >>> Step(1, 0).after(datetime.datetime(2023, 1, 30), 1).date().isoformat()
        '2023-02-28'
        """
        if not self.months:
            return first + datetime.timedelta(seconds=self.seconds * count)
        years, month = divmod(first.month - 1 + self.months * count, 12)
        year = first.year + years
        last = calendar.monthrange(year, month + 1)[1]
        day = last if self.ends else min(first.day, last)
        return first.replace(year=year, month=month + 1, day=day)

    def between(self, first: datetime.datetime, date: datetime.datetime) -> int | None:
        """Returns how many steps lie between two dates; None where this is not a whole number."""
        if self.months:
            count = _months(first, date) // self.months
        else:
            count = round((date - first).total_seconds() / self.seconds)
        return count if self.after(first, count) == date else None

    def __str__(self) -> str:
        """Returns the step in words.

        >>> str(Step(0, 3600.0)), str(Step(1, 0))
        ('3600 s', '1 month')
        """
        if self.months:
            return f"{self.months} month{'s' if self.months > 1 else ''}"
        return f"{self.seconds:g} s"


def _months(first: datetime.datetime, date: datetime.datetime) -> int:
    return 12 * (date.year - first.year) + date.month - first.month


class Dates(NamedTuple):
    """The dates of a series: the first one, and the step to the next."""

    first: datetime.datetime
    step: Step

    def at(self, number: int) -> str:
        """Returns the date of a row by its number from 0 on, in ISO 8601.

        >>> Dates(datetime.datetime(2016, 7, 1), Step(0, 3600.0)).at(1)
        '2016-07-01 01:00:00'
        """
        date = self.step.after(self.first, number)
        whole = not (self.step.seconds % 86_400 or date.time() != datetime.time())
        return date.date().isoformat() if whole else date.isoformat(" ")


@dataclasses.dataclass(frozen=True)
class Series:
    """Values at equal steps.

    Attributes:
        name: the name of the series in logs and errors.
        columns: the name of each column.
        values: the values, float64 [T, D].
        dates: the dates, where they are known.
        notes: lines for the log about what was left out or filled in.
    """

    name: str
    columns: tuple[str, ...]
    values: np.ndarray
    dates: Dates | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def only(self, columns: Sequence[str]) -> "Series":
        """Returns the series of the named columns, in that order; of all if none is named.

        Raises:
            InputError: for a column that does not exist, or is named twice.
        """
        if not columns:
            return self
        _check_unique(columns, "--columns")
        for column in columns:
            if column not in self.columns:
                raise choose(f"column of {self.name}", column, self.columns)
        places = [self.columns.index(column) for column in columns]
        return dataclasses.replace(self, columns=tuple(columns), values=self.values[:, places])


def load_series(name: str) -> Series:
    """Returns a series that Matplotlib ships, by its name in `EMBEDDED_SERIES`.

    "eeg" has four channels of an electroencephalogram, 800 steps of 12.5 ms; "stocks" has the
    natural logarithms of monthly prices of the ten shares and indices that were traded in all of
    the 390 months from 1990 on.

    Raises:
        InputError: for any other name.
    """
    return pick("series", name, EMBEDDED_SERIES)()


def _sample(name: str) -> pathlib.Path:
    # Matplotlib takes a while to import, and this module imports none of it.
    import matplotlib

    return pathlib.Path(matplotlib.get_data_path()) / "sample_data" / name


def _eeg() -> Series:
    values = np.frombuffer(_sample("eeg.dat").read_bytes(), np.float64).reshape(800, 4)
    return Series("eeg", tuple(f"channel_{number}" for number in range(1, 5)), values.copy())


def _stocks() -> Series:
    lines = _sample("Stocks.csv").read_text(encoding="utf-8").splitlines()
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    # Other lines are days of dividends, without prices, and the last one is a month's begin.
    months = [row for row in rows if row[0].endswith("-01") and row[1]]
    whole = [i for i in range(1, len(header)) if all(row[i] for row in months)]
    values = np.log([[float(row[i]) for i in whole] for row in months])
    dates = Dates(datetime.datetime.fromisoformat(months[0][0]), Step(1, 0))
    return Series("stocks", tuple(header[i].lstrip("^") for i in whole), values, dates)


EMBEDDED_SERIES = {"eeg": _eeg, "stocks": _stocks}


# Reading.


def read_series(
    path: str | pathlib.Path, *, columns: Sequence[str] = (), gaps: str = "error"
) -> Series:
    """Reads a series from a CSV file, whose first line names the columns.

    Args:
        path: the path of the file.
        columns: the columns to read, in this order; by default all except the dates.
        gaps: one of `GAPS`: whether an empty cell or a missing date is an error, or is filled by
            linear interpolation between its neighbours, or at an end by the nearest value.

    Raises:
        InputError: for anything except numbers at equal steps under unique names; the message names
            the line.
    """
    path = pathlib.Path(path).expanduser()
    table = _read_table(path)
    first = table.rows[0].cells[0]
    dated = _number(first) is None and first.lower() not in _EMPTY
    places = _chosen(table, columns, dated)
    names = tuple(table.header[place] for place in places)
    values = np.array([[_value(row, place, table, gaps) for place in places] for row in table.rows])
    dates, rows = _dates(table, gaps) if dated else (None, [*range(len(table.rows))])
    whole = np.full((rows[-1] + 1, len(places)), np.nan)
    whole[rows] = values
    notes = list(table.notes)
    if missing := len(whole) - len(values):
        notes.append(f"{missing:,} missing dates of {path} are filled in between their neighbours")
    if empty := int(np.isnan(values).sum()):
        notes.append(f"{empty:,} empty cells of {path} are filled in between their neighbours")
    for name, column in zip(names, whole.T, strict=True):
        known = np.flatnonzero(np.isfinite(column))
        if not len(known):
            raise InputError(f"column {name!r} of {path} is empty; leave it out by --columns")
        column[:] = np.interp(np.arange(len(column)), known, column[known])
    return Series(path.name, names, whole, dates, tuple(notes))


class _Row(NamedTuple):
    line: int
    cells: list[str]


class _Table(NamedTuple):
    path: pathlib.Path
    header: list[str]
    rows: list[_Row]
    notes: tuple[str, ...]


def _read_table(path: pathlib.Path) -> _Table:
    """Returns the cells of a file; raises InputError where its lines differ in length."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, blank = [], 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_Row(reader.line_num, [cell.strip() for cell in cells]))
            else:
                blank += 1
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num} is not a line of CSV ({error}); separate cells by commas"
        ) from None
    if not rows:
        raise InputError(f"{path} is empty; give a CSV file whose first line names the columns")
    (line, header), *rows = rows
    for separator, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(
                f"{path}:{line} separates its columns by {word}; separate them by commas, with a "
                "point in decimal numbers"
            )
    if all(_number(name) is not None for name in header):
        raise InputError(f"{path}:{line} is numbers; give it a first line that names the columns")
    _check_unique([name for name in header if name], f"{path}:{line}")
    if not rows:
        raise InputError(f"{path} has a header and no rows; give one with a row for each step")
    for row in rows:
        if len(row.cells) != len(header):
            raise InputError(
                f"{path}:{row.line} has {len(row.cells)} cells, the header {len(header)}; give "
                "each line as many, separated by commas"
            )
    notes = (f"{blank:,} blank lines of {path} are left out",) if blank else ()
    return _Table(path, header, rows, notes)


def _check_unique(names: Sequence[str], where: str) -> None:
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where} names column {twice[0]!r} twice; give each column one name")


def _chosen(table: _Table, columns: Sequence[str], dated: bool) -> list[int]:
    """Returns the indices of the columns to read."""
    possible = range(int(dated), len(table.header))
    if not possible:
        raise InputError(
            f"{table.path} has a column of dates alone; give it a column of numbers too"
        )
    if columns:
        _check_unique(columns, "--columns")
        names = [table.header[place] for place in possible if table.header[place]]
        for column in columns:
            if column not in names:
                raise choose(f"column of {table.path}", column, names)
        return [table.header.index(column) for column in columns]
    for place in possible:
        if not table.header[place]:
            raise InputError(
                f"column {place + 1} of {table.path} has no name; name it in the first line, or "
                "choose others by --columns"
            )
    return [*possible]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _value(row: _Row, place: int, table: _Table, gaps: str) -> float:
    """Returns the number in a cell; NaN for an empty one that may be filled."""
    cell = row.cells[place]
    where = f"{table.path}:{row.line}, column {table.header[place]!r}"
    if cell.lower() in _EMPTY:
        if gaps == "interpolate":
            return math.nan
        raise InputError(
            f"{where} is empty; fill it, leave the column out by --columns, or take "
            "--gaps=interpolate"
        )
    value = _number(cell)
    if value is None or not math.isfinite(value):
        short = cell if len(cell) <= 40 else f"{cell[:40]}..."
        raise InputError(
            f"{where} holds {short!r}, which is not a finite number; write numbers such as 1.5, or "
            "choose other columns by --columns"
        )
    return value


def _dates(table: _Table, gaps: str) -> tuple[Dates, list[int]]:
    """Returns the dates of a table, and the number of steps from the first to each of its rows."""
    dates = [_date(table, row) for row in table.rows]
    aware = [date.tzinfo is not None for date in dates]
    if any(aware) != all(aware):
        row = table.rows[aware.index(not aware[0])]
        raise InputError(
            f"{table.path}:{row.line}: some dates have a zone and others none; give all one form"
        )
    for row, before, date in zip(table.rows[1:], dates, dates[1:], strict=False):
        if date <= before:
            raise InputError(
                f"{table.path}:{row.line}: {row.cells[0]} does not come after {before}; sort the "
                "lines by date, one for each step"
            )
    if len(dates) == 1:
        # Anything goes, and no series of one row is long enough.
        return Dates(dates[0], Step(0, 1.0)), [0]
    found = [_places(dates, step) for step in _steps(dates)]
    # The step that fits farther; the first one where both fit.
    step, places = max(found, key=lambda each: len(each[1]))
    if len(places) < len(dates):
        row = table.rows[len(places)]
        raise InputError(
            f"{table.path}:{row.line}: {row.cells[0]} is not at the step of {step} that the other "
            "dates have; give a series of equal steps"
        )
    if gaps == "error":
        for row, place, before in zip(table.rows[1:], places[1:], places, strict=False):
            if place != before + 1:
                raise InputError(
                    f"{table.path}:{row.line}: {place - before - 1:,} dates are missing before "
                    f"{row.cells[0]} at a step of {step}; fill them, or take --gaps=interpolate"
                )
    if places[-1] + 1 > 2 * len(places):
        raise InputError(
            f"{table.path} lacks {places[-1] + 1 - len(places):,} of {places[-1] + 1:,} dates at a "
            f"step of {step}; give a series of which at least half is there"
        )
    return Dates(dates[0], step), places


def _date(table: _Table, row: _Row) -> datetime.datetime:
    cell = row.cells[0]
    try:
        return datetime.datetime.fromisoformat(cell)
    except ValueError:
        raise InputError(
            f"{table.path}:{row.line} begins with {cell[:40]!r}, which is neither a number nor a "
            "date; write dates as 2016-07-01 or 2016-07-01 13:00:00"
        ) from None


def _steps(dates: Sequence[datetime.datetime]) -> list[Step]:
    """Returns the smallest step between two dates, in months if it has any, and in seconds."""
    pairs = [*zip(dates, dates[1:], strict=False)]
    seconds = min((after - before).total_seconds() for before, after in pairs)
    months = min(_months(before, after) for before, after in pairs)
    ends = all(date.day == calendar.monthrange(date.year, date.month)[1] for date in dates)
    return [*([Step(months, 0.0, ends)] if months > 0 else []), Step(0, seconds)]


def _places(dates: Sequence[datetime.datetime], step: Step) -> tuple[Step, list[Any]]:
    """Returns how many steps lie before each date, up to the first that is between two steps."""
    counts = (step.between(dates[0], date) for date in dates)
    return step, [*itertools.takewhile(lambda count: count is not None, counts)]


# Windows.


@dataclasses.dataclass(frozen=True)
class Windows:
    """A split of windows of a series; a window is a context and the horizon after it.

    Attributes:
        values: the values of the series, float32 [T, D].
        starts: int [N], the first step of each context.
        context: C.
        horizon: H.

    >>> windows = Windows(np.arange(6, dtype=np.float32)[:, None], np.array([0, 2]), 3, 1)
    >>> windows.gather(np.array([1]))["context"].ravel().tolist()
    [2.0, 3.0, 4.0]
    """

    values: np.ndarray
    starts: np.ndarray
    context: int
    horizon: int

    def __len__(self) -> int:
        return len(self.starts)

    def gather(self, indices: np.ndarray) -> Batch:
        """Gathers {"context": [n, C, D], "target": [n, H, D]}, float32, of windows at indices."""
        steps = self.starts[indices][:, None] + np.arange(self.context + self.horizon)
        found = self.values[steps]
        return {"context": found[:, : self.context], "target": found[:, self.context :]}

    def subset(self, indices: np.ndarray) -> "Windows":
        """Returns a split of the windows at indices alone."""
        return dataclasses.replace(self, starts=self.starts[indices])


class Parts(NamedTuple):
    """The rows at which the parts of a series end: training, validation and test, in this order."""

    train: int
    validation: int
    test: int


def split_rows(split: str, rows: int) -> Parts:
    """Returns the parts of a series.

    Args:
        split: TRAIN,VALIDATION,TEST as shares of all rows, such as 0.7,0.1,0.2, or as numbers of
            rows, such as 8640,2880,2880. Rows after them are not used.
        rows: T.

    Raises:
        InputError: for any other text, and for more rows than the series has.

    >>> split_rows("0.7,0.1,0.2", 100)
    Parts(train=70, validation=80, test=100)
    """
    given = split.split(",")
    wrong = InputError(
        f"--split={split} is not TRAIN,VALIDATION,TEST; give three shares such as 0.7,0.1,0.2, or "
        "three numbers of rows such as 8640,2880,2880"
    )
    try:
        numbers = [float(one) for one in given]
    except ValueError:
        raise wrong from None
    if len(numbers) != 3 or not all(0 < number < math.inf for number in numbers):
        raise wrong
    if all(one.strip().isdecimal() for one in given):
        ends = np.cumsum([int(one) for one in given]).tolist()
    elif all(number < 1 for number in numbers) and sum(numbers) < 1 + 1e-9:
        # Rounded, so that 0.7 + 0.1 + 0.2 is all of it.
        ends = np.round(np.cumsum(numbers) * rows, 6).astype(int).tolist()
    else:
        raise wrong
    if ends[-1] > rows:
        raise InputError(
            f"--split={split} has {ends[-1]:,} rows, the series {rows:,}; give fewer, or shares"
        )
    return Parts(*ends)


def split_windows(values: np.ndarray, parts: Parts, context: int, horizon: int) -> list[Windows]:
    """Returns the windows for training, validation and test, each one step after the other.

    The horizons of a part lie wholly within it; its contexts reach back into the part before, as is
    customary (Zhou et al. 2021), so that the first step of a part is forecast too.

    Args:
        values: the values of the series, float32 [T, D].
        parts: the ends of the parts.
        context: C.
        horizon: H.

    Raises:
        InputError: where a part is too short for a window.
    """
    starts = (0, parts.train - context, parts.validation - context)
    found = []
    for name, start, end in zip(Parts._fields, starts, parts, strict=True):
        count = end - start - context - horizon + 1
        if count < 1:
            rows, need = end - max(start, 0), context + horizon
            if name != "train":
                rows, need = end - start - context, horizon
            raise InputError(
                f"the {name} part of the series has {rows:,} rows, and a window takes {need:,} "
                f"(context {context}, horizon {horizon}); give a longer series, another --split, "
                "or a smaller --context or --horizon"
            )
        found.append(Windows(values, np.arange(start, start + count), context, horizon))
    return found
