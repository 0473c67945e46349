"""What a run tells of its speed, and the trace of some of its steps."""

import json

import pytest
from outcomes import assert_fails, summary

PARTS = {"data", "device", "evaluation", "checkpoints", "compilation", "host"}
FIGURES = "flops=1e12,memory=1e9,bandwidth=1e11,link=1e9"


@pytest.fixture(scope="module")
def flags():
    return ["--steps=20", "--log_every=5", "--eval_every=10", "--option=features=[48]"]


def test_a_run_accounts_for_its_flops_and_its_time(run, tmp_path, flags):
    workdir = tmp_path / "run"
    process = run(
        *flags, f"--workdir={workdir}", f"--chip={FIGURES}", "--profile=3:4", "--mesh=data=2",
        devices=2,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = summary(workdir)
    first, second = 32 * 64 * 48, 32 * 48 * 10
    assert found["model_flops_per_step"] == 2 * (2 * first + 3 * second)
    seconds = found["seconds_per_step"]
    assert set(seconds) == PARTS and min(seconds.values()) >= 0
    steps_per_second = found["examples_per_second"] / 32
    assert sum(seconds.values()) == pytest.approx(1 / steps_per_second, rel=0.05)
    per_second = found["model_flops_per_step"] / sum(seconds.values())
    assert found["model_flops_per_second"] == pytest.approx(per_second)
    # Of two devices.
    assert found["model_flop_utilisation"] == pytest.approx(per_second / 2e12)
    assert found["device_memory_peak_bytes"] is None  # a CPU does not tell
    assert list((workdir / "profile").glob("**/*.xplane.pb"))
    assert "% of peak, waits for data " in process.stderr
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert not [name for line in lines for name in line if "second" in name or "flop" in name]


def test_no_utilisation_where_the_peak_is_not_known(run, tmp_path, flags):
    process = run(*flags, f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path)
    assert "model_flop_utilisation" not in found and found["model_flops_per_second"] > 0
    assert not (tmp_path / "profile").exists()


def test_steps_to_profile_that_there_are_not(run, tmp_path, flags):
    assert_fails(run(*flags, f"--workdir={tmp_path}", "--profile=15:25"), "'15:25'", "1 to 20")
