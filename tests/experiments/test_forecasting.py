"""The job of forecasters."""

import csv
import json

import jax
import networks
import numpy as np
import pytest
from dlcore.experiments.forecasting import Config, Forecasting
from in_process import run_here

import dlcore
from dlcore import runtime
from dlcore.errors import InputError
from dlcore.launch.task import make_state
from dlcore.train import guard

TINY = ["--option=features=4", "--context=16", "--horizon=4", "--batch_size=16"]
SUMMARY = ("persistence_mse", "linear_mse", "linear_mae", "mse", "mae", "loss")


def task_of(**options):
    given = {"option": ("features=4",), "context": 16, "horizon": 4, "batch_size": 16, **options}
    task = Forecasting(Config(**given))
    return task, task.data()


@pytest.fixture
def written(tmp_path):
    def write(name="series.csv", rows=120, header="date,load,heat", start=1):
        t = np.arange(rows)
        lines = [header]
        for n, (a, b) in enumerate(zip(50 + 9 * np.sin(t / 2), 3 * np.cos(t / 3), strict=True)):
            day = np.datetime64("2020-01-01") + start + n
            lines.append(f"{day},{a:.4f},{b:.4f}")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gru", "transformer"])
def test_layouts_agree(model):
    option = ("features=4",) if model == "gru" else ("features=8", "heads=2", "patch=8")
    # Adam would make steps of gradients that are 0 but for rounding.
    options = {"model": model, "option": option, "quantiles": ("0.1", "0.5"), "reversible": True,
               "optimizer": "sgd", "learning_rate": 0.1}  # fmt: skip
    found = {}
    for name in ("jit", "pmap"):
        task, data = task_of(**options)
        layout = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), layout)
        state = layout.initialise(lambda task=task: make_state(task))
        for _, batch in zip(range(2), data.train(0), strict=False):
            state, metrics = compiled(state, batch)
        found[name] = state, float(metrics["loss"].compute())
    assert found["pmap"][1] == pytest.approx(found["jit"][1], rel=1e-4)
    networks.assert_close(found["pmap"][0].params, found["jit"][0].params, tolerance=1e-4)


def test_accumulation_changes_nothing():
    found = []
    for parts in (1, 4):
        task, data = task_of(accumulate=parts, optimizer="sgd")
        state, metrics = jax.jit(task.step())(make_state(task), next(data.train(0)))
        found.append((state.params, float(metrics["loss"].compute())))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    networks.assert_close(found[0][0], found[1][0], tolerance=1e-5)


def test_the_loss_by_plain_numpy():
    task, data = task_of(quantiles=("0.9", "0.5"))
    state = make_state(task)
    batch = dict(next(data.test()))
    batch["weight"] = np.array([1, 0] * 8, np.float32)
    found = task.metrics(state, batch)
    y = task.forward({"params": state.params, **state.model_state}, batch["context"])[0]
    y = np.sort(np.asarray(y), -1)
    error = batch["target"][..., None] - y
    losses = np.maximum([0.5, 0.9] * error, [-0.5, -0.1] * error)[::2]
    assert float(found["loss"].compute()) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(found["mae"].compute()) == pytest.approx(
        np.abs(error[::2, ..., 0]).mean(), rel=1e-5
    )
    assert float(found["mse"].compute()) == pytest.approx(
        (error[::2, ..., 0] ** 2).mean(), rel=1e-5
    )


def test_the_linear_map_stays_and_the_run_starts_with_it():
    task, data = task_of()
    state = make_state(task)
    batch = next(data.train(0))
    y, _ = task.forward({"params": state.params, **state.model_state}, batch["context"])
    np.testing.assert_allclose(y, task.start(batch["context"]), atol=1e-4)
    after, _ = jax.jit(task.step())(state, batch)
    networks.assert_equal(after.model_state["linear"], state.model_state["linear"])
    before, now = (each.params["network"]["head"]["kernel"] for each in (state, after))
    assert not np.array_equal(before, now)
    assert not make_state(task_of(residual=False)[0]).model_state
    plain, _ = task_of(model="linear", option=())
    assert not plain.config.on_linear and plain.start is None


def forecasting(capfd, path, workdir, *more):
    flags = [*TINY, f"--data_path={path}", "--schedule=constant", "--log_every=1",
             "--quantiles=0.1,0.5,0.9", f"--workdir={workdir}", *more]  # fmt: skip
    process = run_here(capfd, "forecasting", flags)
    assert process.returncode == 0, process.stderr
    assert "series.csv: 120 steps of 2 columns; windows of 16 + 4: 65 to" in process.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(capfd, written, tmp_path):
    path = written()
    for folder, steps in (("whole", 8), ("parts", 4), ("parts", 8)):
        forecasting(capfd, path, tmp_path / folder, f"--steps={steps}")
    whole, parts = (dlcore.load(tmp_path / folder) for folder in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


def test_a_run_reports_and_predicts(capfd, written, tmp_path):
    forecasting(capfd, written(), tmp_path / "whole", "--steps=8", "--report")
    whole = dlcore.load(tmp_path / "whole")
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text(encoding="utf-8"))
    assert {*SUMMARY, "coverage", "width", "seasonal_mse"} <= {*summary["metrics"]}
    assert list(summary["by_column"]) == ["load", "heat"]
    assert [len(steps) for steps in summary["mse_by_step"].values()] == [4] * 4
    assert list(summary["below"]) == ["0.1", "0.5", "0.9"]
    own = [summary["by_column"][name]["mse"] for name in ("load", "heat")]
    assert summary["metrics"]["mse"] == pytest.approx(np.mean(own), rel=1e-4)
    page = (tmp_path / "whole" / "report" / "index.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("forecasts.png", "error_by_step.png", "Coverage"))

    further = written("further.csv", 30, "date,other,load,heat".replace("other,", ""), 200)
    stamp = (tmp_path / "whole" / "summary.json").stat().st_mtime_ns
    ask = [f"--workdir={tmp_path / 'whole'}", f"--predict={further}"]
    process = run_here(capfd, "forecasting", ask)
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(rows) == 8 and rows[0]["input"] == str(further)
    assert [row["ahead"] for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert rows[0]["date"] == str(np.datetime64("2020-01-01") + 230)
    assert rows[0]["column"] == "load" and rows[1]["column"] == "heat"
    for row in rows:
        assert row["q0.1"] <= row["q0.5"] == row["forecast"] <= row["q0.9"]
    # The linear map alone knows this sine by heart, in its own units.
    truth = 50 + 9 * np.sin(np.arange(30, 34) / 2)
    np.testing.assert_allclose([row["forecast"] for row in rows[::2]], truth, atol=3)
    table = tmp_path / "answers.csv"
    process = run_here(capfd, "forecasting", [*ask, f"--predict_to={table}"])
    assert process.returncode == 0, process.stderr
    with table.open(encoding="utf-8", newline="") as file:
        read = [*csv.DictReader(file)]
    assert [float(row["forecast"]) for row in read] == [row["forecast"] for row in rows]
    assert (tmp_path / "whole" / "summary.json").stat().st_mtime_ns == stamp
    # An array is forecast as a file is.
    values = np.array([[50 + 9 * np.sin(t / 2), 3 * np.cos(t / 3)] for t in range(30)])
    np.testing.assert_allclose(
        whole.predict([values.round(4)])[0], whole.predict([further])[0], rtol=1e-5
    )


def test_files_that_cannot_be_forecast(capfd, written, tmp_path):
    path, at = written(), f"--workdir={tmp_path / 'run'}"
    flags = [*TINY, f"--data_path={path}", "--steps=1", at]
    assert run_here(capfd, "forecasting", flags).returncode == 0
    trained = dlcore.load(tmp_path / "run")
    for given, message in (
        (written("short.csv", 15), "short.csv has 15 rows, and a forecast is made of 16"),
        (written("other.csv", 30, "date,load,cold"), "unknown column of .* 'heat'"),
        (np.zeros((20, 3)), "is not a series of 2 columns"),
        (np.full((20, 2), np.nan), "is not a series of 2 columns"),
    ):
        with pytest.raises(InputError, match=message):
            trained.predict([given])
    hours = tmp_path / "hours.csv"
    stamps = [f"2020-01-01 {hour:02}:00:00,1,2" for hour in range(20)]
    hours.write_text("\n".join(["date,load,heat", *stamps]), encoding="utf-8")
    with pytest.raises(InputError, match="has a step of 3600 s, and the forecaster learned of"):
        trained.predict([hours])
    gap = tmp_path / "gap.csv"
    gap.write_text("load,heat\n" + "1,2\n" * 20 + "1,\n", encoding="utf-8")
    process = run_here(capfd, "forecasting", [at, f"--predict={gap}"])
    assert process.returncode == 2 and "gap.csv:22, column 'heat' is empty" in process.stderr
    process = run_here(capfd, "forecasting", [at, f"--predict={gap}", "--gaps=interpolate"])
    assert process.returncode == 0 and "1 empty cells" in process.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantiles": ("0.1", "0.9")}, "lack the median"),
        ({"quantiles": ("a",)}, "are not different numbers between 0 and 1"),
        ({"quantiles": ("0.5", "0.5")}, "are not different numbers"),
        ({"quantiles": ("0.5", "1")}, "are not different numbers"),
        ({"context": 600}, "the train part of the series has 560 rows, and a window takes 604"),
        ({"horizon": 100}, "the validation part of the series has 80 rows"),
        ({"split": "0.9,0.2,0.1"}, "is not TRAIN,VALIDATION,TEST"),
        ({"columns": ("nose",)}, "unknown column of eeg 'nose'"),
        ({"season": 17}, "--season=17 is longer than the context of 16"),
        ({"data_path": "nowhere.csv"}, "cannot read nowhere.csv"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        task_of(**options)
    assert "\n" not in str(error.value)


def test_options_that_are_not_read():
    with pytest.raises(InputError, match="--model=linear does not read --residual"):
        Config(model="linear").refuse_unread(["residual"])
    task, _ = task_of(option=("width=4",))
    with pytest.raises(InputError, match="unknown option of gru 'width'; choose one of: dropout"):
        task.model  # noqa: B018


def test_a_constant_column_is_said_and_not_scaled(capfd, tmp_path):
    path = tmp_path / "flat.csv"
    rows = [f"{np.sin(t)},7.1" for t in range(100)]
    path.write_text("\n".join(["a,flat", *rows]), encoding="utf-8")
    task, _ = task_of(data_path=str(path))
    assert (
        "these columns are constant in the training part and so are not scaled: flat"
        in capfd.readouterr().err
    )
    assert task.info.deviation[1] == 1
    np.testing.assert_allclose(task.values[:, 1], 0, atol=1e-6)
    assert task.info.step is None


@pytest.mark.slow
def test_the_checks_pass(capfd):
    flags = ["--context=16", "--horizon=4", "--check", "--option=dropout=0.0"]
    process = run_here(capfd, "forecasting", flags)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(
    "model", ["gru", *(pytest.param(m, marks=pytest.mark.slow) for m in
              ("rnn", "lstm", "convolution", "transformer", "linear"))]
)  # fmt: skip
def test_the_smoke_test(capfd, tmp_path, model):
    flags = [f"--model={model}", "--smoke", "--precision=bfloat16", f"--workdir={tmp_path}"]
    process = run_here(capfd, "forecasting", flags)
    assert process.returncode == 0, process.stderr
    assert "forecasting: test loss" in process.stdout and "persistence_mse" in process.stdout


@pytest.mark.slow
def test_a_sum_of_sines_is_forecast_better_than_by_persistence(capfd, written, tmp_path):
    path = written(rows=600)
    flags = [f"--data_path={path}", "--noresidual", "--context=32", "--horizon=8", "--steps=200",
             "--learning_rate=5e-3", f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    process = run_here(capfd, "forecasting", flags)
    assert process.returncode == 0, process.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["mse"] < 0.1 * summary["metrics"]["persistence_mse"]
