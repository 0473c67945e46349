"""Runs side by side, as a user starts them."""

import json
import pathlib
import subprocess
import sys

import pytest
from outcomes import assert_fails, summary

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def compare(data_dir, tmp_path):
    def compare(*flags, workdir=tmp_path / "comparison"):
        command = [sys.executable, "-m", "experiments.comparison", f"--data_dir={data_dir}"]
        return subprocess.run(
            [*command, f"--workdir={workdir}", *flags],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return compare


def test_runs_are_compared_over_their_seeds(compare, tmp_path):
    flags = [
        "--all=--model=mlp --steps=20 --eval_every=10 --log_every=5", "--seeds=2",
        "--run=slow: --learning_rate=0", "--run=fast: --learning_rate=0.01 --option=features=[32]",
    ]  # fmt: skip
    process = compare(*flags)
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "comparison"
    found = summary(folder)["runs"]
    losses = {
        name: [summary(folder / name / str(seed))["metrics"]["loss"] for seed in (0, 1)]
        for name in ("slow", "fast")
    }
    for name, (first, second) in losses.items():
        assert found[name]["loss"]["mean"] == pytest.approx((first + second) / 2)
        assert found[name]["loss"]["deviation"] == pytest.approx(abs(first - second) / 2**0.5)
        assert f"{name}: accuracy {found[name]['accuracy']['mean']:.4f} +- " in process.stdout
    assert found["fast"]["loss"]["mean"] < found["slow"]["loss"]["mean"]
    page = (folder / "report" / "index.html").read_text()
    for picture in ("train_loss", "test_accuracy", "layers"):
        assert (folder / "report" / f"{picture}.png").exists() and picture in page
    assert json.loads((folder / "slow" / "0" / "config.json").read_text())["seed"] == 0

    # What has ended is not run again.
    before = (folder / "fast" / "1" / "summary.json").stat().st_mtime_ns
    assert compare(*flags).returncode == 0
    assert (folder / "fast" / "1" / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--run=a: --steps=1"], ["1 runs to compare", "twice or more"]),
        (["--run=a", "--run=b: "], ["--run=a is not NAME: FLAGS"]),
        (["--run=a:", "--run=a:"], ["--run=a: is not NAME: FLAGS with a name of its own"]),
        (["--run=a/b:", "--run=c:"], ["without /"]),
        (["--job=trees", "--run=a:", "--run=b:"], ["unknown job 'trees'", "word_vectors"]),
        (["--run=a: --model=lenet", "--run=b:"], ["the run a failed: unknown model 'lenet'"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)
def test_bad_flags_are_one_clear_line(compare, flags, words):
    assert_fails(compare(*flags), *words)
