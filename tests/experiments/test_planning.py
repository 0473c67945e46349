"""--plan prints what a step would cost, runs nothing and leaves nothing behind."""

import re

import pytest
from outcomes import assert_fails

from dlcore.errors import InputError
from dlcore.launch import flags, jobs, planning

MODEL = "--option=features=[48]"
FIGURES = "flops=1e12,bandwidth=1e11,link=1e9"


@pytest.fixture
def plan(run, tmp_path, monkeypatch):
    """Runs --plan, which must leave neither a workdir nor what stands in its place."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))

    def plan(*flags, status=0):
        process = run("--plan", MODEL, f"--workdir={tmp_path / 'run'}", *flags, devices=1)
        assert process.returncode == status, process.stderr
        assert not (tmp_path / "run").exists() and not list(tmp_path.glob("*/dlcore*"))
        return process.stdout

    return plan


def cells(text, name):
    """What stands in the first line of a table that begins with a name, cell by cell."""
    line, *_ = re.findall(rf"^ *{re.escape(name)}(?:  +(.*))?$", text, re.MULTILINE)
    return re.split(r"  +", line)


def test_a_fully_sharded_step_on_eight_devices(plan):
    text = plan("--devices=8", "--mesh=data=2,fsdp=2,model=2", f"--chip=memory=1e9,{FIGURES}")
    inputs = 8 * 8
    assert cells(text, "dense_0/kernel") == [
        f"{inputs} x 48", "float32", "fsdp,-", f"{4 * inputs * 48 // 2:,}",
    ]  # fmt: skip
    assert cells(text, "dense_0/bias") == ["48", "float32", "whole", str(4 * 48)]
    assert "Plan of one step on 8 devices (data=2, fsdp=2, model=2)" in text
    held = 4 * (inputs * 48 // 2 + 48 + 48 * 10 + 10)
    assert cells(text, "sum")[0] == f"{held:,}"
    assert cells(text, "parameters")[0] == f"{held / 1e3:.3g} kB"
    # Adam keeps two moments, and counts.
    assert float(cells(text, "optimizer's state")[0].split()[0]) == pytest.approx(2 * held / 1e3, 1)
    assert {"all-gather", "reduce-scatter", "all-reduce"} <= set(text.split())
    forward = 2 * 32 * (inputs * 48 + 48 * 10)
    # Of the input there is no gradient. Over "model" nothing is cut, so that is done twice.
    model = (3 * forward - 2 * 32 * inputs * 48) / 8
    assert cells(text, "of the model")[0] == f"{model / 1e3:.3g} k"
    assert "fits into 1 GB" in text and "efficiency" in text


def test_a_chip_that_is_too_small_is_status_1(plan):
    text = plan("--devices=2", f"--chip=memory=1e4,{FIGURES}", status=1)
    assert "DOES NOT FIT into 10 kB" in text
    assert "2 devices (data=2)" in text  # by default all are "data"


SETTLED = [
    (["--chip=tpu-v9"], "chip 'tpu-v9': give a name"),
    (["--devices=8"], "--devices is for --plan"),
    (["--plan", "--devices=8", "--layout=jit"], "--layout=jit uses one device"),
    (["--plan", "--smoke"], "--plan and --smoke cannot be combined"),
    (["--plan", "--coordinator=here:1"], "--plan and --coordinator cannot be combined"),
    (["--plan", "--devices=2", "--layout=pmap"], "mesh"),
    (["--plan", "--devices=1", "--layout=pmap"], "mesh"),
    (["--plan", "--devices=1", "--layout=jit"], "jit"),
    (["--plan"], "None"),
    (["--plan", "--mesh=data=2,fsdp=2"], "mesh"),
    (["--chip=h100"], "None"),
]


@pytest.mark.parametrize(("given", "expected"), SETTLED, ids=lambda value: " ".join(value))
def test_what_goes_together(monkeypatch, given, expected):
    monkeypatch.setattr("jax.config.update", lambda name, value: None)
    config_class, _ = jobs.task_class("image_classification").parts()
    config, _ = flags.parse(config_class, given)
    try:
        outcome = str(planning.settle(config).layout)
    except InputError as error:
        outcome = str(error)
    assert outcome.startswith(expected)


def test_a_mesh_of_another_size_is_refused(run, tmp_path):
    process = run(
        "--plan", "--devices=8", "--mesh=data=4", f"--workdir={tmp_path / 'run'}", devices=1
    )
    assert_fails(process, "needs 4 devices, but there are 8")
    assert not (tmp_path / "run").exists()


def test_one_device_is_planned_as_it_would_run(plan):
    text = plan()
    assert "Plan of one step on 1 device;" in text and "Communication\n  none" in text
    assert cells(text, "dense_0/kernel")[2] == "whole"


@pytest.mark.slow
def test_512_devices(plan):
    text = plan("--devices=512", "--mesh=data=64,fsdp=8", "--batch_size=1024", "--chip=tpu-v5e")
    assert "512 devices (data=64, fsdp=8)" in text
    assert cells(text, "dense_0/kernel")[-1] == f"{4 * 64 * 48 // 8:,}"
