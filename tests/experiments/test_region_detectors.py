"""The job `detection` with detectors that look at regions."""

import json

import numpy as np
import pytest
from outcomes import assert_fails, summary
from test_detection import SIDE, write_scenes


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
        (["--model=fast_rcnn", "--augment=flip"], "--augment=flip: the candidates of"),
        (["--model=faster_rcnn", "--anchors=3", "--levels=2"], "3 shapes of anchors"),
        (["--model=faster_rcnn", "--candidates=9"], "does not read --candidates"),
        (["--model=yolo_v2", "--regions=9"], "--model=yolo_v2 does not read --regions"),
    ],
)
def test_options_that_do_not_fit_are_one_line(run, tmp_path, flags, words):
    assert_fails(run(*flags, "--steps=1", f"--workdir={tmp_path / 'run'}"), words)
    assert not (tmp_path / "run" / "checkpoints").exists()
