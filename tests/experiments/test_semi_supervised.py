"""The job of classifiers that learn of few labels."""

import json

import jax
import networks
import numpy as np
import pytest
from dlcore.experiments.semi_supervised import Config, SemiSupervised
from in_process import run_here

import dlcore
from dlcore import runtime
from dlcore.errors import InputError
from dlcore.launch.task import make_state
from dlcore.train import guard

TINY = ["--width=16", "--batch_size=16", "--labels=20"]


def task_of(data_dir, **options):
    given = {"width": 16, "batch_size": 16, "labels": 20, "data_dir": str(data_dir), **options}
    task = SemiSupervised(Config(**given))
    return task, task.data()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pseudo_label", "vat"])
def test_accumulation_over_rows_of_noise_and_layouts_agree(data_dir, model):
    # Batch normalisation is over the whole batch on all devices.
    found = {}
    for name in ("jit", "pmap"):
        task, data = task_of(data_dir, model=model)
        layout = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), layout)
        state = layout.initialise(lambda task=task: make_state(task))
        state, metrics = compiled(state, next(data.train(0)))
        found[name] = state, {key: float(mean.compute()) for key, mean in metrics.items()}
    assert found["pmap"][1] == pytest.approx(found["jit"][1], rel=1e-4)
    networks.assert_close(found["pmap"][0].model_state, found["jit"][0].model_state, tolerance=1e-4)


def test_the_loss_is_the_sum_of_its_parts(data_dir):
    task, data = task_of(data_dir, costs=("100", "2", "0.5"))
    variables = jax.jit(task.init)(jax.random.key(0))
    state = {"batch_stats": variables["batch_stats"]}
    loss, aux = jax.jit(task.loss)(
        variables["params"], state, next(data.train(0)), jax.random.key(1)
    )
    parts = {name: float(mean.compute()) for name, mean in aux.metrics.items()}
    weights = [100, 2, 0.5, 0.5, 0.5, 0.5, 0.5]
    expected = sum(w * parts[f"denoising_{layer}"] for layer, w in enumerate(weights))
    assert float(loss.compute()) == pytest.approx(expected + parts["supervised_loss"], rel=1e-5)


def test_the_weight_of_pseudo_labels_rises_with_the_step(data_dir):
    _, data = task_of(data_dir, model="pseudo_label", steps=10, ramp=0.5, unlabelled_weight=3.0)
    stream = data.train(0)
    weights = [next(stream)["factor"] for _ in range(7)]
    assert [float(w[0]) for w in weights] == pytest.approx([0, 0.6, 1.2, 1.8, 2.4, 3, 3])
    np.testing.assert_array_equal(next(data.train(3))["factor"], weights[3])


def semi_supervised(capfd, data_dir, workdir, *more):
    flags = [*TINY, f"--data_dir={data_dir}", "--schedule=constant", "--log_every=1", *more]
    process = run_here(capfd, "semi_supervised", [*flags, f"--workdir={workdir}"])
    assert process.returncode == 0, process.stderr
    assert "20 of 1,500 images have a label" in process.stderr


def test_a_run_leaves_its_files_and_predicts(capfd, data_dir, tmp_path):
    semi_supervised(capfd, data_dir, tmp_path, "--steps=2", "--report")
    first = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert "denoising_0" in json.loads(first)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "confusion.png" in page and "mistakes.png" in page
    loaded, images = dlcore.load(tmp_path), np.zeros((3, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(loaded.predict(images).sum(1), 1, rtol=1e-5)
    assert {"class", "probability", "top"} == set(loaded.answers(images)[0])


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(capfd, data_dir, tmp_path):
    for folder, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        semi_supervised(capfd, data_dir, tmp_path / folder, f"--steps={steps}")
    whole, parts = (dlcore.load(tmp_path / folder) for folder in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)
    lines = [
        (tmp_path / f / "metrics.jsonl").read_text(encoding="utf-8") for f in ("whole", "parts")
    ]
    rows = [[json.loads(line) for line in text.splitlines()] for text in lines]
    train = [[row for row in each if row["split"] == "train"] for each in rows]
    assert len(train[0]) == 4 and train[0] == train[1]


@pytest.mark.slow
def test_the_checks_pass(capfd, data_dir):
    flags = ["--width=32", "--labels=20", f"--data_dir={data_dir}", "--model=gamma", "--check"]
    process = run_here(capfd, "semi_supervised", flags)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 0}, "--labels=0 of 1500 training examples is not possible"),
        ({"labels": 1501}, "give 1 to 1500"),
        ({"labels": 9}, "without a labelled example"),
        ({"costs": ("a",)}, "--costs=a are not numbers"),
        ({"costs": ("1",) * 8}, "8 --costs are more than the 7 layers"),
    ],
)
def test_bad_input_is_one_line(data_dir, options, message):
    with pytest.raises(InputError, match=message) as error:
        task_of(data_dir, **options)
    assert "\n" not in str(error.value)


def test_flags_of_other_models_are_refused():
    for options in ({"costs": ("1",)}, {"combinator": "vanilla"}, {"radius": 1.0}):
        with pytest.raises(InputError, match="does not read"):
            Config(model="supervised", **options)
