"""The job of machines that infer algorithms."""

import json
import math

import jax
import networks
import numpy as np
import pytest
from dlcore.experiments.algorithms import Algorithms, Config
from in_process import run_here
from outcomes import assert_fails, summary

import dlcore
from dlcore import runtime
from dlcore.errors import InputError
from dlcore.launch.task import make_state
from dlcore.train import guard

SMALL = {"bits": 2, "longest": 3, "hidden": 12, "rows": 10, "width": 4, "batch_size": 8}
FLAGS = [f"--{name}={value}" for name, value in SMALL.items()]


def task_of(**options):
    task = Algorithms(Config(**(SMALL | options)))
    return task, task.data()


def step_of(layout, **options):
    task, data = task_of(**options)
    layout = runtime.layout(layout)
    state = layout.initialise(lambda: make_state(task))
    state, metrics = runtime.compile_step(guard(task.step()), layout)(state, next(data.train(0)))
    return state.params, {name: float(mean.compute()) for name, mean in metrics.items()}


@pytest.mark.slow
def test_layouts_and_accumulation_agree():
    params, metrics = step_of("jit")
    # Without a mean over rows of different weights, which a mean of means would get wrong.
    for layout, options in (("pmap", {}), ("jit", {"accumulate": 4})):
        found = step_of(layout, **options)
        assert found[1] == pytest.approx(metrics, rel=1e-4)
        networks.assert_close(found[0], params, tolerance=1e-4)


def test_the_loss_is_the_mean_over_sequences_of_their_mean_over_bits():
    task, data = task_of()
    batch = next(data.train(0))
    variables = jax.jit(task.init)(jax.random.key(0))
    weight = np.ones(8, np.float32)
    weight[5:] = 0
    given = {**batch, "weight": weight}
    loss, _ = jax.jit(task.loss)(variables["params"], {}, given, jax.random.key(1))
    logits = np.asarray(task.forward(variables, batch["input"])[0], np.float64)
    means = []
    for row in range(5):
        counted = batch["mask"][row] > 0
        x, y = logits[row][counted], batch["target"][row][counted]
        means.append(np.mean(np.log1p(np.exp(-x)) * y + np.log1p(np.exp(x)) * (1 - y)))
    assert float(loss.compute()) == pytest.approx(np.mean(means), rel=1e-5)
    assert float(loss.compute()) == pytest.approx(math.log(2), rel=0.1)


def test_more_steps_of_padding_change_no_loss():
    task, data = task_of()
    batch = next(data.train(0))
    longer = {
        name: np.pad(batch[name], [(0, 0), (0, 4), *[(0, 0)] * (batch[name].ndim - 2)])
        for name in ("input", "target", "mask")
    }
    variables = jax.jit(task.init)(jax.random.key(0))
    losses = [
        float(jax.jit(task.loss)(variables["params"], {}, one, jax.random.key(1))[0].compute())
        for one in (batch, {**batch, **longer})
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_an_lstm_has_as_many_parameters():
    counts = {}
    for model in ("ntm", "lstm"):
        task, _ = task_of(model=model, hidden=30, rows=20)
        params = jax.eval_shape(task.init, jax.random.key(0))["params"]
        counts[model] = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counts["lstm"] == pytest.approx(counts["ntm"], rel=0.02)


def test_batches_are_functions_of_seed_and_step():
    _, data = task_of()
    stream = data.train(0)
    batches = [next(stream) for _ in range(3)]
    networks.assert_equal(next(data.train(2)), batches[2])
    _, other = task_of(seed=1)
    assert not np.array_equal(next(other.train(0))["input"], batches[0]["input"])
    # Tests are the same for every seed, so that runs are compared by the same sequences.
    networks.assert_equal(next(data.test()), next(other.test()))


def test_scores_are_counted_over_all_bits():
    task, _ = task_of()
    rows = {
        "length": np.array([1, 1, 3]),
        "count": np.array([2.0, 2, 6]),
        "nats": np.array([1.0, 2, 3]),
        "wrong": np.array([1.0, 0, 0]),
        "best": np.zeros(3),
    }
    found = task.summarise({"rows": rows}, "test")
    assert found == pytest.approx(
        {"loss": 0.6, "bit_error": 0.1, "sequence_error": 1 / 3, "solved": 0}
    )
    assert task.errors == {1: 0.25, 3: 0.0}
    rows["wrong"] *= 0
    assert task.summarise({"rows": rows}, "test")["solved"] == 1
    assert "solved" not in task.summarise({"rows": rows}, "length_6")


def algorithms(capfd, workdir, *more):
    flags = [*FLAGS, "--log_every=1", "--beyond=5", "--beyond=7", "--eval_every=2"]
    flags += ["--schedule=constant", f"--workdir={workdir}", *more]
    process = run_here(capfd, "algorithms", flags)
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(capfd, tmp_path):
    for folder, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        algorithms(capfd, tmp_path / folder, f"--steps={steps}")
    whole, parts = (dlcore.load(tmp_path / folder) for folder in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


def test_a_run_reports_and_answers(capfd, tmp_path):
    algorithms(capfd, tmp_path / "whole", "--steps=4", "--report")
    whole = dlcore.load(tmp_path / "whole")
    written = summary(tmp_path / "whole")
    assert {*written["bit_error_by_length"]} == {"1", "2", "3", "5", "7"}
    assert {"bit_error", "solved", "length_5_bit_error", "length_7_loss"} <= {*written["metrics"]}
    pages = [path.name for path in (tmp_path / "whole" / "report").glob("*.png")]
    assert {"errors.png", "memory.png", "memory_beyond.png"} <= {*pages}
    answered = whole.answers(["01 11", "10"])
    assert answered[0]["expected"] == "01 11" and len(answered[0]["output"]) == 5
    alone = whole.predict(["10"])[0]
    np.testing.assert_allclose(whole.predict(["01 11", "10"])[1], alone, atol=1e-6)
    given = tmp_path / "problems.txt"
    given.write_text("01 11\n1 0\n", encoding="utf-8")
    ask = [f"--workdir={tmp_path / 'whole'}", f"--predict={given}"]
    assert_fails(run_here(capfd, "algorithms", ask), "input 2, '1 0'", "vectors of 2 bits")
    given.write_text("01 11\n", encoding="utf-8")
    process = run_here(capfd, "algorithms", ask)
    assert json.loads(process.stdout)["expected"] == "01 11"


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], marks=pytest.mark.slow),
        pytest.param(["--task=repeat_copy", "--repeats=2"], marks=pytest.mark.slow),
        pytest.param(["--task=associative_recall", "--model=lstm"], marks=pytest.mark.slow),
        pytest.param(["--task=priority_sort", "--read_heads=2", "--write_heads=2"],
                     marks=pytest.mark.slow),
        pytest.param(["--task=sort", "--controller=lstm"], marks=pytest.mark.slow),
        pytest.param(["--task=copy", "--precision=bfloat16", "--layout=mesh"],
                     marks=pytest.mark.slow),
        pytest.param(["--task=dynamic_ngrams", "--longest=20"], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_smoke_test_passes(capfd, tmp_path, flags):
    sizes = ["--hidden=12", "--rows=10", "--width=4", f"--workdir={tmp_path}"]
    process = run_here(capfd, "algorithms", [*sizes, *flags, "--smoke"])
    assert process.returncode == 0, process.stderr
    metrics = summary(tmp_path)["metrics"]
    assert metrics["solved"] == 0 and all(np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
def test_the_checks_pass(capfd):
    process = run_here(capfd, "algorithms", [*FLAGS, "--check"])
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beyond": (3,)}, "--beyond=3 is not beyond the lengths of training, which go to 3"),
        ({"beyond": (9, 1)}, "--beyond=1"),
        ({"beyond": (5000,)}, "too long; give at most 4096"),
        ({"task": "associative_recall", "longest": 1}, "too short for associative_recall; give 2"),
        ({"task": "dynamic_ngrams", "bits": None, "longest": 5}, "give 6 or more"),
        ({"rows": 2}, "go from 0 to 0"),
        ({"rows": 9, "reach": 5}, "choose one of them"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        task_of(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"rows": 0}, {"width": 0}, {"hidden": 0}, {"read_heads": 0}, {"write_heads": 0},
        {"beyond": (0,)}, {"longest": 0}, {"bits": 0}, {"batch_size": 0}, {"task": "halve"},
        {"task": "dynamic_ngrams", "bits": 2}, {"repeats": 3},
    ],
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError):
        Config(**options)
