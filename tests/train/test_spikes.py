"""Steps whose loss is a spike: which they are, and what the guard makes of them."""

import dataclasses

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.train import Logging, fit, guard, loop
from dlcore.train.logs import RunLog
from dlcore.train.spikes import SpikeGuardedState
from dlcore.types import Mean, TrainState


class Reference:
    """The rule in double precision, with a list of all accepted losses."""

    def __init__(self):
        self.accepted, self.allowance = [], 10 * 36

    def is_spike(self, loss):
        window = np.array(self.accepted[-128:], np.float64)
        if len(window) == 128 and self.allowance >= 36:
            deviation = np.std(window, ddof=1)
            if deviation > 1.2e-7 * abs(window.mean()):
                return loss > window.mean() + 6 * deviation
        return False

    def decide(self, loss, healthy):
        if not healthy:
            return "skipped"
        if self.is_spike(loss):
            self.allowance -= 36
            return "spike"
        self.accepted.append(loss)
        self.allowance = min(self.allowance + 1, 10 * 36)
        return "accepted"


def given_step(state, batch):
    """A step whose loss the batch says; its parameter is the sum of the losses."""
    new = state.replace(step=state.step + 1, params=state.params + batch["loss"])
    return new, {"loss": Mean(2 * batch["loss"], jnp.full((), 2.0)), "norm": Mean.of(batch["norm"])}


def given_state(losses=()):
    """A state that remembers some losses."""
    state = SpikeGuardedState.create({"params": jnp.zeros(())}, optax.identity(), jax.random.key(0))
    recent = state.recent
    for loss in losses:
        recent = recent.accept(jnp.float32(loss))
    return state.replace(recent=recent)


def decisions(losses, norms=None):
    """What the guard makes of steps of these losses and gradient norms, and the last state."""
    losses = np.asarray(losses, np.float32)
    batches = {"loss": losses, "norm": np.ones_like(losses) if norms is None else norms}
    state, metrics = jax.lax.scan(guard(given_step), given_state(), batches)
    spikes, skipped = (np.asarray(metrics[name].total) for name in ("spikes", "skipped"))
    assert not (spikes * skipped).any()
    np.testing.assert_array_equal(metrics["loss"].weight, 2 * (1 - spikes - skipped))
    np.testing.assert_array_equal(
        metrics["loss"].total, np.where(spikes + skipped > 0, 0, 2 * losses)
    )
    names = np.select([skipped > 0, spikes > 0], ["skipped", "spike"], "accepted")
    return names.tolist(), state


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=count)


def eventful():
    """A run that falls, with spikes and bad steps, drifts up and then moves up for good."""
    time = np.arange(800)
    losses = 3 * np.exp(-time / 150) + 0.05 * noise(800)
    losses[400:600] += np.linspace(0, 2, 200)
    losses[600:] += 12
    losses[[90, 200, 300, 301, 302, 450, 720]] += 40
    losses[[310, 350]] += 0.15
    losses[[50, 250, 252, 605]] = np.nan
    losses[251] = np.inf
    norms = np.ones(800, np.float32)
    norms[[303, 420]] = np.nan
    losses[303] += 40
    return losses, norms


def offset():
    """Losses whose deviation is a 200,000th of their mean."""
    losses = 1e4 + 0.05 * noise(400, seed=3)
    losses[[150, 260]] += 1
    losses[[200, 300]] += 0.12
    return losses, np.ones(400, np.float32)


@pytest.mark.parametrize("sequence", [eventful, offset])
def test_every_step_is_decided_as_by_the_plain_rule(sequence):
    losses, norms = sequence()
    losses = losses.astype(np.float32)
    reference = Reference()
    healthy = np.isfinite(losses) & np.isfinite(norms)
    expected = [reference.decide(*pair) for pair in zip(losses, healthy, strict=True)]
    assert 2 <= expected.count("spike") < len(losses) / 20
    found, state = decisions(losses, norms)
    assert found == expected
    assert int(state.step) == len(losses)
    np.testing.assert_allclose(state.params, np.sum(reference.accepted), rtol=1e-5)
    np.testing.assert_array_equal(state.recent.losses, np.float32(reference.accepted[-128:]))
    assert int(state.recent.allowance) == reference.allowance


def test_nothing_is_a_spike_before_128_losses_are_remembered():
    for count, expected in ((127, "accepted"), (128, "spike")):
        losses = np.append(noise(count), 100)
        assert decisions(losses)[0] == ["accepted"] * count + [expected]


@pytest.mark.parametrize(
    ("sigmas", "expected"), [(5.99, "accepted"), (6.01, "spike"), (-20, "accepted")]
)
def test_the_bound_is_six_standard_deviations_above_the_mean(sigmas, expected):
    window = 5 + noise(128)
    loss = np.mean(window) + sigmas * np.std(window, ddof=1)
    assert decisions([*window, loss])[0][-1] == expected


@pytest.mark.parametrize("last", [0.0, 2.3, -7.1, np.nextafter(np.float32(2.3), np.float32(9))])
def test_losses_that_are_equal_but_for_rounding_make_nothing_a_spike(last):
    window = np.append(np.full(127, np.round(last, 1)), last)
    found, _ = decisions([*window, last, last + 1])
    assert set(found) == {"accepted"}


def test_losses_that_moved_up_for_good_are_learned_from_after_ten_spikes():
    found, _ = decisions(np.concatenate([noise(128), 1000 + noise(400)]))
    assert found == ["accepted"] * 128 + ["spike"] * 10 + ["accepted"] * 390


@pytest.mark.parametrize("high", [0.9, 0.5])
def test_in_the_long_run_one_step_in_37_is_skipped_at_most(high):
    count = 2000
    away = np.random.default_rng(1).random(count) < high
    growing = np.where(away, 1.3 ** (np.arange(count) % 100), 0)
    for change in (1000.0 * away, growing):
        found, _ = decisions(np.concatenate([noise(128), noise(count, 2) + change]))
        assert 10 <= found.count("spike") <= 10 + count / 37


def test_a_loss_over_no_weight_is_neither_spike_nor_remembered():
    state = given_state(noise(128))

    def step(state, batch):
        return state.replace(step=state.step + 1), {"loss": Mean(batch, jnp.zeros(()))}

    for total in (0.0, 1.0):
        new, metrics = jax.jit(guard(step))(state, jnp.float32(total))
        assert float(metrics["spikes"].total) == 0 and float(metrics["skipped"].total) == 0
        networks.assert_equal(new.recent, state.recent)


def self_guarded(state, batch):
    new, metrics = given_step(state, batch)
    return new, metrics | {"skipped": Mean(jnp.full((), 1.0), jnp.full((), 4.0))}


def test_a_step_that_guards_itself_is_undone_where_its_loss_is_a_spike():
    state = given_state(noise(128))
    for loss, params, spikes, skipped in (
        (0.5, 0.5, 0, 0.25), (99, 0, 1, 0.25), (np.nan, 0, 0, 1),
    ):  # fmt: skip
        batch = {"loss": jnp.float32(loss), "norm": jnp.ones(())}
        new, metrics = jax.jit(guard(self_guarded))(state, batch)
        assert (int(new.step), float(new.params)) == (1, params)
        assert float(metrics["spikes"].compute()) == spikes
        assert float(metrics["skipped"].compute()) == skipped


def test_a_step_without_a_loss_cannot_skip_spikes():
    def step(state, batch):
        return state, {"energy": Mean.of(batch)}

    with pytest.raises(InputError, match=r"reports \['energy'\]; leave out --skip_spikes"):
        guard(step)(given_state(), jnp.ones(()))


def test_a_plain_state_has_no_field_more_and_lets_spikes_pass():
    # Orbax would refuse every checkpoint that was written without the field.
    names = [field.name for field in dataclasses.fields(TrainState)]
    assert names == ["step", "params", "model_state", "opt_state", "rng", "carry"]
    state = TrainState.create({"params": jnp.zeros(())}, optax.identity(), jax.random.key(0))
    batch = {"loss": jnp.float32(1e9), "norm": jnp.ones(())}
    for step in (given_step, self_guarded):
        new, metrics = guard(step)(state, batch)
        assert float(new.params) == 1e9 and type(new) is TrainState
        assert set(metrics) == {"loss", "norm", "skipped"}
    programs = [jax.make_jaxpr(step)(state, batch) for step in (guard(self_guarded), self_guarded)]
    assert str(programs[0]) == str(programs[1])


def test_spikes_are_reported_and_do_not_end_a_run(tmp_path, monkeypatch):
    losses = np.concatenate([noise(128), [50, 60, 70], noise(9)]).astype(np.float32)

    def batches(start):
        for loss in losses[start:]:
            yield {"loss": loss, "norm": np.float32(1)}

    log = RunLog(tmp_path, steps=140, progress=False)
    monkeypatch.setattr(loop, "_PATIENCE", 2)
    state = runtime.layout("jit").initialise(given_state)
    result = fit(given_step, state, batches, steps=140, hooks=[Logging(log, every=10)])
    log.close()
    lines = networks.read_metrics(tmp_path / "metrics.jsonl")
    assert result.reason == "finished" and int(result.state.step) == 140
    assert [line["spikes"] for line in lines] == [0.0] * 12 + [0.2, 0.1]
    assert {line["skipped"] for line in lines} == {0.0} and lines[12]["loss"] < 3
