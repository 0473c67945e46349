"""The job of generative adversarial networks."""

import json

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from dlcore.experiments.gan import GAN, Config
from in_process import run_here
from PIL import Image

import dlcore
from dlcore import launch, runtime
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.launch.task import make_state
from dlcore.train import guard

TINY = ["--model=dense", "--hidden=8", "--noise=4", "--batch_size=16"]
RING = ["--dataset=ring", *TINY]


def lines(folder):
    return [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def classifier(data_dir, tmp_path_factory):
    """A run of image_classification of few steps."""
    job = jobs.task_class("image_classification")
    folder = tmp_path_factory.mktemp("classifier")
    config, _ = job.parts()
    options = {"model": "mlp", "augment": "none", "data_dir": str(data_dir)}
    with jax.numpy_dtype_promotion("standard"):
        launch.run(job(config(steps=30, eval_every=0, workdir=str(folder), **options)))
    return folder


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """The folder of a run on points, without a command line."""
    folder = tmp_path_factory.mktemp("ring")
    options = {"discriminator_steps": 2, "ema": 0.9, "schedule": "constant", "dataset": "ring"}
    options |= {"model": "dense", "hidden": 8, "noise": 4, "batch_size": 16}
    config = Config(steps=5, log_every=1, eval_every=2, workdir=str(folder), **options)
    launch.run(GAN(config))
    return folder


def test_the_generator_learns_at_every_second_step(ring):
    rows = [row for row in lines(ring) if row["split"] == "train"]
    assert [row["step"] for row in rows if row.get("generator_loss") is not None] == [2, 4]
    assert "good" in json.loads((ring / "summary.json").read_text(encoding="utf-8"))["start"]


@pytest.mark.slow
def test_a_killed_run_of_both_optimizers_goes_on_bit_for_bit(capfd, ring, tmp_path):
    flags = [*RING, "--discriminator_steps=2", "--ema=0.9", "--log_every=1", "--eval_every=2"]
    for steps in (3, 5):
        at = f"--workdir={tmp_path}"
        process = run_here(capfd, "gan", [*flags, f"--steps={steps}", "--schedule=constant", at])
        assert process.returncode == 0, process.stderr
    whole, parts = (dlcore.load(folder) for folder in (ring, tmp_path))
    networks.assert_equal(whole.variables, parts.variables)
    rows = [[row for row in lines(at) if row["split"] == "train"] for at in (ring, tmp_path)]
    assert len(rows[0]) == 5 and rows[0] == rows[1]


def test_what_a_finished_run_draws_changes_nothing_in_it(capfd, ring, tmp_path):
    before = sorted((p, p.stat().st_mtime_ns) for p in ring.rglob("*"))
    for name in ("one", "two"):
        asked = ["--generate=300", f"--generate_to={tmp_path / name}.npz"]
        process = run_here(capfd, "gan", [*asked, f"--workdir={ring}"])
        assert process.returncode == 0 and "300 samples" in process.stderr, process.stderr
    one, two = (arrays(tmp_path / f"{name}.npz")["point"] for name in ("one", "two"))
    assert one.shape == (300, 2) and one.dtype == np.float32
    np.testing.assert_array_equal(one, two)
    assert sorted((p, p.stat().st_mtime_ns) for p in ring.rglob("*")) == before
    process = run_here(capfd, "gan", [f"--workdir={ring}", "--generate=3", "--generate_to=folder"])
    assert process.returncode == 2 and "points go to a file" in process.stderr


def test_a_report_of_images_by_class_that_a_classifier_judges(
    capfd, data_dir, classifier, tmp_path
):
    flags = [*TINY, f"--data_dir={data_dir}", "--condition=projection", "--smoke"]
    flags += [f"--features={classifier}", "--precision=bfloat16", f"--workdir={tmp_path / 'run'}"]
    process = run_here(capfd, "gan", flags)
    assert process.returncode == 0, process.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    for metrics in (summary["metrics"], summary["start"]):
        assert metrics["frechet"] > 0 and 0 <= metrics["called_by_label"] <= 1
        assert 0 <= metrics["precision"] <= 1 and "pixel_frechet" not in metrics
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    for name in ("stages", "classes", "interpolations", "neighbours"):
        assert f"{name}.png" in page
    assert sorted(p.name for p in (tmp_path / "run" / "pictures").iterdir()) == [
        "step_000001.png",
        "step_000002.png",
    ]
    asked = ["--generate=12", f"--generate_to={tmp_path / 'drawn'}"]
    process = run_here(capfd, "gan", [*asked, f"--workdir={tmp_path / 'run'}"])
    assert process.returncode == 0, process.stderr
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names[0] == "00_class_0.png" and names[-1] == "11_class_1.png"
    with Image.open(tmp_path / "drawn" / names[0]) as image:
        assert image.size == (8, 8)


def test_the_checks_pass(capfd, data_dir):
    process = run_here(capfd, "gan", [*TINY, f"--data_dir={data_dir}", "--check"])
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    overfit one batch" in process.stdout


def task_of(**options):
    task = GAN(Config(dataset="ring", hidden=8, noise=4, batch_size=16, **options))
    return task, task.data()


@pytest.mark.slow
def test_layouts_and_accumulation_agree_on_penalties():
    found = {}
    for name in ("jit", "pmap"):
        task, data = task_of(loss="wasserstein", r1=0.5, accumulate=1 if name == "jit" else 2)
        layout = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), layout)
        state, batches = layout.initialise(lambda task=task: make_state(task)), data.train(0)
        for _ in range(2):
            state, metrics = compiled(state, next(batches))
        found[name] = state.params, metrics
    reference, expected = found["jit"]
    for params, metrics in found.values():
        networks.assert_close(params, reference, tolerance=1e-5)
        for name in ("r1", "loss", "told_apart"):
            value = float(metrics[name].compute())
            assert value == pytest.approx(float(expected[name].compute()), rel=1e-4), name


def test_the_average_is_of_the_generator_alone():
    from dlcore.optim import averaged

    task, data = task_of(ema=0.5)
    state = jax.jit(lambda: make_state(task))()
    state, _ = jax.jit(task.step())(state, next(data.train(0)))
    average = averaged(state.opt_state, state.params)
    networks.assert_equal(average["discriminator"], state.params["discriminator"])
    kernel = [tree["generator"]["body"]["output"]["kernel"] for tree in (average, state.params)]
    assert not np.array_equal(*kernel)


def test_rates_by_path_hold_for_each_player():
    task, data = task_of(rate_factor=("^discriminator/:0",))
    state = jax.jit(lambda: make_state(task))()
    new, _ = jax.jit(task.step())(state, next(data.train(0)))
    networks.assert_equal(new.params["discriminator"], state.params["discriminator"])
    assert not np.array_equal(
        new.params["generator"]["body"]["output"]["kernel"],
        state.params["generator"]["body"]["output"]["kernel"],
    )


def test_a_discriminator_that_has_won_is_said():
    task, _ = task_of()
    assert "has won" in task.watch({"discriminator_loss": 0.004})
    assert task.watch({"discriminator_loss": 0.5}) is None
    assert task_of(loss="wasserstein")[0].watch({"discriminator_loss": -30.0}) is None


def test_samples_of_the_data_itself_are_judged_perfect():
    task, data = task_of()
    points = task.mixture.draw(400, np.random.default_rng(7)).arrays["point"]
    real = next(iter(data.test()))["point"]
    scores = task.summarise({"features": (np.tile(real, (30, 1)), points)}, "test")
    assert scores["modes"] == 8 and scores["good"] > 0.97
    with pytest.raises(InputError, match="not finite"):
        task.summarise({"features": (points, points * np.inf)}, "test")


def test_each_row_of_a_pass_has_noise_of_its_own():
    _, data = task_of()
    numbers = np.concatenate([batch["number"] for batch in data.test()])
    assert len(np.unique(numbers)) == len(numbers) >= 2500


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--discriminator_steps=0"], "--discriminator_steps"),
        (["--penalty=ridge"], "--penalty is for one loss"),
        (["--model=dcgan", "--hidden=8"], "does not read --hidden"),
        (["--dataset=ring", "--model=dcgan"], "are points; --model=dense"),
        (["--dataset=ring", "--features=x"], "--features is for images"),
        (["--image_size=9"], "9x9 pixels cannot be halved"),
        (["--r1=1", "--norm=batch"], "--norm=batch lets the logit"),
        (["--gradient_penalty=1"], "does not read --gradient_penalty"),
    ],
)
def test_bad_input_is_one_line(capfd, data_dir, tmp_path, flags, message):
    at = [f"--data_dir={data_dir}", f"--workdir={tmp_path}", "--steps=2"]
    process = run_here(capfd, "gan", [*at, *flags])
    assert process.returncode == 2 and message in process.stderr, process.stderr
    assert process.stderr.strip().count("error:") == 1


def test_features_of_other_images_are_refused(capfd, data_dir, classifier, ring, tmp_path):
    flags = [*TINY, f"--data_dir={data_dir}", f"--features={classifier}", "--image_size=16"]
    process = run_here(capfd, "gan", [*flags, f"--workdir={tmp_path / 'a'}"])
    assert process.returncode == 2, process.stderr
    assert "has learned images of 8x8x1, but those drawn here are 16x16x1" in process.stderr
    flags[-2:] = [f"--features={ring}"]
    process = run_here(capfd, "gan", [*flags, f"--workdir={tmp_path / 'b'}"])
    assert process.returncode == 2 and "is a run of gan" in process.stderr


def test_equal_logits_are_half_told_apart():
    from dlcore.experiments.gan import _told_apart

    found = _told_apart(jnp.array([1.0, 0.0, 2.0]), jnp.array([1.0, 1.0, 1.0]))
    assert found.tolist() == [0.5, 0.0, 1.0]
