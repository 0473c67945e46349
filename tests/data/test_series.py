"""Time series: reading CSV files, splits and windows."""

import datetime

import numpy as np
import pytest

from dlcore.data.loader import Loader, evaluation_batches
from dlcore.data.series import (
    Parts,
    Step,
    Windows,
    load_series,
    read_series,
    split_rows,
    split_windows,
)
from dlcore.errors import InputError

HOURS = [f"2020-01-01 {hour:02}:00:00" for hour in range(6)]


@pytest.fixture
def written(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "series.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def dated(dates, header="date,a"):
    return "\n".join([header, *(f"{date},{n}" for n, date in enumerate(dates))]) + "\n"


def test_a_file_with_dates(written):
    series = read_series(written("date,a,b\r\n2020-01-31,1,2\r\n2020-02-29,3,-4e1\r\n"))
    assert series.columns == ("a", "b") and series.notes == ()
    np.testing.assert_array_equal(series.values, [[1, 2], [3, -40]])
    assert str(series.dates.step) == "1 month"
    assert series.dates.at(1) == "2020-02-29"


def test_a_file_without_dates_and_chosen_columns(written):
    path = written('\ufeffa,"b, b",c\n1,2,x\n\n3,4,y\n')
    series = read_series(path, columns=["b, b", "a"])
    np.testing.assert_array_equal(series.values, [[2, 1], [4, 3]])
    assert series.dates is None
    assert series.notes == (f"1 blank lines of {path} are left out",)


def test_dates_go_on_after_the_end(written):
    months = read_series(written(dated(["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"])))
    assert str(months.dates.step) == "1 month"
    assert [months.dates.at(n) for n in (4, 13)] == ["2020-05-31", "2021-02-28"]
    quarters = read_series(written(dated(["2020-03-01", "2020-06-01", "2020-09-01"])))
    assert str(quarters.dates.step) == "3 months" and quarters.dates.at(4) == "2021-03-01"
    hours = read_series(written(dated(HOURS)))
    assert str(hours.dates.step) == "3600 s" and hours.dates.at(6) == "2020-01-01 06:00:00"
    days = read_series(written(dated(["2020-02-27", "2020-02-28", "2020-02-29"])))
    assert days.dates.at(3) == "2020-03-01"
    half = read_series(written(dated(["2020-01-01 00:00:00.1", "2020-01-01 00:00:00.2"])))
    assert half.dates.at(3) == "2020-01-01 00:00:00.400000"


def test_months_that_lack_a_day():
    first = datetime.datetime(2023, 1, 30)
    found = [Step(1, 0.0).after(first, n).date().isoformat() for n in range(4)]
    assert found == ["2023-01-30", "2023-02-28", "2023-03-30", "2023-04-30"]


def test_gaps_are_filled_and_counted(written):
    text = "date,a\n2020-01-01,\n2020-01-02,2\n2020-01-05,8\n2020-01-06,NaN\n"
    path = written(text)
    series = read_series(path, gaps="interpolate")
    np.testing.assert_allclose(series.values.ravel(), [2, 2, 4, 6, 8, 8])
    assert series.notes == (
        f"2 missing dates of {path} are filled in between their neighbours",
        f"2 empty cells of {path} are filled in between their neighbours",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n1,2\n3\n", ":3 has 1 cells, the header 2"),
        ("a,b\n1,x\n", ":2, column 'b' holds 'x', which is not a finite number"),
        ("a,b\n1,inf\n", ":2, column 'b' holds 'inf'"),
        ('a,b\n1,"1,5"\n', "holds '1,5', which is not a finite number; write numbers such as 1.5"),
        ("a,b\n1,\n", ":2, column 'b' is empty; fill it"),
        ("a,b\n,1\n", ":2, column 'a' is empty"),
        ("a;b\n1;2\n", ":1 separates its columns by semicolons"),
        ("a\tb\n1\t2\n", ":1 separates its columns by tabs"),
        ("a,b,a\n1,2,3\n", ":1 names column 'a' twice"),
        ("a,\n1,2\n", "column 2 of .* has no name"),
        ("1,2\n3,4\n", ":1 is numbers; give it a first line that names the columns"),
        ("date\n2020-01-01\n", "a column of dates alone"),
        ("date,a\n01.07.2016,1\n", ":2 begins with '01.07.2016', which is neither a number nor"),
        ("date,a\n2020-01-01,1\nsoon,2\n", ":3 begins with 'soon'"),
        (dated(["2020-01-02", "2020-01-01"]), ":3: 2020-01-01 does not come after"),
        (dated(["2020-01-01", "2020-01-01"]), ":3: 2020-01-01 does not come after"),
        (dated([*HOURS[:2], HOURS[4]]), ":4: 2 dates are missing before 2020-01-01 04:00:00"),
        (dated([*HOURS[:3], "2020-01-01 03:30:00"]), ":5: 2020-01-01 03:30:00 is not at"),
        (dated(["2020-01-01", "2020-01-01T01:00:00+00:00"]), "have a zone and others none"),
        ('a,b\n1,"2\n', "is not a line of CSV"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(written, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_series(written(text))
    assert "\n" not in str(error.value)


def test_more_bad_files(written, tmp_path):
    with pytest.raises(InputError, match="line 2 of .* is not UTF-8"):
        read_series(written("a,b\n1,é\n", "latin-1"))
    with pytest.raises(InputError, match="cannot read .*: Is a directory"):
        read_series(tmp_path)
    with pytest.raises(InputError, match="cannot read .*: No such file"):
        read_series(tmp_path / "none.csv")
    with pytest.raises(InputError, match="unknown column of .* 'c'; choose one of: a, b"):
        read_series(written("a,b\n1,2\n"), columns=["c"])
    with pytest.raises(InputError, match="--columns names column 'a' twice"):
        read_series(written("a,b\n1,2\n"), columns=["a", "a"])
    with pytest.raises(InputError, match="column 'b' of .* is empty"):
        read_series(written("a,b\n1,\n2,\n"), gaps="interpolate")
    with pytest.raises(InputError, match="lacks 36,522 of 36,525 dates"):
        read_series(written(dated(["2020-01-01", "2020-01-02", "2120-01-01"])), gaps="interpolate")


def test_the_embedded_series():
    eeg, stocks = load_series("eeg"), load_series("stocks")
    assert eeg.values.shape == (800, 4) and np.isfinite(eeg.values).all()
    assert stocks.values.shape == (390, 7) and stocks.dates.at(389) == "2022-06-01"
    np.testing.assert_allclose(np.exp(stocks.values[0, 0]), 10.970438003540039)
    assert stocks.only(["MSFT"]).columns == ("MSFT",)
    with pytest.raises(InputError, match="unknown series 'ecg'; choose one of: eeg, stocks"):
        load_series("ecg")
    with pytest.raises(InputError, match="unknown column of eeg"):
        eeg.only(["channel_9"])


def test_splits():
    assert split_rows("0.7,0.1,0.2", 800) == Parts(560, 640, 800)
    assert split_rows("8640,2880,2880", 17_420) == Parts(8640, 11_520, 14_400)
    assert split_rows("0.5,0.1,0.1", 100) == Parts(50, 60, 70)
    for wrong in (
        "0.7,0.3",
        "a,b,c",
        "0.7,0.3,0",
        "0.5,0.5,0.5",
        "10,0.1,0.2",
        "1,-2,3",
        "1,nan,1",
    ):
        with pytest.raises(InputError, match="is not TRAIN,VALIDATION,TEST; give three shares"):
            split_rows(wrong, 100)
    with pytest.raises(InputError, match="has 101 rows, the series 100"):
        split_rows("50,50,1", 100)


def test_every_step_of_a_part_is_forecast_and_none_of_another():
    values = np.arange(20, dtype=np.float32)[:, None]
    train, validation, test = split_windows(values, Parts(10, 14, 20), context=3, horizon=2)
    assert [len(part) for part in (train, validation, test)] == [6, 3, 5]
    for part, low, high in ((train, 3, 9), (validation, 10, 13), (test, 14, 19)):
        found = part.gather(np.arange(len(part)))
        assert found["target"].min() == low and found["target"].max() == high
        np.testing.assert_array_equal(found["context"][:, -1, 0] + 1, found["target"][:, 0, 0])
        assert found["context"].dtype == np.float32
    # The benchmark's numbers of windows: 12, 4 and 4 months of hours, 336 steps to 96.
    parts = split_windows(np.zeros((17_420, 1)), Parts(8640, 11_520, 14_400), 336, 96)
    assert [len(part) for part in parts] == [8209, 2785, 2785]


@pytest.mark.parametrize(
    ("parts", "context", "horizon", "message"),
    [
        (Parts(4, 14, 20), 3, 2, "the train part of the series has 4 rows, and a window takes 5"),
        (Parts(10, 11, 20), 3, 2, "the validation part .* has 1 rows, and a window takes 2"),
        (Parts(10, 19, 20), 3, 2, "the test part .* has 1 rows, and a window takes 2"),
        (Parts(1, 1, 1), 64, 16, "the train part of the series has 1 rows"),
        (Parts(10, 14, 20), 3, 30, "or a smaller --context or --horizon"),
    ],
)
def test_a_part_that_is_too_short(parts, context, horizon, message):
    with pytest.raises(InputError, match=message):
        split_windows(np.zeros((20, 1), np.float32), parts, context, horizon)


def test_batches_are_functions_of_seed_step_and_process():
    values = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    windows = Windows(values, np.arange(50), 6, 3)
    whole = Loader(windows, 8, seed=3).batch(11)
    halves = [
        Loader(windows, 8, seed=3, process_index=n, process_count=2).batch(11) for n in (0, 1)
    ]
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), array)
    counted = sum(batch["weight"].sum() for batch in evaluation_batches(windows, 8))
    assert counted == 50
    chosen = windows.subset(np.array([4, 2])).gather(np.array([1]))
    np.testing.assert_array_equal(chosen["target"][0], values[8:11])
