"""The job `detection`: training, evaluation, resuming, predictions and reports of each system."""

import importlib
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_process import run_here
from outcomes import assert_fails, summary
from PIL import Image

from dlcore.errors import InputError
from dlcore.launch import jobs, weights
from dlcore.launch.task import make_state
from dlcore.models import IMAGE_MODELS
from dlcore.paths import leaves_by_path

SIDE = 32


def write_scenes(folder, part, count, rng):
    """Pictures with a bright and a dark rectangle, or none, in YOLO's text files."""
    for number in range(count):
        image = rng.integers(100, 140, (SIDE, SIDE, 3), dtype=np.uint8)
        lines = []
        for label in range(2) if number % 4 else ():
            height, width = rng.integers(8, 15, 2)
            top = rng.integers(0, SIDE - height)
            left = 16 * label + rng.integers(0, SIDE // 2 - width + 1)
            image[top : top + height, left : left + width] = 250 if label else 5
            y, x = (top + height / 2) / SIDE, (left + width / 2) / SIDE
            lines.append(f"{label} {x} {y} {width / SIDE} {height / SIDE}")
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / part / f"{part}{number}.png")
        (folder / "labels" / part / f"{part}{number}.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    write_scenes(folder, "train", 32, rng)
    write_scenes(folder, "val", 9, rng)
    (folder / "classes.txt").write_text("dark\nbright\n")
    return folder


@pytest.fixture
def job():
    return "detection"


@pytest.fixture
def body():
    """The flags of the network in the system; a small one by default."""
    return ["--body=strided_cnn", "--option=filters=[16,32,32]"]


# The tests of the network that a user gets.
darknet = pytest.mark.parametrize("body", [["--option=width=0.2"]], ids=["darknet"])


@pytest.fixture
def common_flags(scenes, body):
    return [
        f"--data_path={scenes}",
        "--batch_size=8",
        *body,
        "--hidden=16",
        "--warmup_steps=1",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(run, folder):
    """A run of YOLO v2 with a report, made once."""
    if not (folder / "summary.json").exists():
        flags = ["--steps=60", "--anchors=2", "--learning_rate=0.01", "--report"]
        process = run(*flags, "--box_loss=giou", f"--workdir={folder}")
        assert process.returncode == 0, process.stderr
    return folder


def test_yolo_v2_learns_what_is_where(trained):
    metrics = summary(trained)["metrics"]
    assert metrics["mAP50"] > 0.3 and 0 <= metrics["AP"] < metrics["mAP50"]
    parts = [f"{part}_loss" for part in ("place", "object", "background", "class")]
    assert metrics["loss"] == pytest.approx(sum(metrics[part] for part in parts), rel=1e-4)


def test_the_report_shows_pictures_curves_errors_and_anchors(trained):
    page = (trained / "report" / "index.html").read_text(encoding="utf-8")
    for name in ("pictures", "precision_recall", "errors", "worst_pictures", "anchors"):
        assert f"{name}.png" in page and (trained / "report" / f"{name}.png").stat().st_size > 5000
    assert "recall at 0.5" in page


def test_predictions_are_drawn_and_written_in_the_pictures_own_pixels(
    run, trained, scenes, tmp_path, capfd
):
    """A picture of three times the size, wider than high, has boxes of three times the size."""
    picture = Image.open(scenes / "images" / "val" / "val1.png")
    wide = Image.new("RGB", (5 * SIDE, 3 * SIDE), (120, 120, 120))
    wide.paste(picture.resize((3 * SIDE, 3 * SIDE), Image.Resampling.NEAREST), (0, 0))
    (tmp_path / "in").mkdir()
    wide.save(tmp_path / "in" / "wide.png")
    picture.convert("L").save(tmp_path / "in" / "grey.png")
    out = tmp_path / "out"
    flags = [f"--workdir={trained}", f"--predict={tmp_path / 'in'}", f"--predict_to={out}"]
    process = run(*flags)
    assert process.returncode == 0, process.stderr
    written = json.loads((out / "detections.json").read_text())
    assert [(i["file_name"], i["height"], i["width"]) for i in written["images"]] == [
        ("grey.png", 32, 32),
        ("wide.png", 96, 160),
    ]
    assert [c["name"] for c in written["categories"]] == ["dark", "bright"]
    for one in written["annotations"]:
        size = written["images"][one["image_id"] - 1]
        x, y, width, height = one["bbox"]
        assert x >= 0 and x + width <= size["width"] + 1e-3
        assert y >= 0 and y + height <= size["height"] + 1e-3
        assert 0.001 < one["score"] <= 1
    assert sorted(f.name for f in out.glob("*.png")) == ["0001_grey.png", "0002_wide.png"]
    assert Image.open(out / "0002_wide.png").size == wide.size
    again = run(*flags)
    assert_fails(again, "is there already")
    other = run_here(capfd, "image_classification", flags)
    assert_fails(other, "holds a run of detection, not of image_classification")


@darknet
@pytest.mark.parametrize(
    ("model", "flags"),
    [
        pytest.param("localizer", [], marks=pytest.mark.slow),
        pytest.param("yolo_v1", ["--grid=4"], marks=pytest.mark.slow),
        pytest.param(
            "yolo_v2", ["--anchors=2", "--scales=0.3", "--focal=2", "--precision=bfloat16"],
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_every_system_takes_steps(run, tmp_path, model, flags):
    flags = [f"--model={model}", *flags, "--steps=2", f"--workdir={tmp_path}"]
    process = run(*flags)
    assert process.returncode == 0, process.stderr
    metrics = summary(tmp_path)["metrics"]
    assert all(np.isfinite(value) for value in metrics.values()) and "mAP50" in metrics
    assert "right" not in metrics  # no picture has exactly one object


def test_scales_are_a_function_of_the_step():
    """Ten steps have one side, and a run that goes on has the batches of one that did not stop."""
    scales = importlib.import_module("dlcore.experiments.detection.scales")
    image = np.arange(2 * 32 * 32, dtype=np.uint8).reshape(2, 32, 32, 1)
    boxes = np.array([[[0, 8, 16, 32]]] * 2, np.float32)

    def batches(first):
        for step in range(first, 60):
            yield {"image": image, "boxes": boxes, "step": step}

    scaled = scales.at_scales(batches, 32, 8, 0.5, seed=3)
    every = [*scaled(0)]
    sides = [batch["image"].shape[1] for batch in every]
    assert set(sides) <= {16, 24, 32, 40, 48} and len(set(sides)) > 2
    assert all(len(set(sides[n : n + 10])) == 1 for n in range(0, 60, 10))
    for late, batch in zip(every[33:], scaled(33), strict=True):
        np.testing.assert_array_equal(late["image"], batch["image"])
    for side, batch in zip(sides, every, strict=True):
        np.testing.assert_array_equal(batch["boxes"], boxes * side / 32)


def test_the_body_comes_from_a_classifier_or_a_detector(monkeypatch, capsys):
    """Of a grey classifier the first layer is fitted to colours, its head is not taken."""
    job = jobs.task_class("detection")
    config, info = job.parts()

    def task_of(**options):
        task = job(config(option=("width=0.2",), hidden=8, **options))
        three = np.zeros(3), np.ones(3)
        task.info = info(("a", "b"), (1, 2), (32, 32, 3), (), *three, np.full((2, 2), 9.0))
        return task

    build = IMAGE_MODELS["darknet_small"].build
    network = build(num_classes=5, width=0.2)
    grey = jax.jit(network.init)(jax.random.key(3), jnp.zeros((1, 32, 32, 1)))
    source = types.SimpleNamespace(variables=grey, info=types.SimpleNamespace(image_shape=(1,)))
    monkeypatch.setattr(weights, "load", lambda path: source)
    task = task_of(init_from=".")
    first = jax.jit(lambda: make_state(task))()
    state = task.adopt(first)
    for path, leaf in leaves_by_path({"params": state.params, **state.model_state}).items():
        if "/body/" not in path:
            continue
        wanted = leaves_by_path(grey)[path.replace("/body/", "/")]
        if leaf.shape[-2:-1] == (3,):
            wanted = np.repeat(wanted / 3, 3, axis=-2)
        np.testing.assert_allclose(leaf, wanted, rtol=1e-6)
    np.testing.assert_array_equal(
        state.params["output"]["kernel"], first.params["output"]["kernel"]
    )
    assert "are not used" in capsys.readouterr().err
    source.variables = {"params": state.params, **state.model_state}
    source.info.image_shape = (32, 32, 3)
    again = task_of(init_from=".", seed=1)
    new = again.adopt(jax.tree.map(jnp.zeros_like, first))
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)
    source.variables = {"params": {"other": {"kernel": np.zeros(3)}}}
    with pytest.raises(
        InputError, match=r"no weight of \. fits darknet_small: it has params/other"
    ):
        task.adopt(first)


@darknet
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=landmarks"], "needs landmarks, and the data has none"),
        (["--model=localizer", "--anchors=3"], "--model=localizer does not read --anchors"),
        (["--stride=32"], "has no map of stride 32 for images of 32x32; it has maps of stride 2"),
        (["--anchors=100"], "100 anchors cannot be fitted"),
        (["--option=depth=3"], "unknown option of darknet_small 'depth'; choose one of: stages"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, flags, words):
    assert_fails(run(*flags, "--steps=1", f"--workdir={tmp_path / 'run'}"), words)
    assert not (tmp_path / "run" / "checkpoints").exists()
