"""The job of Boltzmann machines, as a user runs it."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_process import run_here
from outcomes import assert_fails, summary

import dlcore
from dlcore import launch
from dlcore.data import load_images
from dlcore.launch import jobs

likelihood = importlib.import_module("dlcore.experiments.boltzmann.likelihood")
JOB = jobs.task_class("boltzmann")
CONFIG, _ = JOB.parts()


@pytest.fixture
def job():
    return "boltzmann"


@pytest.fixture
def common_flags(data_dir):
    return [f"--data_dir={data_dir}", "--batch_size=32"]


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The outcome and the folder of a machine of 16 hidden units, which is judged exactly."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG(
        steps=400,
        batch_size=32,
        hidden=(16,),
        eval_every=200,
        data_dir=str(data_dir),
        workdir=str(folder),
    )
    return launch.run(JOB(config)), folder


def test_it_learns_more_than_how_often_pixels_are_on(trained, data_dir):
    outcome, folder = trained
    assert summary(folder)["metrics"] == outcome.metrics
    train, test = (
        split.arrays["image"] / 255 for split in _bits(load_images("digits", data_dir=data_dir))
    )
    p = train.mean(0).clip(0.01, 0.99)
    independent = (test * np.log(p) + (1 - test) * np.log(1 - p)).sum((1, 2, 3)).mean()
    assert outcome.metrics["log_likelihood"] > independent + 2
    assert outcome.metrics["pseudo_log_likelihood"] > independent + 2
    # No bar: this log Z is exact, and by free energies of the summary's own.
    log_z = summary(folder)["log_z"]
    assert log_z["effective"] is None and log_z["low"] == log_z["value"]
    found = -outcome.metrics["free_energy"] - log_z["value"]
    assert found == pytest.approx(outcome.metrics["log_likelihood"], abs=1e-3)
    gap = outcome.metrics["train_log_likelihood"] - outcome.metrics["log_likelihood"]
    assert gap == pytest.approx(outcome.metrics["free_energy_gap"], abs=1e-3)
    rows = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    likelihoods = [row["pseudo_log_likelihood"] for row in rows if row["split"] == "test"]
    assert len(likelihoods) == 2 and likelihoods == sorted(likelihoods)
    assert all("free_energy" in row for row in rows)


def _bits(images):
    from dlcore.data.bits import static_bits

    return static_bits(images.train, 0), static_bits(images.test, 1)


def test_it_comes_back_and_gives_codes(trained, data_dir):
    outcome, folder = trained
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    images = load_images("digits", data_dir=data_dir).test.arrays["image"][:5]
    loaded = dlcore.load(folder)
    codes = loaded.predict(images)
    layer = {name: np.asarray(x) for name, x in outcome.variables["params"]["dense_0"].items()}
    field = images.reshape(5, -1) / 255 @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(codes, 1 / (1 + np.exp(-field)), atol=1e-5)
    assert loaded.answers(images)[0] == {"code": codes[0].tolist()}
    assert before == sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


SMOKE = {
    "rbm": ("--log_likelihood=ais", "--precision=bfloat16"),
    "dbn": ("--model=dbn", "--up_down_steps=100"),
    "gaussian": ("--visible=gaussian", "--learn_variance", "--chains=2", "--temperatures=3"),
    "softmax": ("--visible=softmax", "--sparsity=squared", "--centre", "--k=2"),
}


@pytest.mark.parametrize(
    "case",
    [
        "rbm",
        pytest.param("dbn", marks=pytest.mark.slow),
        pytest.param("gaussian", marks=pytest.mark.slow),
        pytest.param("softmax", marks=pytest.mark.slow),
    ],
)
def test_smoke_with_a_report(run, tmp_path, case):
    process = run("--smoke", *SMOKE[case], f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    metrics = summary(tmp_path)["metrics"]
    assert np.isfinite([*metrics.values()]).all()
    wanted = {"bound_1", "bound_2", "bound_up_down"} if case == "dbn" else {"log_likelihood"}
    assert wanted <= {*metrics}
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for name in ("strip", "chains", "samples", "filters_1"):
        assert f"{name}.png" in page and (tmp_path / "report" / f"{name}.png").stat().st_size > 5000


def test_estimates_that_are_far_apart_are_not_trusted(data_dir, tmp_path, capfd):
    """A machine with large weights, annealed in two steps."""
    task = JOB(CONFIG(hidden=(30,), data_dir=str(data_dir), ais_steps=2, ais_chains=4))
    task.workdir = tmp_path
    task.data()
    rbm = task.belief.layers[0]
    params = {name: x * 300 for name, x in rbm.init(jax.random.key(0)).items()}
    images = dict.fromkeys(("train", "test"), jnp.zeros((20, rbm.visible)))
    found = likelihood.judge(
        task.belief, task.stack, {"dense_0": params}, images, task.mean, task.config
    )
    assert found.metrics["log_likelihood_below"] < found.metrics["log_likelihood"] - 1
    assert "warning: the two estimates of log Z are" in found.lines[-1]


REFUSED = {
    "grey": (["--binarise=none"], ["are grey", "--binarise=static or dynamic"]),
    "k": (["--k=0"], ["--k=0", "from 1 to"]),
    "exact": (["--log_likelihood=exact"], ["64 visible", "2^64", "20 units", "GFLOP", "=ais"]),
    "two layers": (["--hidden=4", "--hidden=4"], ["--model=rbm with 2", "one hidden layer"]),
    "one layer": (["--model=dbn", "--hidden=4"], ["--model=dbn with 1", "two or more"]),
    "steps": (["--model=dbn", "--steps=3", "--up_down_steps=2"], ["--steps=3", "more --steps"]),
    "tempering": (["--temperatures=3"], ["--chains=0 does not read --temperatures"]),
    "bits": (["--visible=gaussian", "--binarise=static"], ["does not read --binarise"]),
    "average": (["--model=dbn", "--ema=0.9"], ["--model=dbn does not read --ema"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(run, tmp_path, case):
    flags, words = REFUSED[case]
    assert_fails(run(*flags, f"--workdir={tmp_path}"), *words)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rbm", "dbn"])
def test_the_checks_pass(run, model):
    process = run("--check", f"--model={model}")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    overfit" in process.stdout and "FAIL" not in process.stdout


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: x for name, x in json.loads(line).items() if name != "split"} for line in lines]


# All that is random, or kept from step to step: chains, their temperatures, and means.
KEPT = ("--chains=2", "--temperatures=3", "--centre", "--sparsity=cross_entropy", "--hidden=8")


@pytest.mark.slow
def test_layouts_compute_what_jit_does_and_a_run_continues_bit_for_bit(run, tmp_path):
    flags = (*KEPT, "--log_every=1", "--schedule=constant", "--log_likelihood=none")
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
    process = run("--steps=2", *flags, f"--workdir={tmp_path / 'parts'}")
    assert process.returncode == 0, process.stderr
    process = run("--steps=4", *flags, "--resume=must", f"--workdir={tmp_path / 'parts'}")
    assert process.returncode == 0 and "from step 2" in process.stderr, process.stderr
    assert metrics(tmp_path / "parts")[-2:] == metrics(tmp_path / "jit")[-2:]


@pytest.mark.slow
def test_a_network_starts_a_classifier_of_sigmoid_units(run, capfd, data_dir, tmp_path):
    flags = ("--model=dbn", "--hidden=12", "--hidden=10", "--log_likelihood=none", "--steps=4")
    process = run(*flags, "--learning_rate=0.5", f"--workdir={tmp_path / 'dbn'}")
    assert process.returncode == 0, process.stderr
    process = run_here(
        capfd,
        "image_classification",
        [
            *("--model=mlp", "--option=features=[12,10]", "--option=activation=sigmoid"),
            *("--moments=unit", "--augment=none", "--steps=1", "--learning_rate=0"),
            *("--weight_decay=0", f"--init_from={tmp_path / 'dbn'}", f"--data_dir={data_dir}"),
            f"--workdir={tmp_path / 'classifier'}",
        ],
    )
    assert process.returncode == 0, process.stderr
    assert "restored 4 leaves" in process.stderr, process.stderr
    belief, classifier = (dlcore.load(tmp_path / name) for name in ("dbn", "classifier"))
    images = load_images("digits", data_dir=data_dir).test.arrays["image"][:4]
    _, activations = classifier.task.forward(classifier.variables, images)
    np.testing.assert_allclose(belief.predict(images), activations["activation_1"], atol=1e-6)
    # Which is not the network's start: it has learned.
    first = belief.task.first_variables()["params"]["dense_1"]["kernel"]
    assert np.abs(np.asarray(first) - belief.params["dense_1"]["kernel"]).max() > 0.01
