"""The hooks of the loop: their order, what they remember, and what they cost."""

import json
import time
import types

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.train import (
    Accounting,
    Best,
    Checkpointing,
    Evaluation,
    Hook,
    Logging,
    Profiling,
    StopOnSignal,
    Watchdog,
    fit,
    gradient_step,
    hooks,
    restore_hooks,
)
from dlcore.train.checkpoint import Checkpoints
from dlcore.train.loop import Loop
from dlcore.train.profiling import Profile
from dlcore.types import Mean, TrainState

TX = optax.sgd(1e-2)
JIT = runtime.layout("jit")
STEP = gradient_step(networks.make_loss(networks.Network()), TX)


def make_state():
    return networks.make_state(networks.Network(), TX)


class Silent:
    """A log that notes what it is told."""

    def __init__(self):
        self.lines = []

    def metrics(self, number, split, metrics, speed=None):
        self.lines.append((number, split))

    def advance(self):
        pass

    def say(self, line):
        pass

    def saved(self):
        return {}

    def check(self, saved):
        pass


class Recorder(Hook):
    """Notes each moment at which it is called."""

    def __init__(self, calls):
        self.calls = calls

    def start(self, loop):
        self.calls.append("start")

    def before_step(self, loop):
        self.calls.append(f"before {loop.number + 1}")

    def after_step(self, loop):
        self.calls.append(f"after {loop.number}")

    def read(self, loop, number, values):
        assert values.shape == (len(loop.names), 2) and loop.number - number <= 2
        self.calls.append(f"read {number}")

    def finish(self, loop):
        self.calls.append("finish")

    def close(self, loop):
        self.calls.append("close, failed" if loop.failed else "close")


def test_when_a_hook_is_called():
    calls = []
    fit(STEP, make_state(), networks.batches, steps=4, hooks=[Recorder(calls)])
    assert calls == [
        "start", "before 1", "after 1", "before 2", "after 2", "before 3", "read 1", "after 3",
        "before 4", "read 2", "after 4", "read 3", "read 4", "finish", "close",
    ]  # fmt: skip


def test_hooks_run_in_the_order_given_and_close_after_an_error_too():
    calls = []

    class Named(Hook):
        def __init__(self, name):
            self.name = name

        def after_step(self, loop):
            calls.append(self.name)
            if self.name == "second":
                raise KeyError

        def close(self, loop):
            calls.append(f"close {self.name}")
            raise ValueError

    with pytest.raises(ValueError):
        fit(STEP, make_state(), networks.batches, steps=4, hooks=[Named("first"), Named("second")])
    assert calls == ["first", "second", "close first", "close second"]


def test_a_report_comes_before_what_looks_at_the_state_wherever_it_stands():
    log, saves = Silent(), []

    class Saved:
        wait = staticmethod(lambda: None)

        def save(self, step, state, loop, best):
            saves.append((step, len(log.lines), best, loop["evaluation"]))

    evaluation = Evaluation(lambda state: {"x": 1.0}, every=3, split="valid", best=Best("x"))
    fit(
        STEP, make_state(), networks.batches, steps=7,
        hooks=[evaluation, Logging(log, every=3), Checkpointing(Saved(), every=6)],
    )  # fmt: skip
    assert log.lines == [(3, "train"), (3, "valid"), (6, "train"), (6, "valid"), (7, "valid")]
    assert saves == [(3, 2, True, {"x": 1.0}), (6, 4, False, {"x": 1.0}), (7, 5, False, {"x": 1.0})]


def test_what_a_checkpoint_of_an_earlier_version_remembers_is_taken_over():
    loop = {
        "window": {"loss": [3.0, 2.0]}, "skipped": 4, "evaluation": {"x": 2.0},
        "best": {"value": 2.0, "step": 5, "waited": 1},
    }  # fmt: skip
    log, best = Silent(), Best("x", patience=2)
    written = {}
    checkpoints = types.SimpleNamespace(
        save=lambda step, state, loop, best: written.update(loop), wait=lambda: None
    )
    given = [Logging(log), Evaluation(lambda state: {"x": 1.0}, best=best)]
    given.append(Checkpointing(checkpoints))
    restore_hooks(given, loop)
    assert (best.step, best.waited) == (5, 1)
    memory = given[-1]._memory(types.SimpleNamespace(hooks=given, skipped=4, names=[]))
    assert json.loads(json.dumps(memory)) == loop
    result = fit(STEP, make_state().replace(step=jnp.int32(6)), networks.batches, steps=8,
                 hooks=given)  # fmt: skip
    assert written["window"]["loss"][1] == 2 + 2 * 32 and written["skipped"] == 0
    assert result.evaluation == {"x": 1.0} and written["best"]["waited"] == 2


def test_a_run_that_was_over_gives_the_evaluation_that_was_remembered():
    given = [Evaluation(lambda state: {"x": 1.0})]
    restore_hooks(given, {"window": {}, "skipped": 0, "evaluation": {"x": 3.0}, "best": None})
    assert fit(STEP, make_state(), networks.batches, steps=0, hooks=given).evaluation == {"x": 3.0}


def test_bad_steps_in_a_row_are_counted_across_a_restart(tmp_path):
    def poisoned(start):
        for batch in networks.batches(start):
            yield batch | {"x": np.full((32, 16), np.nan, np.float32)}

    checkpoints = Checkpoints(tmp_path / "c", {})
    fit(STEP, make_state(), poisoned, steps=6, hooks=[Checkpointing(checkpoints)])
    found = checkpoints.restore(JIT.abstract(make_state))
    again = [Checkpointing(checkpoints)]
    restore_hooks(again, found.loop)
    with pytest.raises(ValueError, match="10 steps in a row, 1 to 10"):
        fit(STEP, found.state, poisoned, steps=20, hooks=again)
    checkpoints.close()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["last", "first"])
def test_where_a_stop_is_asked_for_does_not_matter_to_the_checkpoint(order):
    saved = []
    checkpoints = types.SimpleNamespace(
        save=lambda step, state, loop, best: saved.append(step), wait=lambda: None
    )

    class Stop(Hook):
        def after_step(self, loop):
            if loop.number == 3:
                loop.stop("enough")

    given = [Checkpointing(checkpoints), Stop()][order]
    result = fit(STEP, make_state(), networks.batches, steps=9, hooks=given)
    assert (result.reason, result.steps, saved) == ("enough", 3, [3])


def test_while_steps_are_skipped_only_the_best_and_the_last_step_are_saved():
    saved = []
    checkpoints = types.SimpleNamespace(
        save=lambda step, state, loop, best: saved.append(step), wait=lambda: None
    )

    def poisoned(start):
        for number, batch in enumerate(networks.batches(start), start + 1):
            bad = number in (2, 3, 4, 7, 8)
            yield batch | ({"x": np.full((32, 16), np.nan, np.float32)} if bad else {})

    given = [Evaluation(lambda state: {"x": 1.0}, every=3, best=Best("x")),
             Checkpointing(checkpoints, every=1)]  # fmt: skip
    fit(STEP, make_state(), poisoned, steps=8, hooks=given)
    assert saved == [1, 3, 5, 6, 8]


def test_checkpointing_before_what_it_saves_is_refused():
    checkpoints = types.SimpleNamespace(wait=lambda: None)
    for later in (Logging(Silent()), Evaluation(lambda state: {})):
        with pytest.raises(ValueError, match="Checkpointing comes before"):
            fit(STEP, make_state(), networks.batches, steps=1,
                hooks=[Checkpointing(checkpoints), later])  # fmt: skip
    with pytest.raises(ValueError, match="two hooks save best, evaluation"):
        twice = [Evaluation(lambda state: {}), Evaluation(lambda state: {})]
        fit(STEP, make_state(), networks.batches, steps=1,
            hooks=[*twice, Checkpointing(checkpoints)])  # fmt: skip


def test_the_watchdog_is_awake_during_the_run_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(hooks.processes, "set_watchdog", lambda seconds: calls.append(seconds))
    monkeypatch.setattr(hooks.processes, "heartbeat", lambda: calls.append("beat"))
    fit(STEP, make_state(), networks.batches, steps=2, hooks=[Watchdog(5.0)])
    assert calls == [5.0, "beat", "beat", 0]


def test_hooks_that_are_not_due_cost_less_than_a_microsecond(tmp_path):
    """A step that does nothing, with all hooks and without."""

    def idle(state, batch):
        return state.replace(step=state.step + 1), {"loss": Mean.of(batch["x"])}

    state = TrainState(jnp.int32(0), {}, {}, (), jax.random.key(0))
    given = [
        Evaluation(lambda state: {}), StopOnSignal(),
        Profiling(Profile(tmp_path, 10**9, 10**9)), Accounting(), Watchdog(0.0),
        Checkpointing(types.SimpleNamespace(save=lambda *a, **k: None, wait=lambda: None)),
    ]  # fmt: skip
    loop = Loop(
        idle, state, lambda start: iter(()), steps=10**9, layout=JIT, precision=None,
        hooks=given,
    )  # fmt: skip
    loop.number = 1
    for name in ("before_step", "after_step"):
        called = loop._overriding(name)
        best = min(timed(called, loop) for _ in range(20))
        assert best < 1e-6 * len(called), (name, best)
    assert len(loop._overriding("before_step")) == 1 and not loop._readers


def timed(called, loop, count=2000):
    start = time.perf_counter()
    for _ in range(count):
        for hook in called:
            hook(loop)
    return (time.perf_counter() - start) / count
