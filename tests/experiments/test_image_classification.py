"""The main job as a user runs it: results, files, resuming, and one clear line for bad input."""

import io
import json
import pathlib
import random
import signal
import sys
import time
import types

import numpy as np
import pytest
from outcomes import assert_fails, summary
from PIL import Image

import dlcore
from dlcore.data import load_images
from dlcore.train.checkpoint import load_variables


def test_a_run_learns_and_leaves_its_files(run, tmp_path):
    process = run("--steps=300", "--eval_every=100", f"--workdir={tmp_path}", "--report")
    assert process.returncode == 0, process.stderr
    assert "image_classification: test accuracy 0.9" in process.stdout
    found = summary(tmp_path)
    assert found["metrics"]["accuracy"] > 0.9 and found["step"] == 300
    assert found["recompilations"] == 0 and found["examples_per_second"] > 0
    assert {"jax", "flax", "optax"} <= found["versions"].keys()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines if line["split"] == "test"] == [
        (100, "test"), (200, "test"), (300, "test"),
    ]  # fmt: skip
    assert {"loss", "accuracy", "grad_norm", "learning_rate", "skipped"} <= lines[0].keys()
    assert (tmp_path / "tensorboard").is_dir()
    report = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert len(pictures) >= 4 and all(name in report for name in pictures)

    again = run(f"--flagfile={tmp_path / 'flags.txt'}", f"--workdir={tmp_path / 'again'}")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (
        tmp_path / "metrics.jsonl"
    ).read_bytes()


@pytest.mark.parametrize(
    "flags",
    [
        (
            "--model=lenet5", "--precision=bfloat16", "--penalty=elastic_net",
            "--clip_adaptive=0.1", "--clip_value=1", "--clip_leaf_norm=1", "--clip_norm=1",
            "--optimizer=amsgrad",
        ),
        pytest.param(
            ("--model=lenet5_paper", "--clip_value=1", "--clip_leaf_norm=1", "--clip_norm=1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "--model=resnet20", "--penalty=elastic_net", "--clip_adaptive=0.1",
                "--optimizer=amsgrad",
            ),
            marks=pytest.mark.slow,
        ),
        ("--penalty=lasso", "--proximal", "--optimizer=sgd", "--ema=0.5", "--l1_ball=50"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_kind_of_choice_passes_the_smoke_test(run, tmp_path, flags):
    process = run("--smoke", *flags, f"--workdir={tmp_path}", "--augment=affine")
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["step"] == 2
    assert (tmp_path / "report" / "index.html").exists()


LAYOUTS = {
    "jit": ((), None),  # in this process, which has several devices, but uses one
    "mesh": (("--layout=mesh", "--mesh=fsdp=4"), 4),
}


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("jit", 1),
        pytest.param("jit", 2, marks=pytest.mark.slow),
        pytest.param("mesh", 2, marks=pytest.mark.slow),
    ],
)
def test_kill_9_at_random_steps_and_resume_is_bit_for_bit(run, start, tmp_path, name, times):
    flags, devices = LAYOUTS[name]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = [
        *flags, "--steps=400", "--checkpoint_every=30", "--log_every=1", "--eval_every=50",
    ]  # fmt: skip
    assert run(*common, f"--workdir={whole}", devices=devices).returncode == 0
    chance = random.Random(name)
    metrics = killed / "metrics.jsonl"
    deaths = 0
    for death in sorted(chance.sample(range(40, 360), times)):
        process = start(*common, f"--workdir={killed}", devices=devices or 1)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and f'"step": {death}' in metrics.read_text():
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        deaths += process.wait() == -signal.SIGKILL
    assert deaths == times and not (killed / "summary.json").exists()
    assert run(*common, f"--workdir={killed}", devices=devices).returncode == 0
    assert metrics.read_bytes() == (whole / "metrics.jsonl").read_bytes()
    left, right = (
        load_variables(whole / "checkpoints")["params"],
        load_variables(killed / "checkpoints")["params"],
    )
    for layer in left:
        for leaf in left[layer]:
            np.testing.assert_array_equal(left[layer][leaf], right[layer][leaf])
    assert summary(whole)["metrics"] == summary(killed)["metrics"]


def test_sigterm_saves_and_leaves_with_a_clear_line(run, start, tmp_path):
    process = start("--steps=100000", "--log_every=1", f"--workdir={tmp_path}")
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "SIGTERM: saved step " in errors and f"--workdir={tmp_path} continues it" in errors
    step = max(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*"))
    process = run(f"--steps={step + 1}", f"--workdir={tmp_path}")
    assert f"continuing {tmp_path} from step {step}" in process.stderr
    assert summary(tmp_path)["step"] == step + 1


def test_a_run_on_four_devices_continues_on_one(run, tmp_path):
    flags = ["--schedule=constant", f"--workdir={tmp_path}", "--augment=none"]
    mesh = ["--layout=mesh", "--mesh=fsdp=4"]
    assert run("--steps=20", *mesh, *flags).returncode == 0  # on all that this process has
    process = run("--steps=40", "--layout=jit", *flags)
    assert process.returncode == 0 and "from step 20" in process.stderr
    one = f"--workdir={tmp_path / 'one'}"
    assert run("--steps=40", "--layout=jit", *flags, one).returncode == 0
    assert summary(tmp_path)["metrics"]["loss"] == pytest.approx(
        summary(tmp_path / "one")["metrics"]["loss"], rel=1e-4
    )


def test_patience_stops_on_held_out_training_data_and_reports_the_best(run, tmp_path):
    process = run(
        "--steps=5000", "--eval_every=20", "--patience=2", "--validation=0.1",
        "--checkpoint_every=0", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path)
    assert found["stopped_by"] == "patience" and found["step"] < 4000
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    curve = {line["step"]: line["accuracy"] for line in lines if line["split"] == "validation"}
    assert curve[found["step"]] == max(curve.values())
    assert max(curve) == found["step"] + 2 * 20


def test_a_killed_patience_run_still_ends_at_its_best(run, tmp_path):
    """The best checkpoint is older than the latest ones when the run is continued."""
    flags = [
        "--eval_every=5", "--patience=6", "--validation=0.1", "--checkpoint_every=5",
        "--optimizer=sgd", "--learning_rate=0", f"--workdir={tmp_path}",
    ]  # fmt: skip
    assert run("--steps=25", *flags).returncode == 0
    kept = {int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")}
    assert min(kept) == 5 and len(kept) < 5
    process = run("--steps=400", *flags)
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["stopped_by"] == "patience" and summary(tmp_path)["step"] == 5
    before = (tmp_path / "summary.json").read_bytes()
    assert run("--steps=400", *flags).returncode == 0
    assert (tmp_path / "summary.json").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_files_of_a_run_that_somebody_spoilt_are_one_clear_line(run, tmp_path, name):
    assert run("--steps=2", "--log_every=1", f"--workdir={tmp_path}").returncode == 0
    (tmp_path / name).write_bytes(b"{\xff no JSON\n")
    assert_fails(run("--steps=2", "--log_every=1", f"--workdir={tmp_path}"), name)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset=digit"], ["'digit'", "digits", "mnist"]),
        (["--dataset=mnist"], ["mnist", "dlcore prepare mnist"]),
        (["--model=lenet"], ["unknown model 'lenet'", "lenet5", "resnet20"]),
        (["--model=lenet5", "--image_size=8"], ["8x8", "lenet5", "16x16"]),
        (["--layout=tpu"], ["unknown layout 'tpu'", "jit, mesh, pmap"]),
        (["--layout=mesh", "--mesh=data=3"], ["needs 3 devices, but there are"]),
        (["--accumulate=5"], ["32 is not divisible by 5", "30 or 35"]),
        (["--optimizer=adamm"], ["unknown optimizer 'adamm'", "adamw"]),
        (["--schedule=cos"], ["unknown schedule 'cos'", "cosine"]),
        (["--hyper=b2=high"], ["--hyper=b2=high is not NAME=VALUE", "beta=0.9"]),
        (["--hyper=beta=0.9"], ["no hyperparameter 'beta'", "b1"]),
        (["--rate_factor=kernel"], ["--rate_factor=kernel is not REGEX:FACTOR"]),
        (["--shard=nothing:data", "--layout=mesh"], ["'nothing' matches none"]),
        (["--patience=3"], ["--validation=0.1"]),
        (["--workdir=/proc/none"], ["cannot write to /proc/none", "another folder"]),
        (["--resume=must"], ["--resume=must", "no run in"]),
        (["--data_path="], ["data path is empty"]),
        (["--validation=0.0001"], ["1500 examples is 0"]),
        (["steps=3"], ["['steps=3'] are not flags", "--help"]),
        (["--data_path=/nowhere"], ["/nowhere"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_bad_flags_are_one_clear_line(run, tmp_path, flags, words):
    workdir = tmp_path / "run"
    assert_fails(run("--steps=2", f"--workdir={workdir}", *flags), *words)
    # The corrected command may use the same folder.
    assert not workdir.exists() or not list(workdir.rglob("config.json"))


def images(folder, sizes, mode="RGB"):
    """Writes images of these sizes into the folder."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.new(mode, (size, size), number).save(folder / f"{number}.png")


def test_bad_image_folders_are_one_clear_line(run, tmp_path):
    flags = ["--steps=2", f"--data_path={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    (tmp_path / "data").mkdir()
    assert_fails(run(*flags), str(tmp_path / "data"))
    images(tmp_path / "data" / "cat", [8] * 6)
    images(tmp_path / "data" / "dog", [8] * 6)
    (tmp_path / "data" / "dog" / "3.png").write_bytes(b"no image")
    assert_fails(run(*flags), "dog/3.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "dog" / "3.png")
    assert_fails(run(*flags), "--image_size")
    flags = [flags[0], flags[1], f"--workdir={tmp_path / 'good'}"]
    process = run(*flags, "--image_size=8", "--batch_size=4")
    assert process.returncode == 0, process.stderr


def test_a_full_disk_is_one_clear_line_and_the_last_checkpoint_stays(run, tmp_path):
    flags = [f"--workdir={tmp_path}", "--schedule=constant"]
    assert run("--steps=2", *flags).returncode == 0
    process = run("--steps=4", *flags, largest_file=4000)
    assert_fails(process, "cannot write checkpoints", "free space", "--workdir")
    process = run("--steps=4", *flags)
    assert process.returncode == 0 and "from step 2" in process.stderr


def test_a_workdir_of_another_run_is_refused_and_left_alone(run, tmp_path):
    assert run("--steps=2", f"--workdir={tmp_path}").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    process = run("--steps=2", f"--workdir={tmp_path}", "--model=lenet5", "--seed=3")
    assert_fails(process, "holds another run", "model: mlp then, lenet5 now", "seed: 0 then, 3")
    assert_fails(run("--resume=never", f"--workdir={tmp_path}"), "--resume=never")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_two_processes_do_not_share_a_workdir(run, start, tmp_path):
    process = start("--steps=100000", "--log_every=1", f"--workdir={tmp_path}")
    while not (tmp_path / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert_fails(run("--steps=2", f"--workdir={tmp_path}"), "another process is running in")


def test_a_damaged_checkpoint_is_skipped_with_a_word_about_it(run, tmp_path):
    flags = ["--checkpoint_every=10", "--schedule=constant", f"--workdir={tmp_path}"]
    assert run("--steps=20", *flags).returncode == 0
    newest = tmp_path / "checkpoints" / "20" / "state"
    path = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
    path.write_bytes(bytes(path.stat().st_size))
    process = run("--steps=30", *flags)
    assert process.returncode == 0, process.stderr
    assert "skipped a damaged checkpoint: step 20" in process.stderr
    assert "from step 10" in process.stderr and summary(tmp_path)["step"] == 30
    assert pathlib.Path(tmp_path / "checkpoints-damaged" / "20").is_dir()


@pytest.mark.parametrize(
    ("model", "figures"),
    [
        ("mlp", ("26,122", "25,856")),
        pytest.param("lenet5", ("61,706", "416,520", "16x16 pixels"), marks=pytest.mark.slow),
    ],
)
def test_check_passes_and_counts(run, tmp_path, model, figures):
    process = run("--check", f"--model={model}", f"--workdir={tmp_path / 'none'}")
    assert process.returncode == 0, process.stdout + process.stderr
    for line in (*figures, "ok    gradients", "ok    overfit one batch"):
        assert line in process.stdout
    assert not (tmp_path / "none").exists()


def test_check_names_the_cause_of_a_failure(run):
    process = run("--check", "--learning_rate=0")
    assert process.returncode == 1
    assert "FAIL  overfit one batch" in process.stdout and "likely cause" in process.stdout


def test_data_that_never_gives_a_finite_loss_ends_the_run(run, tmp_path):
    process = run("--steps=100", "--learning_rate=1e38", "--optimizer=sgd", f"--workdir={tmp_path}")
    assert_fails(process, "not finite in 10 steps in a row", "batch is number", "--clip_norm")


def test_a_penalty_makes_weights_small_and_its_proximal_step_makes_them_zero(run, tmp_path):
    common = ["--steps=60", "--penalty=lasso", "--weight_decay=0", "--learning_rate=0.01"]
    weights = {}
    for name, more in (
        ("none", ["--penalty_strength=0"]),
        ("loss", ["--penalty_strength=0.01"]),
        ("proximal", ["--penalty_strength=0.3", "--proximal"]),
    ):
        assert run(*common, *more, f"--workdir={tmp_path / name}").returncode == 0
        weights[name] = dlcore.load(tmp_path / name).params["dense_0"]["kernel"]
    size = {name: np.abs(kernel).sum() for name, kernel in weights.items()}
    assert size["loss"] < 0.8 * size["none"]
    assert (weights["proximal"] == 0).mean() > 0.1 and (weights["loss"] == 0).mean() < 0.01


@pytest.fixture
def pictures(tmp_path):
    """A folder of handwritten digits as PNG files, named by their labels, and one of no picture."""
    data = load_images("digits")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        image = data.test.arrays["image"][number, :, :, 0]
        label = data.test.arrays["label"][number]
        Image.fromarray(image).save(folder / f"{number:02}_{label}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_predictions_of_files_folders_and_standard_input(run, tmp_path, pictures, monkeypatch):
    workdir = tmp_path / "run"
    assert run("--steps=150", f"--workdir={workdir}").returncode == 0
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    only = f"--workdir={workdir}"
    process = run(f"--predict={pictures}", only, "--top=3")
    assert process.returncode == 0, process.stderr
    assert "1 files in" in process.stderr and "left out" in process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    right = [pathlib.Path(row["input"]).stem.split("_")[1] == row["class"] for row in rows]
    assert len(rows) == 12 and np.mean(right) > 0.7
    assert len(rows[0]["top"]) == 3 and rows[0]["top"][0]["probability"] == rows[0]["probability"]

    table = tmp_path / "answers.csv"
    process = run(f"--predict={pictures}", only, f"--predict_to={table}", "--top=2")
    assert process.returncode == 0 and process.stdout == ""
    header, *lines = table.read_text().splitlines()
    assert header == "input,class,probability,class_2,probability_2" and len(lines) == 12

    one = sorted(pictures.glob("*.png"))[0]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{one}\n".encode())))
    process = run("--predict=-", only)
    assert json.loads(process.stdout) == json.loads(run(f"--predict={one}", only).stdout)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    assert_fails(run("--predict=/nowhere", only), "/nowhere")
    assert_fails(run(f"--predict={pictures / 'notes.txt'}", only), "notes.txt")
    assert_fails(run(f"--predict={pictures}", only, "--predict_to=x.txt"), "x.txt", ".jsonl")
    assert_fails(run(f"--predict={pictures}", f"--workdir={tmp_path / 'no'}"), "there is no run in")
    assert_fails(
        run(f"--predict={pictures}", only, "--model=lenet5"), "model: mlp then, lenet5 now"
    )


def test_a_run_whose_classes_changed_is_refused(run, tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / "data" / name, [8] * 6)
    flags = [f"--data_path={tmp_path / 'data'}", "--batch_size=4", f"--workdir={tmp_path / 'run'}"]
    assert run(*flags, "--steps=2").returncode == 0
    (tmp_path / "data" / "cat").rename(tmp_path / "data" / "zebra")
    process = run(*flags, "--steps=3")
    assert_fails(process, "other class names", "without cat and with zebra now", "--workdir")


@pytest.mark.parametrize(
    "flag",
    [
        "--validation=nan",
        "--seed=99999999999999999999",
        f"--image_size={2**63}",
        f"--stall_seconds={2**63}",
        "--rate_factor=-1",
        "--rate_factor=kernel:nan",
        "--label_smoothing=nan",
        "--learning_rate=1e308",
        "--learning_rate=-1",
        "--steps=0",
        "--ema=1",
        "--clip_norm=-1",
        "--clip_adaptive=-1",
        "--l1_ball=nan",
        "--weight_decay=inf",
        "--accumulate=0",
        "--examples=-3",
        "--batch_size=0",
        "--init_from=" + "x" * 5000,
        "--data_path=" + "x/" * 4000,
        "--workdir=" + "é" * 200,
        "--penalty_mix=0.5",
        "--boundary=0",
        "--top=0",
        "--patience=0",
    ],
    ids=lambda flag: flag[:30],
)
def test_numbers_and_paths_out_of_bounds_are_one_clear_line(run, flag):
    assert_fails(run("--steps=2", flag), flag.removeprefix("--").partition("=")[0])


def test_a_tracker_follows_the_run_with_its_configuration(run, monkeypatch, tmp_path):
    sent, module = [], types.ModuleType("mlflow")
    module.set_experiment = lambda name: sent.append(name)
    module.start_run = lambda **_: types.SimpleNamespace(info=types.SimpleNamespace(run_id="7"))
    module.log_params = lambda values: sent.append(values)
    module.log_metrics = lambda values, step: sent.append((step, *values))
    module.end_run = lambda: sent.append("end")
    monkeypatch.setitem(sys.modules, "mlflow", module)
    process = run("--steps=2", "--log_every=1", "--track=mlflow", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert sent[0] == "image_classification" and sent[-1] == "end"
    assert {"model": "mlp", "steps": 2}.items() <= sent[1].items()
    steps = [(each[0], each[1].split("/")[0]) for each in sent if isinstance(each, tuple)]
    assert steps == [(1, "train"), (2, "train"), (2, "test")]


def test_a_tracker_that_is_not_installed_is_one_line_before_training(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    process = run("--steps=2", "--track=wandb", f"--workdir={tmp_path}")
    assert_fails(process, "--track=wandb needs the library wandb", "pip install wandb")
    assert not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text()
