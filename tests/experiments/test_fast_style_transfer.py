"""The job of fast style transfer."""

import json

import jax
import numpy as np
import pytest
from dlcore.experiments.fast_style_transfer import Config, FastStyleTransfer
from in_process import run_here
from PIL import Image

from dlcore import launch
from dlcore.errors import InputError
from dlcore.types import TrainState

SMALL = dict(size=24, model="strided_cnn", option=("filters=[8,16]",))
SMALL |= dict(style_layers=("conv_0:1", "conv_1:2"), content_layers=("conv_1",))
SMALL |= dict(width=0.125, blocks=0, batch_size=2)
SQUEEZENET = dict(model="squeezenet1_1", option=("width=0.125",))
SQUEEZENET |= dict(style_layers=("conv1:1", "fire2:2"), content_layers=("fire2",))
RUN = dict(steps=4, eval_every=2, log_every=2, optimizer="sgd", learning_rate=0.01)


def save(path, height, width, seed):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of pictures, and a style."""
    folder = tmp_path_factory.mktemp("fast_style_transfer")
    (folder / "pictures" / "more").mkdir(parents=True)
    for number, size in enumerate([(30, 40), (24, 24), (50, 26), (28, 33), (26, 26)]):
        where = folder / "pictures" / ("more" if number == 3 else "")
        save(where / f"{number}.png", *size, number)
    save(folder / "style.png", 30, 24, 9)
    return {"data_path": str(folder / "pictures"), "style": str(folder / "style.png")}


def task_of(files, **options):
    task = FastStyleTransfer(Config(**{**files, **SMALL, **options}))
    task.data()
    return task


def run(files, workdir, **options):
    config = Config(**{**files, **SMALL, **RUN, "workdir": str(workdir), **options})
    return launch.run(FastStyleTransfer(config))


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """The folder of a run, and its outcome."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(files, folder, report=True)


def test_a_run_writes_its_stages(whole):
    folder, _ = whole
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        f"step_{step:06d}.png" for step in (0, 2, 4)
    ]
    with Image.open(folder / "pictures/step_000004.png") as stage:
        assert stage.size == (2 * 24, 24)  # the two held-out crops
    for name in ("stages", "held_out", "layers"):
        assert (folder / f"report/{name}.png").exists()
    costs = [row["cost"] for row in evaluations(folder)]
    assert costs[-1] < costs[0]


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(files, whole, tmp_path):
    folder, outcome = whole
    run(files, tmp_path, steps=2)
    parts = run(files, tmp_path)
    jax.tree.map(
        np.testing.assert_array_equal, parts.variables["params"], outcome.variables["params"]
    )
    for step in (0, 2, 4):
        stages = [(at / f"pictures/step_{step:06d}.png").read_bytes() for at in (folder, tmp_path)]
        assert stages[0] == stages[1]


def evaluations(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["split"] == "test"]


@pytest.mark.slow
def test_devices_share_a_batch(files, whole, tmp_path):
    shared = run(files, tmp_path, layout="mesh", mesh="data=2,model=2", steps=2)
    alone = evaluations(whole[0])[0]
    assert alone["step"] == 2
    for name, value in shared.metrics.items():
        np.testing.assert_allclose(value, alone[name], rtol=1e-4)


def test_a_trained_run_styles_pictures_of_any_size(capfd, whole, tmp_path):
    folder, outcome = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "in" / "b").mkdir(parents=True)
    sizes = {"in/wide.png": (13, 22), "in/b/tall.png": (31, 5)}
    for name, size in sizes.items():
        save(tmp_path / name, *size, 1)
    flags = [f"--workdir={folder}", f"--predict={tmp_path / 'in'}"]
    asked = [*flags, f"--predict_to={tmp_path / 'out'}"]
    process = run_here(capfd, "fast_style_transfer", asked)
    assert process.returncode == 0, process.stderr
    assert "2 pictures" in process.stderr
    written = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            written[path.name] = np.asarray(image)
    assert {name: picture.shape for name, picture in written.items()} == {
        "0001_tall.png": (31, 5, 3),
        "0002_wide.png": (13, 22, 3),
    }
    trained = launch.load(folder)
    given = np.asarray(Image.open(tmp_path / "in/wide.png"))
    (styled,) = trained.predict([given])
    np.testing.assert_array_equal(styled, written["0002_wide.png"])
    own = FastStyleTransfer(Config(**SMALL))
    found, _ = jax.jit(own.forward)(outcome.variables, given[None])
    np.testing.assert_allclose(styled, 255 * np.asarray(found[0]), atol=0.51)
    assert {path: path.read_bytes() for path in before} == before
    again = run_here(capfd, "fast_style_transfer", asked)
    assert again.returncode == 2 and "is there already; choose a new folder" in again.stderr


def test_costs_are_those_of_the_papers_by_hand(files):
    weights = dict(content_weight=0.5, style_weight=30.0, variation_weight=2.0)
    task = task_of(files, **weights)
    variables = jax.jit(task.init)(jax.random.key(0))
    params = variables["params"]
    model_state = {name: value for name, value in variables.items() if name != "params"}
    model_state["targets"] = jax.jit(task.targets)(model_state)
    batch = {**next(task.data().train(0)), "weight": np.array([1, 0], np.float32)}

    @jax.jit
    def measured(params, model_state, batch):
        styled, _ = task.forward({"params": params}, batch["image"])
        pictures = {"styled": styled, "content": batch["image"].astype(np.float32) / 255}
        style = task.style[None].astype(np.float32) / 255
        seen = {name: task.activations(model_state, x) for name, x in pictures.items()}
        seen["style"] = task.activations(model_state, style)
        state = TrainState(0, params, model_state, None, jax.random.key(0))
        loss = task.loss(params, model_state, batch, None)[0].compute()
        metrics = {name: mean.compute() for name, mean in task.metrics(state, batch).items()}
        return styled, seen, loss, metrics

    styled, seen, loss, metrics = jax.device_get(measured(params, model_state, batch))
    maps, wanted = seen["styled"], seen["content"]["conv_1"][0]

    def gram(x):
        flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
        return flat.T @ flat / len(flat)

    def style_of(maps):
        return sum(
            weight * ((gram(maps[name][0]) - gram(seen["style"][name][0])) ** 2).sum()
            / (4 * maps[name].shape[-1] ** 2)
            for name, weight in {"conv_0": 1, "conv_1": 2}.items()
        )  # fmt: skip

    # The second picture of the batch does not count.
    content = ((maps["conv_1"][0] - wanted) ** 2).sum() / (4 * wanted.size)
    variation = sum(np.abs(np.diff(styled[0], axis=axis)).mean() for axis in (0, 1))
    total = 0.5 * content + 30 * style_of(maps) + 2 * variation
    np.testing.assert_allclose(metrics["content_cost"], content, rtol=1e-4)
    np.testing.assert_allclose(metrics["style_cost"], style_of(maps), rtol=1e-4)
    np.testing.assert_allclose(metrics["style_cost_before"], style_of(seen["content"]), rtol=1e-4)
    np.testing.assert_allclose([loss, metrics["cost"]], [total, total], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_layers": ("conv9",)}, "no layer 'conv9'; choose one of: conv1, pool1, fire2"),
        ({"size": 16}, "16x16 pixels are too small for squeezenet1_1; the smallest size is 17x17"),
        ({"style_size": 12}, "12x10 pixels are too small for squeezenet1_1"),
        ({"data_path": "nowhere"}, "nowhere is not a folder; give a folder of pictures"),
        ({"style": "nowhere.png"}, "there is no picture nowhere.png"),
        ({"style_layers": ("output",)}, "layer output of squeezenet1_1 has no positions"),
        ({"model": "resnet20", "style_layers": (), "option": ()}, "give the layers of resnet20"),
    ],
)
def test_mistakes_are_one_line(files, options, message):
    with pytest.raises(InputError, match=message):
        task_of(files, **(SQUEEZENET | options))


def test_a_folder_without_pictures_is_one_line(capfd, tmp_path):
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    process = run_here(capfd, "fast_style_transfer", [f"--data_path={tmp_path}"])
    assert process.returncode == 2
    assert f"{tmp_path} has no pictures in one of the formats BMP" in process.stderr
