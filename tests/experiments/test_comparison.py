"""Runs side by side, as a user starts them."""

import html
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest
from in_process import run_here
from outcomes import assert_fails, summary

from dlcore.launch import flags, jobs
from dlcore.launch.entry import guarded

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def compare(data_dir, tmp_path, capfd):
    """Runs the job in this process; its runs are processes of their own."""

    def compare(*more, workdir=tmp_path / "comparison"):
        command = ["comparison", f"--data_dir={data_dir}", f"--workdir={workdir}", *more]
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            guarded(lambda: jobs.module("comparison").main(command[1:]))
        out, errors = capfd.readouterr()
        return subprocess.CompletedProcess(command, ended.value.code or 0, out, errors)

    return compare


@pytest.fixture
def here(capfd, monkeypatch):
    """Has the runs of the job made in this process, by the commands of their processes."""

    def run(command, **how):
        assert command[:3] == [sys.executable, "-m", "dlcore"] and how["capture_output"]
        return run_here(capfd, command[3], command[4:])

    started = types.SimpleNamespace(run=run)
    monkeypatch.setattr(jobs.module("comparison"), "subprocess", started)


def test_runs_are_compared_over_their_seeds(compare, here, tmp_path):
    given = [
        "--all=--model=mlp --steps=20 --eval_every=10 --log_every=5",
        "--seeds=2",
        "--run=slow: --learning_rate=0",
        "--run=fast: --learning_rate=0.01 --option=features=[32]",
    ]
    process = compare(*given)
    assert process.returncode == 0, process.stderr
    # What was said before the last run has been read with what that run said.
    assert re.search(r"\rrun 4 of 4, fast, seed 1: accuracy 0\.\d+, loss .*\n", process.stderr)
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
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    for picture in ("train_loss", "test_accuracy", "layers"):
        assert (folder / "report" / f"{picture}.png").exists() and picture in page
    assert "Runs of image_classification, all with --model=mlp --steps=20" in page
    assert "--learning_rate=0.01 '--option=features=[32]'" in html.unescape(page)
    links = re.findall(r'href="(\.\./.*?)"', page)
    assert len(links) == 4 and all((folder / "report" / link).exists() for link in links)
    assert json.loads((folder / "slow" / "0" / "config.json").read_text())["seed"] == 0

    # What has ended is not run again.
    before = (folder / "fast" / "1" / "summary.json").stat().st_mtime_ns
    assert compare(*given).returncode == 0
    assert (folder / "fast" / "1" / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--run=a: --steps=1"], ["1 runs to compare", "twice or more"]),
        (["--run=a", "--run=b: "], ["--run=a is not NAME: FLAGS"]),
        (["--run=a:", "--run=a:"], ["--run=a: is not NAME: FLAGS with a name of its own"]),
        (["--run=a/b:", "--run=c:"], ["without /"]),
        (["--run=..:", "--run=c:"], ["--run=..: is not", "without a dot at its beginning"]),
        (["--run=../../a:", "--run=c:"], ["without /"]),
        (["--run=.lock:", "--run=c:"], ["without a dot"]),
        (["--run=report:", "--run=c:"], ["a name of its own"]),
        (["--run=a: --option='x", "--run=c:"], ["cannot be split", "no closing quotation"]),
        (["--run=a: --check --model=mlp", "--run=c:"], ["the run a trained nothing"]),
        (["--job=comparison", "--run=a:", "--run=b:"], ["unknown job 'comparison'"]),
        (["--recipe=digits", "--run=b:"], ["unknown recipe 'digits'", "digits_highway"]),
        (["--seeds=0"], ["--seeds=0 is not an integer from 1"]),
        (["--optimizer=adam"], ["flag 'optimizer'"]),
        (["--job=speech", "--run=a:", "--run=b:"], ["unknown job 'speech'", "word_vectors"]),
        (["--run=a: --model=lenet", "--run=b:"], ["the run a failed: unknown model 'lenet'"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)
def test_bad_flags_are_one_clear_line(compare, tmp_path, given, words):
    assert_fails(compare(*given), *words)
    assert {path.name for path in tmp_path.iterdir()} <= {"comparison"}


@pytest.mark.slow
def test_the_command_works_in_any_folder(data_dir, tmp_path):
    """A later run starts from the weights of one before it, by a relative path."""
    runs = ["--run=a:", "--run=b: --init_from={a} --learning_rate=0"]
    process = subprocess.run(
        [
            *(sys.executable, "-m", "dlcore", "comparison", "--smoke", f"--data_dir={data_dir}"),
            *("--all=--model=mlp", "--workdir=here", *runs),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path / "here")["runs"]
    assert found["a"]["loss"]["mean"] == pytest.approx(found["b"]["loss"]["mean"])
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("name", [path.stem for path in jobs.recipes("comparison").iterdir()])
def test_recipes_are_read_by_their_names(name):
    job = jobs.module("comparison")
    recipes = jobs.recipes("comparison")
    config, given = flags.parse(job.Config, [f"--recipe={name}", "--seeds=1"], recipes=recipes)
    assert given >= {"job", "run", "all", "seeds"} and config.seeds == 1
    assert len(job.parse_runs(config.run)) >= 3
