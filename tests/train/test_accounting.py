"""Where the time of a run goes and what its steps compute, by a clock that only the test moves."""

import itertools
import types

import jax
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.plan.cost import model_flops
from dlcore.train import (
    Accounting,
    Checkpointing,
    Evaluation,
    Logging,
    Profiling,
    accounting,
    gradient_step,
    loop,
)
from dlcore.train.logs import RunLog
from dlcore.train.packed import PackedStep, numbers_in
from dlcore.train.profiling import Profile, parse_steps
from dlcore.train.progress import speed_figures

MODEL, TX = networks.Network(), optax.sgd(1e-2)
JIT = runtime.layout("jit")
LAYOUTS = {
    "jit": {"kind": "jit"},
    "pmap": {"kind": "pmap"},
    "mesh": {"kind": "mesh", "mesh": "data=2,fsdp=2"},
}


class Clock:
    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(accounting, "time", clock)
    monkeypatch.setattr(loop, "time", clock)
    return clock


def fit(*hooks, layout=JIT, batches=networks.batches, steps=3, step=None):
    state = layout.initialise(lambda: networks.make_state(MODEL, TX))
    step = step or gradient_step(networks.make_loss(MODEL), TX)
    return loop.fit(step, state, batches, steps=steps, layout=layout, hooks=hooks)


def flops(size):
    """Forward, and backward by the weights of both layers and the input of the second."""
    first, second = size * 16 * 32, size * 32 * 5
    return 2 * (2 * first + 3 * second)


def of_sizes(*sizes):
    def batches(start):
        for step in itertools.count(start):
            yield networks.batch(step, sizes[step % len(sizes)])

    return batches


@pytest.mark.parametrize("name", ["jit", pytest.param("pmap", marks=pytest.mark.slow), "mesh"])
def test_the_flops_are_those_of_the_whole_batch_in_every_layout(name):
    result = fit(Accounting(model_flops), layout=runtime.layout(**LAYOUTS[name]))
    assert result.flops == 2 * flops(32)  # the first step is left out


def test_the_parts_that_other_processes_feed_count():
    layout = runtime.layout("mesh", mesh="data=4")
    packed = PackedStep(lambda state, batch: (state, {}), model_flops)
    packed.flops, packed.numbers = 12.0, numbers_in(networks.batch(0))
    account = accounting.Account(packed, parts=3)
    account.compiled(networks.batch(0))
    assert account.flops_of(networks.batch(1)) == 36 and layout.part[1] == 1


def test_each_step_counts_by_the_shape_of_its_batch():
    result = fit(Accounting(model_flops), batches=of_sizes(32, 16, 16, 8), steps=7)
    assert result.flops == sum(map(flops, (16, 16, 8, 32, 16, 16)))


def test_the_step_is_traced_once_for_its_flops_and_its_program():
    calls = []

    def step(state, batch):
        calls.append(1)
        return gradient_step(networks.make_loss(MODEL), TX)(state, batch)

    plain, counted = fit(step=step), fit(Accounting(model_flops), step=step)
    assert len(calls) == 2 and plain.flops == 0
    networks.assert_equal(plain.state, counted.state)


def test_every_moment_belongs_to_one_part(clock):
    def batches(start):
        for batch in networks.batches(start):
            clock.now += 3
            yield batch

    def evaluate(state):
        clock.now += 5
        return {"loss": 1.0}

    def save(*_, **__):
        clock.now += 7

    checkpoints = types.SimpleNamespace(save=save, wait=lambda: None)
    result = fit(
        Evaluation(evaluate, every=4), Checkpointing(checkpoints, every=3),
        batches=batches, steps=9,
    )  # fmt: skip
    expected = dict.fromkeys(accounting.PARTS, 0.0)
    expected |= {"data": 8 * 3.0, "evaluation": 3 * 5.0, "checkpoints": 3 * 7.0}
    assert result.spent == expected
    assert result.seconds == sum(expected.values())


def test_a_step_that_is_compiled_again_counts_as_compilation(clock):
    def step(state, batch):
        clock.now += 11
        return gradient_step(networks.make_loss(MODEL), TX)(state, batch)

    result = fit(step=step, batches=of_sizes(32, 16), steps=6)
    assert result.spent["compilation"] == result.seconds == 11


def test_the_log_gets_the_figures_of_the_steps_since_the_last_report(clock):
    logged = []
    log = types.SimpleNamespace(
        advance=lambda: None, say=lambda line: None,
        metrics=lambda number, *_, speed=None: logged.append((number, speed)),
    )  # fmt: skip

    def batches(start):
        for step, batch in enumerate(networks.batches(start)):
            clock.now += 2 if step < 6 else 4
            yield batch

    fit(Logging(log, every=6), Accounting(model_flops, 1e6), batches=batches, steps=12)
    # A report of a step comes when two more were dispatched: 7 batches in the first one.
    (first, early), (second, late) = logged
    assert (first, second) == (6, 12)
    seconds = {6: 5 * 2 + 2 * 4, 12: 4 * 4}
    for number, steps, speed in ((6, 5, early), (12, 6, late)):
        rate = steps * flops(32) / seconds[number]
        assert speed["steps_per_second"] == pytest.approx(steps / seconds[number])
        assert speed["model_flops_per_second"] == pytest.approx(rate)
        assert speed["model_flop_utilisation"] == pytest.approx(rate / 1e6)
        assert speed["seconds_per_step/data"] == pytest.approx(seconds[number] / steps)


def test_no_figure_without_its_ground():
    spent = dict.fromkeys(accounting.PARTS, 1.0)
    assert accounting.figures(0, spent, 5.0, 1.0) == {}
    plain = accounting.figures(2, spent, 0.0, 1.0)
    assert set(plain) == {"steps_per_second", *[f"seconds_per_step/{p}" for p in accounting.PARTS]}
    assert "model_flop_utilisation" not in accounting.figures(2, spent, 1.0, None)


def test_the_clock_leaves_no_trace_in_the_metrics(clock, tmp_path):
    files = []
    for tick in (1, 2):
        workdir = tmp_path / str(tick)
        workdir.mkdir()
        log = RunLog(workdir, progress=False)

        def batches(start, tick=tick):
            for batch in networks.batches(start):
                clock.now += tick
                yield batch

        fit(Logging(log, every=2), Accounting(model_flops, 1.0), batches=batches, steps=6)
        log.close()
        files.append((workdir / "metrics.jsonl").read_bytes())
    assert files[0] == files[1] and files[0].count(b"\n") == 3


def test_the_progress_shows_the_figures_of_the_speed_that_are_known():
    assert speed_figures(accounting.figures(4, {"data": 1.0, "host": 3.0}, 8e9, None)) == [
        "2 GFLOP/s", "waits for data 25%",
    ]  # fmt: skip
    assert speed_figures(accounting.figures(4, {"data": 0.0, "host": 4.0}, 8.0, 4.0)) == [
        "50.0% of peak", "waits for data 0%",
    ]  # fmt: skip
    assert speed_figures({}) == []


def test_the_alarm_names_what_changed_shape(tmp_path, capsys):
    log = RunLog(tmp_path, progress=False)
    fit(Logging(log, every=4), batches=of_sizes(32, 32, 32, 16), steps=4)
    log.close()
    alarm = capsys.readouterr().err
    assert "compiled again by step 4" in alarm
    for change in ("x float32[32, 16] -> float32[16, 16]", "label int32[32] -> int32[16]"):
        assert change in alarm


def test_the_alarm_when_the_batch_has_the_same_shape():
    account = accounting.Account(PackedStep(lambda state, batch: (state, {})))
    account.compiled({"x": np.zeros((2, 3))})
    account.compiled({"x": np.zeros((2, 3)), "y": np.zeros(2, np.int32)})
    assert account.changes == "y nothing -> int32[2]"
    account.compiled({"x": np.zeros((2, 3)), "y": np.zeros(2, np.int32)})
    assert "something in the state" in account.changes


@pytest.fixture
def calls(monkeypatch):
    """Stands for the profiler, which takes seconds."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


@pytest.mark.parametrize(
    "first, last, expected",
    [
        (2, 3, [1, "start", 2, 3, "stop", 4, 5]),
        (1, 1, ["start", 1, "stop", 2, 3, 4, 5]),
        (4, 9, [1, 2, 3, "start", 4, 5, "stop"]),  # the run ends first
        (7, 9, [1, 2, 3, 4, 5]),
    ],
)
def test_which_steps_are_traced(tmp_path, calls, first, last, expected):
    def batches(start):
        for step, batch in enumerate(networks.batches(start)):
            calls.append(step + 1)
            yield batch

    fit(Profiling(Profile(tmp_path / "profile", first, last)), batches=batches, steps=5)
    assert calls == expected
    assert (tmp_path / "profile").exists() == ("start" in expected)


def test_a_run_that_continues_among_the_steps_traces_the_rest(tmp_path, calls):
    profile = Profile(tmp_path, 2, 4)
    for step in (3, 4, 5):
        profile.before(step)
        profile.after(step, np.zeros(1))
        calls.append(step)
    assert calls == ["start", 3, "stop", 4, 5]


@pytest.mark.parametrize("text", ["5", "a:b", "3:2", "0:2", "5:11", "-1:2", ""])
def test_steps_to_profile_that_are_none(text):
    with pytest.raises(InputError, match="steps to profile"):
        parse_steps(text, 10)


def test_steps_to_profile():
    assert parse_steps("2:10", 10) == (2, 10)
