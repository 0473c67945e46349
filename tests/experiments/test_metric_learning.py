"""The job metric_learning: a run on a folder, its metrics and its alarm, and what it refuses."""

import json

import jax
import numpy as np
import pytest
from in_process import run_here
from PIL import Image

import dlcore
from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch import jobs
from experiments.metric_learning.evaluation import Setting

JOB = jobs.task_class("metric_learning")
CONFIG, _ = JOB.parts()
SIDE, PEOPLE, EACH = 4, 20, 4
SMALL = {"model": "mlp", "option": ("features=[8]",), "embedding": 4, "batch_size": 8}
SMALL |= {"pictures": 2, "ways": 3, "augment": "none", "warmup_steps": 0}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder for each of some persons, in folders of two groups."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in range(PEOPLE):
        folder = root / f"group{person % 2}" / f"person{person}"
        folder.mkdir(parents=True)
        face = rng.integers(60, 190, (SIDE, SIDE))
        for number in range(EACH):
            pixels = face + rng.normal(0, 20, (SIDE, SIDE))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """The outcome and the folder of a run."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG(
        steps=60, log_every=20, eval_every=60, data_path=str(people), workdir=str(folder), **SMALL
    )
    return launch.run(JOB(config)), folder


def test_what_it_reports(trained):
    outcome, folder = trained
    names = {"auc", "eer", "few_shot", "precision_at_1", "map_at_r", "rank_1", "detected"}
    assert {*outcome.metrics} == names | {f"pixels_{name}" for name in names}
    assert outcome.metrics["auc"] > 0.8 and outcome.metrics["eer"] < 0.25
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["ways"] == 3 and summary["shots"] == 1
    lines = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    train = [line for line in lines if line["split"] == "train"]
    assert train[-1]["loss"] < train[0]["loss"] and train[-1]["distance"] > 0.3


def test_it_comes_back_and_embeds_pictures(trained, people):
    _, folder = trained
    run = dlcore.load(folder)
    files = sorted(people.glob("group0/person0/*.png"))
    found = run.predict([str(file) for file in files])
    assert found.shape == (EACH, 4) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    np.testing.assert_array_equal(run.predict(pixels), found)
    answers = run.task.answers(files, found)
    assert answers[1] == {"embedding": found[1].tolist()}


@pytest.fixture
def task(trained):
    """A task whose data was read."""
    outcome, folder = trained
    return dlcore.load(folder).task


def test_the_alarm(task):
    """A collapsed net has the loss of equal embeddings, log (1 + negatives), at no distance."""
    assert task.collapsed_loss == pytest.approx(np.log(1 + 6), rel=1e-5)
    planted = {"loss": task.collapsed_loss, "distance": 1e-4}
    assert "collapse to one point" in task.watch(planted)
    assert task.watch(planted | {"distance": 0.5}) is None
    assert task.watch(planted | {"loss": 0.5}) is None


def test_a_planted_collapse_is_said_in_the_log(people, tmp_path, capfd):
    """Weights that decay to almost 0 map everything to one point."""
    flags = [f"--data_path={people}", f"--workdir={tmp_path}", "--model=mlp", "--embedding=4"]
    flags += ["--option=features=[8]", "--batch_size=8", "--pictures=2", "--ways=3"]
    flags += ["--loss=triplet", "--mining=hard", "--augment=none", "--warmup_steps=0"]
    flags += ["--nonormalise", "--weight_decay=900", "--learning_rate=1e-3", "--steps=30"]
    done = run_here(capfd, "metric_learning", [*flags, "--log_every=10", "--schedule=constant"])
    assert done.returncode == 0, done.stderr
    assert "collapse to one point" in done.stderr and "--mining=semi_hard" in done.stderr


PLANTED = "loss=triplet mining=hard nonormalise weight_decay=900 learning_rate=1e-3"


@pytest.mark.parametrize("collapses", [True, False], ids=["planted", "healthy"])
def test_the_check_fires_on_a_planted_collapse_alone(people, capfd, collapses):
    flags = [f"--data_path={people}", "--model=mlp", "--embedding=4", "--option=features=[16]"]
    flags += ["--batch_size=8", "--pictures=2", "--ways=3", "--warmup_steps=0"]
    planted = [f"--{flag}" for flag in PLANTED.split()] if collapses else []
    done = run_here(capfd, "metric_learning", [*flags, "--check", *planted])
    assert done.returncode == collapses, done.stdout + done.stderr
    assert ("collapse to one point" in done.stdout) == collapses
    assert ("FAIL  training metrics" in done.stdout) == collapses


def test_a_healthy_run_raises_no_alarm(trained, task):
    _, folder = trained
    lines = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    train = [line for line in lines if line["split"] == "train"]
    assert train and not any(task.watch(line) for line in train)


REFUSED = {
    "batch_size=9": "is not 2 --pictures of each of two or more identities; give --batch_size=8",
    "batch_size=64": "takes 32 identities with 2 --pictures each, and there are 16 to train on",
    "margin=0": "--margin=0.0 is not a number from 1e-06 on",
    "margin=-1": "--margin=-1.0 is not a number from 1e-06 on",
    "loss=info_nce margin=1": "--loss=info_nce does not read --margin",
    "loss=triplet accumulate=2": "--loss=triplet does not read --accumulate",
    "loss=triplet mining=distance_weighted": "is for L2 distances on the unit sphere",
    "loss=prototypical shots=2": "--shots=2 of --pictures=2 leave no picture to recognise",
    "augment=mixup": "mixup mixes several pictures",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_it_refuses(people, given):
    values = dict(item.split("=") for item in given.split())
    kinds = {"batch_size": int, "margin": float, "accumulate": int, "shots": int}
    values = {name: kinds.get(name, str)(value) for name, value in values.items()}
    if "margin" in values and "loss" not in values:
        values["loss"] = "triplet"
    with pytest.raises(InputError) as error:
        JOB(CONFIG(**{**SMALL, "data_path": str(people)} | values)).data()
    assert REFUSED[given] in str(error.value) and "\n" not in str(error.value)


def test_a_run_starts_from_the_encoder_of_another(trained, people, capfd):
    _, folder = trained
    config = CONFIG(data_path=str(people), init_from=str(folder), loss="arcface", **SMALL)
    task = JOB(config)
    task.info = task.data().info
    state = task.adopt(launch.task.make_state(task))
    source = dlcore.load(folder).variables["params"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], source)
    assert "restored" in capfd.readouterr().err


def test_weights_that_do_not_fit_are_refused_in_one_line(trained, people):
    _, folder = trained
    options = {"option": ("features=[]",), "embedding": 5}
    config = CONFIG(data_path=str(people), init_from=str(folder), **SMALL | options)
    task = JOB(config)
    task.info = task.data().info
    with pytest.raises(
        InputError, match="no weight of .* fits mlp: it has .*the encoder needs"
    ) as e:
        task.adopt(launch.task.make_state(task))
    assert "\n" not in str(e.value)


FOLDERS = {
    "no folders": ({"a.png": 1}, "has no folders with pictures; expected a folder for each"),
    "single pictures": (
        {f"{person}/0.png": 1 for person in "abcdefghij"},
        "has 8 identities in train, 0 of them with two or more pictures",
    ),
    "few persons": (
        {f"{person}/{number}.png": 1 for person in "abcd" for number in range(2)},
        "takes 4 identities with 2 --pictures each, and there are 2 to train on; give --batch_size",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_that_cannot_be_learned_from_are_refused(tmp_path, kind):
    files, expected = FOLDERS[kind]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (SIDE, SIDE)).save(tmp_path / name)
    with pytest.raises(InputError) as error:
        JOB(CONFIG(**SMALL, data_path=str(tmp_path))).data()
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_identities_of_one_picture_are_left_out_and_counted(tmp_path, capfd):
    for person in range(10):
        (tmp_path / f"person{person}").mkdir()
        for number in range(1 if person == 9 else 2):
            Image.new("L", (SIDE, SIDE)).save(tmp_path / f"person{person}" / f"{number}.png")
    JOB(CONFIG(**SMALL, data_path=str(tmp_path))).data()
    assert "identities of one picture in train: 1, left out" in capfd.readouterr().err


@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 1])])
def test_too_few_identities_to_judge_by_are_refused_before_training(groups):
    labels = np.array([0, 0, 1, 2 if groups is None else 1])
    with pytest.raises(InputError, match="two identities with 2 pictures.*there are 1; give"):
        Setting.of(labels, groups, ways=20, shots=1)
