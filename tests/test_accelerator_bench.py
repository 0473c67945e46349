"""The benchmark of accelerators, in its small form."""

import pathlib
import subprocess
import sys
import time

import jax
import pytest

BENCH = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "bench"
sys.path.insert(0, str(BENCH))

import accelerator  # noqa: E402
from accelerator_contenders import WORKS, Figures, train  # noqa: E402

CHIP = "flops=1e12,memory=1e9,bandwidth=1e9,link=1e9"
# The multiply-adds that a unit of the tiny models needs at least, by hand: those of the output
# layer for a token (3 for the gradients), the dense layer of 64 features for an image, and none for
# a word, for which only some pairs count.
LEAST = {"resnet": 64 * 10, "gpt2": 8 * 50, "lstm": 8 * 50, "translation": 8 * 50, "word2vec": 0}


SLOW = ("translation", "resnet", "lstm", "word2vec")


@pytest.mark.parametrize(
    "workload",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in WORKS],
)
def test_each_workload_is_measured_on_a_mesh(workload):
    with jax.numpy_dtype_promotion("standard"):
        work = WORKS[workload](devices=4, layout="mesh", steps=10**6, **accelerator.TINY[workload])
        found = train(work, started=time.perf_counter(), seconds=0.0, chip=CHIP)
    assert (found.devices, found.steps, found.peak_flops) == (4, 1, 1e12)
    assert found.first_step > 0 and found.rate > 0 and found.memory > 0
    assert found.flops is not None and found.flops >= 3 * 2 * LEAST[workload] * work.per_step


def test_the_table_has_rates_of_a_device_their_ratio_and_the_share_of_the_peak():
    mine = Figures("chip", 1, 10, 2.0, 100.0, 9.0, 3e9, flops=6e9, peak_flops=1e11)
    wide = mine._replace(devices=4, per_step=400.0, seconds=2.5, flops=24e9)
    peer = Figures("chip", 1, 10, 4.0, 100.0, 8.0, 4e9)
    found = {"jit": mine, "mesh": wide, accelerator.PEER: peer, "broken": "no memory"}
    rows = accelerator.rows_of("lstm", found)
    assert [row[1] for row in rows] == list(found)
    assert [row[3:7] for row in rows] == [
        ("500 tokens", "2.00", "200.00", "30.0%"),
        ("400 tokens", "1.60", "250.00", "24.0%"),
        ("250 tokens", "1.00", "400.00", "15.0%"),
        ("-", "-", "-", "-"),
    ]
    assert rows[-1][-1] == "no memory"
    lines = accelerator.markdown([accelerator.HEAD, *rows]).splitlines()
    assert len(lines) == 6 and {line.count("|") for line in lines} == {len(rows[0]) + 1}


@pytest.mark.slow
def test_one_command_measures_contender_after_contender(tmp_path):
    path = tmp_path / "table.md"
    done = subprocess.run(
        [sys.executable, BENCH / "accelerator.py", "--smoke", f"--table={path}", "lstm"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = path.read_text(encoding="utf-8").splitlines()
    assert len(written) == 2 + len(accelerator.CONTENDERS)
    for line, name in zip(written[2:5], ("jit", "mesh", "mesh, latency hiding"), strict=True):
        assert line.startswith(f"| lstm | {name} | ") and " tokens |" in line, line
        assert name in done.stdout
