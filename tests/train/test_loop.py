import itertools
import json
import operator
import os
import signal

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.data import Arrays, Loader
from dlcore.errors import Diverged, InputError
from dlcore.launch.loading import Trained
from dlcore.launch.task import Outcome
from dlcore.train import (
    Best,
    Checkpointing,
    Evaluation,
    Logging,
    StopOnSignal,
    fit,
    gradient_step,
    restore_hooks,
)
from dlcore.train.checkpoint import Checkpoints
from dlcore.train.logs import RunLog
from dlcore.types import Mean

MODEL, TX = networks.Network(), optax.adamw(1e-2)
JIT = runtime.layout("jit")
FSDP = runtime.layout("mesh", mesh="fsdp=4")


def make_state():
    return networks.make_state(MODEL, TX)


def make_step():
    return gradient_step(networks.make_loss(MODEL), TX)


def evaluate(state):
    total = sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(state.params))
    return {"accuracy": total}


def run(workdir, *, steps, batches=networks.batches, layout=JIT, checkpoint_every=0):
    """One process's life: restores what there is, trains, closes."""
    checkpoints = Checkpoints(workdir / "checkpoints", {})
    found = checkpoints.restore(layout.abstract(make_state))
    state = found.state if found else layout.initialise(make_state)
    log = RunLog(workdir, start=found.step if found else 0, steps=steps, progress=False)
    hooks = [
        Logging(log, every=5),
        Evaluation(evaluate, every=8, best=Best("accuracy")),
        StopOnSignal(),
        Checkpointing(checkpoints, every=checkpoint_every),
    ]
    if found:
        restore_hooks(hooks, found.loop)
    try:
        return fit(make_step(), state, batches, steps=steps, layout=layout, hooks=hooks)
    finally:
        log.close()
        checkpoints.close()


class Killed(Exception):
    """Stands for a kill -9: nothing after it runs."""


def dying_at(number):
    def batches(start):
        for step, batch in zip(itertools.count(start), networks.batches(start), strict=False):
            if step == number:
                raise Killed
            yield batch

    return batches


@pytest.mark.parametrize(
    "layout", [JIT, pytest.param(FSDP, marks=pytest.mark.slow)], ids=["jit", "fsdp"]
)
def test_a_run_killed_anywhere_continues_bit_for_bit(tmp_path, layout):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    options = {"steps": 30, "layout": layout, "checkpoint_every": 7}
    whole = run(tmp_path / "whole", **options)
    for death in (3, 12, 26):
        with pytest.raises(Killed):
            run(tmp_path / "killed", batches=dying_at(death), **options)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "spl')  # what a kill in the middle of a write leaves
    continued = run(tmp_path / "killed", **options)
    networks.assert_equal(continued.state, whole.state)
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert lines[0] == lines[1]


def test_reports_are_means_over_their_window(tmp_path):
    result = run(tmp_path, steps=12)
    lines = networks.read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["split"]) for line in lines] == [
        (5, "train"), (8, "test"), (10, "train"), (12, "test"),
    ]  # fmt: skip
    step, state, losses = jax.jit(make_step()), JIT.initialise(make_state), []
    for number in range(10):
        state, metrics = step(state, networks.batch(number))
        losses.append(float(metrics["loss"].compute()))
    assert lines[0]["loss"] == pytest.approx(np.mean(losses[:5]), rel=1e-6)
    assert lines[2]["loss"] == pytest.approx(np.mean(losses[5:]), rel=1e-6)
    assert (
        lines[3]["accuracy"] == result.evaluation["accuracy"] == evaluate(result.state)["accuracy"]
    )
    assert list((tmp_path / "tensorboard").iterdir())


def test_each_batch_is_used_once_and_in_order():
    def step(state, batch):
        digits = state.params * 10 + batch["number"]
        return state.replace(step=state.step + 1, params=digits), {"loss": Mean.of(digits)}

    def batches(start):
        return ({"number": np.int32(number)} for number in itertools.count(start))

    state = make_state().replace(step=jnp.int32(3), params=jnp.int32(0))
    result = fit(step, state, batches, steps=9)
    assert int(result.state.params) == 345678
    assert fit(step, result.state, batches, steps=9).steps == 0


def scores(*values):
    """An evaluation that gives these values one after the other."""
    source = iter(values)
    return lambda state: {"accuracy": next(source)}


def test_patience_stops_and_survives_a_restart(tmp_path):
    curve = [0.1, 0.5, 0.4, 0.5, 0.3, 0.2, 0.9]

    def train(directory, evaluate, steps):
        checkpoints = Checkpoints(directory, {})
        found = checkpoints.restore(JIT.abstract(make_state))
        best = Best("accuracy", patience=3)
        hooks = [Evaluation(evaluate, every=1, best=best), Checkpointing(checkpoints)]
        if found:
            restore_hooks(hooks, found.loop)
        state = found.state if found else JIT.initialise(make_state)
        result = fit(make_step(), state, networks.batches, steps=steps, hooks=hooks)
        checkpoints.close()
        return result, best

    whole, _ = train(tmp_path / "whole", scores(*curve), 7)
    assert (whole.reason, int(whole.state.step)) == ("patience", 5)
    first, _ = train(tmp_path / "parts", scores(*curve[:3]), 3)
    assert first.reason == "finished"
    second, best = train(tmp_path / "parts", scores(*curve[3:]), 7)
    assert (second.reason, int(second.state.step)) == ("patience", 5)
    assert (best.step, best.value) == (2, 0.5)
    networks.assert_equal(second.state, whole.state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_at_hand_and_leaves(tmp_path, number):
    def batches(start):
        for step, batch in zip(itertools.count(start), networks.batches(start), strict=False):
            if step == 6:
                os.kill(os.getpid(), number)
            yield batch

    handlers = signal.getsignal(number)
    result = run(tmp_path, steps=20, batches=batches)
    assert result.reason == signal.Signals(number).name
    assert int(result.state.step) == 7
    assert signal.getsignal(number) is handlers
    assert (tmp_path / "checkpoints" / "7").is_dir()
    assert int(run(tmp_path, steps=20).state.step) == 20


def poisoned(*numbers):
    def batches(start):
        for step, batch in zip(itertools.count(start), networks.batches(start), strict=False):
            if step in numbers:
                batch["x"][0, 0] = np.nan
            yield batch

    return batches


def test_bad_steps_in_a_row_end_the_run_with_steps_and_batch_named(tmp_path):
    with pytest.raises(Diverged) as error:
        run(tmp_path, steps=50, batches=poisoned(*range(12, 30)))
    assert "10 steps in a row, 13 to 22" in str(error.value)
    assert "parameters are still those of step 12" in str(error.value)
    assert "batch is number 12 (x 1 values not finite, label finite" in str(error.value)


def test_single_bad_steps_are_skipped_and_counted(tmp_path):
    result = run(tmp_path, steps=20, batches=poisoned(3, 7, 8))
    lines = [
        line
        for line in networks.read_metrics(tmp_path / "metrics.jsonl")
        if line["split"] == "train"
    ]
    assert [line["skipped"] for line in lines] == [0.2, 0.4, 0.0, 0.0]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert result.reason == "finished"


def test_a_batch_of_another_shape_is_reported_as_a_recompilation(tmp_path, capsys):
    def batches(start):
        for step in itertools.count(start):
            yield networks.batch(step, 32 if step < 7 else 16)

    log = RunLog(tmp_path, steps=10, progress=False)
    state = JIT.initialise(make_state)
    result = fit(make_step(), state, batches, steps=10, hooks=[Logging(log, every=5)])
    log.close()
    assert result.recompilations == 1
    assert "compiled again by step 10" in capsys.readouterr().err


def test_a_run_without_hooks_just_trains():
    result = fit(make_step(), JIT.initialise(make_state), networks.batches, steps=3)
    assert (int(result.state.step), result.steps, result.evaluation) == (3, 3, {})


def three(start):
    return itertools.islice(networks.batches(start), 3)


def without(*names):
    return lambda start: (
        {name: leaf for name, leaf in batch.items() if name not in names}
        for batch in networks.batches(start)
    )


@pytest.mark.parametrize(
    "batches, words",
    [
        (networks.batches(0), "a generator; give a generator function"),
        ([networks.batch(0)], "a list; give a generator function"),
        (networks.batch(0), "a dict; give a generator function"),
        (None, "a NoneType"),
        (Loader(Arrays(networks.batch(0)), 8, seed=0), "a Loader; give its method `batches`"),
        (lambda: networks.batches(0), "a function cannot be called so: too many positional"),
        (lambda start, end: [], "a function cannot be called so: missing a required"),
        (lambda start: None, "this one returns a NoneType"),
        (lambda start: 3, "this one returns an int"),
        (lambda start: [(1, 2)], "batch 0 is a tuple; a batch is a dict of arrays"),
        (lambda start: iter([np.zeros(3)]), "batch 0 is a ndarray; a batch is a dict"),
        (lambda start: [], "the batches end before number 0"),
        (three, "end before number 3, but training goes on to step 5;.*or train for steps=3"),
        (without("weight"), "looks for 'weight', and the batch holds x, label; add it.*padding"),
        (without("x", "weight"), "looks for 'x', and the batch holds label; add it to the batches"),
    ],
)
def test_what_is_no_source_of_batches_is_one_clear_line(batches, words):
    with pytest.raises(InputError, match=words) as error:
        fit(make_step(), make_state(), batches, steps=5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x", ("pair", 1), 3])
def test_what_the_step_misses_elsewhere_stays_as_it_is(name):
    def step(state, batch):
        raise KeyError(name)

    with pytest.raises(KeyError):
        fit(step, make_state(), networks.batches, steps=1)


def test_iterables_serve_as_batches():
    result = fit(make_step(), make_state(), lambda start: [networks.batch(start)] * 2, steps=2)
    assert result.steps == 2


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(runtime.layout("mesh"), marks=pytest.mark.slow),
        FSDP,
        pytest.param(runtime.layout("pmap"), marks=pytest.mark.slow),
    ],
)
def test_a_state_made_anywhere_is_brought_where_the_layout_has_it(layout):
    options = {"steps": 2, "layout": layout}
    placed = fit(make_step(), layout.initialise(make_state), networks.batches, **options).state
    result = fit(make_step(), make_state(), networks.batches, **options)
    networks.assert_close(result.state, placed)
    leaves = zip(jax.tree.leaves(result.state), jax.tree.leaves(placed), strict=True)
    assert all(a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in leaves)


def test_a_state_that_is_in_its_place_is_not_copied():
    state = JIT.initialise(make_state)
    placed = JIT.place(state)
    assert all(map(operator.is_, jax.tree.leaves(placed), jax.tree.leaves(state)))


def test_a_state_that_a_run_took_over_is_refused():
    state = JIT.initialise(make_state)
    later = fit(make_step(), state, networks.batches, steps=1).state
    with pytest.raises(
        InputError, match="such as .*, were taken over .*make a new state for each run"
    ):
        fit(make_step(), state, networks.batches, steps=2)
    # Parameters shared with a new state are taken over as well.
    with pytest.raises(InputError, match="were taken over"):
        fit(make_step(), make_state().replace(params=state.params), networks.batches, steps=2)
    assert int(fit(make_step(), later, networks.batches, steps=2).state.step) == 2


def test_the_result_is_printed_without_its_parameters():
    result = fit(make_step(), make_state(), networks.batches, steps=2)
    assert "steps=2" in repr(result) and len(repr(result)) < 500
    outcome = Outcome(result.state.params, {"accuracy": 0.5}, 2, result)
    assert "0.5" in repr(outcome) and "dense" not in repr(outcome).lower()
    assert len(repr(Trained(None, result.state.params, 2, {}))) < 100


def test_metrics_that_are_not_finite_are_null_in_the_file(tmp_path):
    log = RunLog(tmp_path, progress=False)
    log.metrics(1, "test", {"loss": float("nan"), "accuracy": 0.5})
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 1, "split": "test", "loss": None, "accuracy": 0.5}
