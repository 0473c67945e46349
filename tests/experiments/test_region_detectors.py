"""The job `detection` with detectors that look at regions."""

import json

import jax
import numpy as np
import pytest
from outcomes import assert_fails, summary
from test_detection import SIDE, write_scenes

from dlcore import load
from dlcore.errors import InputError
from dlcore.launch import jobs


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    write_scenes(folder, "train", 12, rng)
    write_scenes(folder, "val", 5, rng)
    (folder / "classes.txt").write_text("dark\nbright\n")
    return folder


@pytest.fixture
def job():
    return "detection"


@pytest.fixture
def common_flags(scenes):
    return [
        f"--data_path={scenes}",
        "--batch_size=4",
        "--option=width=0.1",
        "--hidden=8",
        "--warmup_steps=1",
        "--schedule=constant",
        "--eval_every=0",
    ]


SMALL = ["--regions=8", "--most=10"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--model=rcnn", "--candidates=10", "--search=single", "--crop=16", "--stride=4"],
        ["--model=fast_rcnn", "--candidates=20", "--search=single", "--pooling=pool"],
        ["--model=faster_rcnn", "--anchors=2", "--levels=2", "--stride=4", "--proposals=10"],
    ],
    ids=["rcnn", "fast_rcnn", "faster_rcnn"],
)
def test_detectors_of_regions_take_steps_go_on_exactly_and_predict(run, scenes, tmp_path, flags):
    flags = [*flags, *SMALL]
    for name, steps in {"once": [4], "twice": [2, 4]}.items():
        for count in steps:
            process = run(*flags, f"--steps={count}", f"--workdir={tmp_path / name}")
            assert process.returncode == 0, process.stderr
    once, twice = (summary(tmp_path / name)["metrics"] for name in ("once", "twice"))
    assert once == twice and np.isfinite(once["mAP50"])
    pictures = scenes / "images" / "val"
    out = tmp_path / "out"
    ask = [f"--workdir={tmp_path / 'once'}", f"--predict={pictures}", f"--predict_to={out}"]
    process = run(*ask, "--score_threshold=0")
    assert process.returncode == 0, process.stderr
    written = json.loads((out / "detections.json").read_text())
    assert len(written["images"]) == 5 and written["annotations"]
    for one in written["annotations"]:
        x, y, width, height = one["bbox"]
        assert 0 <= x <= x + width <= SIDE + 1e-3 and 0 <= y <= y + height <= SIDE + 1e-3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=fast_rcnn", "--augment=mosaic"], "mosaic has no rule for the candidates"),
        (["--model=faster_rcnn", "--anchors=3", "--levels=2"], "3 anchor shapes"),
        (["--model=faster_rcnn", "--training=alternating"], "--steps=1 are fewer than the 4"),
        (["--model=faster_rcnn", "--candidates=9"], "does not read --candidates"),
        (["--model=yolo_v2", "--regions=9"], "--model=yolo_v2 does not read --regions"),
    ],
)
def test_options_that_do_not_fit_are_one_line(run, tmp_path, flags, words):
    assert_fails(run(*flags, "--steps=1", f"--workdir={tmp_path / 'run'}"), words)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_damaged_file_of_candidates_is_one_line(tmp_path):
    detection = jobs.module("detection")
    (tmp_path / "candidates_train.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="candidates_train.npz cannot be read; remove it"):
        config = detection.Config(model="fast_rcnn")
        detection.with_candidates([], "train", config, tmp_path)


@pytest.mark.slow
def test_alternating_training_goes_through_its_four_steps(run, tmp_path):
    """Each phase has two steps and losses of its own; the first step's learning rate is 0."""
    flags = ["--model=faster_rcnn", "--anchors=2", "--training=alternating", "--proposals=10"]
    workdir = tmp_path / "run"
    process = run(*flags, *SMALL, "--steps=8", "--log_every=1", f"--workdir={workdir}")
    assert process.returncode == 0, process.stderr
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    steps = {line["step"]: line for line in lines if line.get("split") == "train"}
    for step in range(1, 9):
        seen = {k for k, v in steps[step].items() if k.endswith("_loss") and v is not None}
        detects = {"class_loss", "place_loss"}
        assert seen == (detects if (step - 1) // 2 % 2 else {"objectness_loss", "proposal_loss"})
    trained = load(workdir)
    start = trained.task.first_variables()
    body, apart = (trained.variables["params"][name] for name in ("body", "proposal_shared"))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), body, apart["body"])
    assert not any(jax.tree.leaves(same))  # each learned on its own
    assert_fails(
        run(*flags, *SMALL, "--steps=12", f"--workdir={workdir}"), "holds another run (steps"
    )
    for name in ("proposals", "regions", "body"):
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()),
            trained.variables["params"][name],
            start["params"][name],
        )
        assert any(jax.tree.leaves(moved))
