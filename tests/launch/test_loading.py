"""A trained run, given back: what it reported, and nothing in its folder changes."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
from scipy import stats

import dlcore
from dlcore import launch
from dlcore.data import load_images
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.train.checkpoint import load_variables

JOB = jobs.task_class("image_classification")
CONFIG, _ = JOB.parts()


def hashes(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Trains an MLP on the digits with further options; gives the outcome and the folder."""
    data_dir = str(tmp_path_factory.mktemp("data"))

    def train(**options):
        folder = tmp_path_factory.mktemp("run")
        config = CONFIG(
            model="mlp",
            batch_size=32,
            data_dir=data_dir,
            augment="none",
            workdir=str(folder),
            **{"steps": 60, "eval_every": 20, **options},
        )
        return launch.run(JOB(config)), folder

    return train


@pytest.fixture(scope="module")
def plain(train):
    return train()


def accuracy(trained):
    data = load_images("digits", data_dir=trained.config.data_dir)
    outputs = trained.predict(list(data.test.arrays["image"]))
    return float((outputs.argmax(1) == data.test.arrays["label"]).mean())


def test_a_run_comes_back_with_all_that_it_needs(plain):
    outcome, folder = plain
    before = hashes(folder)
    trained = dlcore.load(folder)
    assert trained.step == 60 and trained.config.model == "mlp"
    assert trained.info.class_names == tuple("0123456789")
    assert trained.summary["metrics"]["accuracy"] == outcome.metrics["accuracy"]
    jax.tree.map(np.testing.assert_array_equal, trained.variables, outcome.variables)
    assert accuracy(trained) == pytest.approx(outcome.metrics["accuracy"])
    assert hashes(folder) == before


def test_the_best_variables_where_patience_chose_them(train):
    outcome, folder = train(
        steps=400,
        patience=2,
        validation=0.2,
        optimizer="sgd",
        learning_rate=0.0,
        weight_decay=0.0,
        checkpoint_every=10,
    )
    trained = dlcore.load(folder)
    assert trained.step == outcome.step == 20
    assert max(int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")) == 60
    jax.tree.map(np.testing.assert_array_equal, trained.variables, outcome.variables)


@pytest.mark.slow
def test_the_averaged_variables_where_the_run_reported_them(train):
    outcome, folder = train(ema=0.9)
    trained = dlcore.load(folder)
    jax.tree.map(np.testing.assert_array_equal, trained.variables, outcome.variables)
    raw = load_variables(folder / "checkpoints")["params"]["dense_0"]["kernel"]
    assert not np.array_equal(raw, trained.params["dense_0"]["kernel"])
    assert accuracy(trained) == pytest.approx(outcome.metrics["accuracy"])


def test_a_damaged_checkpoint_is_passed_over_where_it_lies(train):
    _, folder = train(checkpoint_every=30)
    newest = folder / "checkpoints" / "60" / "state"
    path = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
    path.write_bytes(bytes(path.stat().st_size))
    before = hashes(folder)
    assert dlcore.load(folder).step == 40 or dlcore.load(folder).step == 30
    assert hashes(folder) == before


def test_options_that_a_run_may_change_and_those_that_it_fixes(plain):
    _, folder = plain
    assert dlcore.load(folder, top=2).config.top == 2
    with pytest.raises(InputError, match="model: mlp then, lenet5 now"):
        dlcore.load(folder, model="lenet5")


def test_dropout_samples_are_thinned_networks_and_tell_how_sure_they_are(train, plain):
    outcome, folder = train(option=("dropout=0.5", "features=[16]"), steps=20)
    loaded = dlcore.load(folder, dropout_samples=3)
    data = load_images("digits", data_dir=loaded.config.data_dir)
    images = data.test.arrays["image"][:3]
    found = loaded.predict(images)
    task = loaded.task

    @jax.jit
    def alone(image, key):  # In training mode, a net without other noise drops by the same mask.
        rngs = {"dropout": key}
        logits, _ = task.forward(loaded.variables, image[None], train=True, rngs=rngs)
        return jax.nn.softmax(logits[0])

    keys = jax.random.split(jax.random.key(task.config.seed), 3)
    expected = np.array([[alone(image, key) for image in images] for key in keys])
    np.testing.assert_allclose(found.probabilities, expected.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found.entropy, stats.entropy(expected.mean(0), axis=-1), rtol=1e-4, atol=1e-6
    )
    assert (found.mutual_information > 0).all()
    np.testing.assert_array_equal(loaded.predict(images[1:]).entropy, found.entropy[1:])
    row = loaded.answers(images)[1]
    assert row["entropy"] == found.entropy[1] and row["class"] in task.info.class_names
    assert row["mutual_information"] == found.mutual_information[1]
    with pytest.raises(InputError, match="the model has no dropout, so all --dropout_samples"):
        dlcore.load(plain[1], dropout_samples=2).predict(images)


@pytest.mark.slow
def test_predictions_with_folded_batch_normalisation(plain, capfd):
    _, info = JOB.parts()
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 1), np.uint8)
    outputs = []
    for fold in (False, True):
        config = CONFIG(model="resnet20", option=("width=0.1", "version=2"), fold_batch_norm=fold)
        task = JOB(config)
        task.info = info(("a", "b"), (8, 8, 1), np.zeros(1), np.ones(1))
        variables = jax.tree.map(lambda leaf: 1.1 * leaf, jax.jit(task.init)(jax.random.key(0)))
        outputs.append(task.predict(task.computing(variables), images))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-5)
    said = capfd.readouterr().err
    assert "7 batch normalisations folded into the layers before them; not folded" in said
    assert "stage_0/rest/norm_0, " in said and "final_norm" in said
    loaded = dlcore.load(plain[1], fold_batch_norm=True)
    with pytest.raises(InputError, match="mlp has no batch normalisation that follows a layer"):
        loaded.predict(images)


def test_what_is_no_run_is_one_line(plain, tmp_path):
    with pytest.raises(InputError, match="there is no run in"):
        dlcore.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="run.json is missing"):
        dlcore.load(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"job": "trees_of_gold", "data": {}}))
    with pytest.raises(InputError, match="unknown job 'trees_of_gold'"):
        dlcore.load(tmp_path)
    _, folder = plain
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match="there is no checkpoint in"):
        dlcore.load(tmp_path)


@pytest.mark.parametrize("lost", ["elsewhere", "gone"])
def test_a_run_that_has_ended_without_its_checkpoints_is_not_trained_anew(plain, tmp_path, lost):
    folder = tmp_path / "run"
    shutil.copytree(plain[1], folder)
    other = tmp_path / "elsewhere" if lost == "elsewhere" else None
    if other is None:
        shutil.rmtree(folder / "checkpoints")
    values = json.loads((folder / "config.json").read_text()) | {"workdir": str(folder)}
    before = hashes(folder)
    with pytest.raises(InputError, match=f"{folder} has ended at step 60, but there is no check"):
        launch.run(JOB(CONFIG(**{**values, "checkpoint_dir": other and str(other)})))
    after = hashes(folder)
    assert all(after[path] == before[path] for path in before)


def test_a_run_in_one_s_own_process_continues_and_compares_values(plain, train):
    _, folder = plain
    config = CONFIG.from_json(json.loads((folder / "config.json").read_text()))
    more = launch.run(JOB(CONFIG(**{**config.json(), "steps": 61, "schedule": "cosine"})))
    assert more.step == 61 and more.result.steps == 1
    with pytest.raises(InputError, match="holds another run .*seed: 0 then, 5 now"):
        launch.run(JOB(CONFIG(**{**config.json(), "seed": 5})))
