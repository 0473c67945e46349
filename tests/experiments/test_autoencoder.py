"""Autoencoders from the command line: all that the job has, on as few steps as show it."""

import json

import jax
import numpy as np
import pytest
from in_process import run_here
from outcomes import summary
from PIL import Image

import dlcore
from dlcore import launch
from dlcore.data import Arrays, load_images
from dlcore.launch import jobs
from dlcore.launch.task import make_state
from dlcore.train.checkpoint import load_variables
from experiments.autoencoder.evaluators import log_likelihoods

JOB = jobs.task_class("autoencoder")
CONFIG, INFO = JOB.parts()


@pytest.fixture
def job():
    return "autoencoder"


@pytest.fixture
def common_flags(data_dir):
    return [f"--data_dir={data_dir}", "--batch_size=32", "--hidden=64"]


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The outcome and the folder of a run that was launched without a command line."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG(
        steps=300, batch_size=32, hidden=64, data_dir=str(data_dir), workdir=str(folder)
    )
    return launch.run(JOB(config)), folder


@pytest.fixture(scope="module")
def images(data_dir):
    return load_images("digits", data_dir=data_dir)


def task_of(shape=(3, 4, 1), **options):
    """A task whose data is known, without having read any."""
    task = JOB(CONFIG(**{"hidden": 6, "code": 3, **options}))
    task.info = INFO(shape)
    return task


def test_it_learns_more_than_the_mean_image(trained, images):
    outcome, folder = trained
    train, test = (split.arrays["image"] / 255 for split in (images.train, images.test))
    of_the_mean = ((test - train.mean(0)) ** 2).mean()
    assert outcome.metrics["loss"] < 0.35 * of_the_mean
    assert summary(folder)["metrics"] == outcome.metrics


def test_it_is_measured_beside_principal_components(trained, images):
    outcome, _ = trained
    train, test = (
        split.arrays["image"].reshape(len(split), -1) / 255 for split in (images.train, images.test)
    )
    mean = train.mean(0)
    _, _, space = np.linalg.svd(train - mean, full_matrices=False)
    rest = (test - mean) - (test - mean) @ space[:16].T @ space[:16]
    assert outcome.metrics["pca_error"] == pytest.approx((rest**2).mean(), rel=1e-4)
    assert outcome.metrics["neighbours_accuracy"] > 0.9 < outcome.metrics["probe_accuracy"]


def test_it_comes_back_and_draws_images_again(trained, images):
    outcome, folder = trained
    test = images.test.arrays["image"]
    loaded = dlcore.load(folder)
    drawn = loaded.predict(test)
    assert drawn.shape == test.shape and drawn.dtype == np.uint8
    error = ((drawn / 255 - test / 255) ** 2).mean()
    # Pixels are cut to 0..255, which can only help, and to whole numbers.
    assert 0.8 * outcome.metrics["loss"] < error < 1.02 * outcome.metrics["loss"]
    assert loaded.answers(test[:2])[1] == {"output": drawn[1].tolist()}


PICTURES = {"images.png", "filters.png", "interpolations.png", "map.png"}
OF_LATENTS = {"strip.png", "traversals.png", "units.png"}


@pytest.mark.parametrize(
    ("flags", "pictures"),
    [
        (["--corruption=gaussian"], PICTURES),
        pytest.param(
            [
                "--model=variational_convolutional",
                "--binarise=dynamic",
                "--importance_samples=3",
                "--evaluate=log_likelihood,latents,parzen,probe,neighbours",
            ],
            PICTURES | OF_LATENTS,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_smoke_with_a_report(run, tmp_path, flags, pictures):
    process = run("--smoke", "--precision=bfloat16", *flags, "--hidden=8", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["step"] == 2
    if "--binarise=dynamic" in flags:
        measured = {"log_likelihood", "active_units", "mutual_information", "parzen"}
        found = summary(tmp_path)["metrics"]
        assert found.keys() > measured | {"probe_accuracy", "neighbours_accuracy"}
        assert "for comparison with old papers only" in process.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert all(name in page for name in pictures)
    assert ("strip.png" in page) == (pictures != PICTURES)
    with Image.open(tmp_path / "report" / "images.png") as picture:
        assert picture.width > 500


@pytest.mark.slow
@pytest.mark.parametrize("model", ["convolutional", "variational"])
def test_the_checks_pass(run, model):
    process = run("--check", f"--model={model}", "--hidden=16")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    gradients" in process.stdout and "FAIL" not in process.stdout


def test_predictions_of_files(run, trained, tmp_path, images):
    _, folder = trained
    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = images.test.arrays["image"][number, ..., 0]
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    target = tmp_path / "out.jsonl"
    process = run(f"--predict={tmp_path / 'in'}", f"--predict_to={target}", f"--workdir={folder}")
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    drawn = dlcore.load(folder).predict(images.test.arrays["image"][:3])
    np.testing.assert_array_equal([row["output"] for row in rows], drawn)


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: x for name, x in json.loads(line).items() if name != "split"} for line in lines]


@pytest.mark.slow
def test_layouts_compute_what_jit_does_and_a_run_continues(run, tmp_path):
    """Noise, and terms that look at the whole batch, do not depend on the layout."""
    flags = ("--log_every=1", "--schedule=constant", "--model=variational", "--free_bits=0.1")
    flags += ("--beta_warmup=3", "--binarise=dynamic", "--code=4", "--evaluate=latents")
    layouts = {
        "jit": (),
        "pmap": ("--layout=pmap",),
        "mesh": ("--layout=mesh", "--mesh=data=2,fsdp=2"),
    }
    for name, more in layouts.items():
        process = run("--steps=4", *flags, *more, f"--workdir={tmp_path / name}")
        assert process.returncode == 0, process.stderr
    for name in ("pmap", "mesh"):
        for one, other in zip(metrics(tmp_path / "jit"), metrics(tmp_path / name), strict=True):
            assert one == pytest.approx(other, rel=1e-4)
    process = run("--steps=6", *flags, "--resume=must", f"--workdir={tmp_path / 'mesh'}")
    assert process.returncode == 0 and "from step 4" in process.stderr, process.stderr
    assert summary(tmp_path / "mesh")["step"] == 6


@pytest.mark.slow
def test_plan(run):
    process = run("--plan", "--devices=2", devices=1)
    assert process.returncode == 0, process.stderr
    assert "Plan of one step on 2 devices" in process.stdout


def test_layers_are_trained_one_by_one():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 1), np.uint8)
    batch = {"image": images, "weight": np.ones(5, np.float32)}
    task = task_of(layers=2, layer_steps=1, steps=4, corruption="masking")
    states = [make_state(task)]
    step = jax.jit(task.step())
    for _ in range(4):
        states.append(step(states[-1], batch)[0])
    changed = [
        {
            f"{side}/{name}"
            for side, layers in before.params.items()
            for name, own in layers.items()
            if (own["kernel"] != after.params[side][name]["kernel"]).any()
        }
        for before, after in zip(states, states[1:], strict=False)
    ]
    first = {"encoder/dense_0", "decoder/dense_2"}
    second = {"encoder/dense_1", "decoder/dense_1"}
    third = {"encoder/output", "decoder/dense_0"}
    assert changed == [first, second, third, first | second | third]


def test_a_classifier_starts_from_an_encoder(run, capfd, data_dir, tmp_path):
    flags = ["--layers=2", "--code=10", "--evaluate=pca", "--hidden=12"]
    folder = tmp_path / "stacked"
    process = run(*flags, "--layer_steps=2", "--steps=7", f"--workdir={folder}")
    assert process.returncode == 0, process.stderr

    def classify(*more):
        own = [f"--data_dir={data_dir}", "--model=mlp", "--option=features=[12,12]", "--steps=1"]
        own += [f"--init_from={folder}", "--learning_rate=0", "--augment=none", *more]
        return run_here(capfd, "image_classification", [*own, f"--workdir={tmp_path / 'second'}"])

    process = classify("--moments=unit", "--optimizer=sgd", "--weight_decay=0")
    assert process.returncode == 0, process.stderr
    assert "restored 4 leaves" in process.stderr and "warning" not in process.stderr
    source, target = (
        load_variables(path / "checkpoints")["params"] for path in (folder, tmp_path / "second")
    )
    for name in ("dense_0", "dense_1"):
        np.testing.assert_array_equal(source["encoder"][name]["kernel"], target[name]["kernel"])
    # The code has as many numbers as there are classes, and is no layer of classes.
    assert (source["encoder"]["output"]["kernel"] != target["output"]["kernel"]).any()


def test_the_penalties_are_in_the_loss():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 1), np.uint8)
    batch = {"image": images, "weight": np.ones(5, np.float32)}
    x = images.reshape(5, 12) / 255
    for options in (
        {"sparsity": "kl", "sparsity_weight": 0.5, "sparsity_target": 0.1},
        {"sparsity": "l1", "sparsity_weight": 0.5},
        {"contraction": 0.5, "layers": 0, "model": "dense"},
    ):
        task = task_of(**options)
        state = make_state(task)
        loss, aux = jax.jit(task.loss)(state.params, {}, batch, jax.random.key(0))
        code = np.asarray(task.encoding({"params": state.params}, images), np.float64)
        drawn = np.asarray(task.drawing({"params": state.params}, images)).reshape(5, 12)
        error = ((drawn - x) ** 2).mean()
        if options.get("sparsity") == "kl":
            mean = code.mean(0)
            penalty = (0.1 * np.log(0.1 / mean) + 0.9 * np.log(0.9 / (1 - mean))).sum()
        elif "sparsity" in options:
            assert code.min() == 0
            penalty = code.sum(1).mean()
        else:
            kernel = np.asarray(state.params["encoder"]["output"]["kernel"], np.float64)
            penalty = ((code * (1 - code)) ** 2 @ (kernel**2).sum(0)).mean()
        assert float(aux.metrics["reconstruction"].compute()) == pytest.approx(error, rel=1e-4)
        assert float(loss.compute()) == pytest.approx(error + 0.5 * penalty, rel=1e-4)


def test_the_gain_of_denoising():
    """In decibels, of the errors that NumPy finds for the same noise."""
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 1), np.uint8)
    batch = {"image": images, "weight": np.ones(5, np.float32)}
    task = task_of(corruption="gaussian", noise=0.3)
    state = make_state(task)
    means = {name: float(m.compute()) for name, m in task.metrics(state, batch).items()}
    found = task.summarise(dict(means), "test")
    seen = np.asarray(task.noisy(jax.random.key(1), images.astype(np.float32) / 255))
    drawn, _ = task.net.apply({"params": state.params}, seen)
    noisy, denoised = (((a - images / 255) ** 2).mean() for a in (seen, np.asarray(drawn)))
    assert found["gain_db"] == pytest.approx(10 * np.log10(noisy / denoised), abs=1e-3)
    assert found["loss"] == pytest.approx(denoised, rel=1e-4)
    assert found.keys() == {"loss", "reconstruction", "gain_db"}


def test_a_likelihood_is_a_mean_of_weights_above_the_bound():
    rng = np.random.default_rng(0)
    images = np.where(rng.random((5, 3, 4, 1)) < 0.5, 0, 255).astype(np.uint8)
    split = Arrays({"image": images})
    task = task_of(model="variational", batch_size=4)
    variables = {"params": make_state(task).params}
    found = log_likelihoods(task, variables, split, 120)
    # The first batch, in rounds of 50, 50 and 20 samples.
    parts = []
    for turn, count in enumerate((50, 50, 20)):
        key = jax.random.fold_in(jax.random.key(0), turn)
        x = images[:4].astype(np.float32) / 255
        terms = task.net.apply(variables, x, key, count, method="terms")
        parts.append(np.asarray(terms.log_likelihood + terms.log_ratio, np.float64))
    weights = np.concatenate(parts)
    np.testing.assert_allclose(found[:4], np.log(np.exp(weights).mean(0)), rtol=1e-5)
    assert (weights.mean(0) < found[:4]).all()
    # All images of bits have a probability of 1 together; these five have less.
    assert np.exp(found).sum() < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--importance_samples=0", "--model=variational"], "=0 is not an integer from 1"),
        (["--importance_samples=5", "--model=variational"], "pixels are grey; give --binarise="),
        (["--corruption=masking", "--noise=1.5"], "--noise=1.5 of --corruption=masking is a share"),
        (
            ["--evaluate=log_likelihood"],
            "log_likelihood is not for --model=dense; choose one of: pca",
        ),
        (["--evaluate=beauty"], "unknown evaluator 'beauty'"),
        (["--layer_steps=500"], "--layer_steps=500 of each of 2 layers leave none of --steps=10"),
        (["--layer_steps=1", "--ema=0.9"], "--ema needs one optimizer"),
        (["--model=variational", "--sparsity=kl"], "--model=variational does not read --sparsity"),
        (["--sparsity=kl", "--accumulate=2"], "--sparsity=kl does not read --accumulate"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, flags, message):
    process = run(*flags, "--steps=10", f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert message in process.stderr.strip().splitlines()[-1], process.stderr


def test_what_is_said_of_data_and_code(data_dir, capsys):
    JOB(CONFIG(data_dir=str(data_dir), code=64)).data()
    assert "warning: --code=64 is as wide as the 64 pixels" in capsys.readouterr().err
    JOB(CONFIG(data_dir=str(data_dir), code=64, sparsity="l1")).data()
    assert "warning" not in capsys.readouterr().err
    JOB(CONFIG(data_dir=str(data_dir), model="variational")).data()
    assert "% of the pixels are grey: the bound is for the expected" in capsys.readouterr().err
    for options in ({"binarise": "static"}, {"binarise": "dynamic"}, {"likelihood": "gaussian"}):
        JOB(CONFIG(data_dir=str(data_dir), model="variational", **options)).data()
        assert "are grey" not in capsys.readouterr().err


def test_the_divergence_warms_up(data_dir):
    config = CONFIG(data_dir=str(data_dir), model="variational", beta_warmup=4, batch_size=2)
    batches = JOB(config).data().train(1)
    assert [next(batches)["beta"].tolist() for _ in range(5)] == [
        [share] * 2 for share in (0.25, 0.5, 0.75, 1, 1)
    ]


def test_a_collapsed_posterior_is_told():
    task = task_of(model="variational")
    assert "the posterior collapses: the code has 0.02 nats" in task.watch({"kl": 0.02})
    assert task.watch({"kl": 3.0}) is None
    assert task_of().watch({"loss": 1.0}) is None
