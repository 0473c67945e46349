"""The health guard: a step that goes wrong changes nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.train.spikes import SpikeGuardedState
from dlcore.types import Batch, Mean, Metrics, Step, TrainState


def guard(step: Step) -> Step:
    """Returns the guarded step: if it is not finite, it only raises the counter of bad steps.

    A loss can be finite while its gradient is not, so the guard looks at every metric that a step
    reports; `gradient_step` reports the gradient's norm. Both can be finite while the update is
    not, so the guard looks at the new parameters too. The metrics of a bad step do not count (their
    total and weight are 0); the added metric "skipped" is the share of bad steps.

    In a `SpikeGuardedState`, a step whose loss is a spike changes only the counter and the memory
    of losses. Its metrics do not count either; the added metric "spikes" is the share of these
    steps, which are not among the "skipped" ones.

    To be able to go back, the guard keeps the state from before the step, which costs a copy of
    everything that the step would otherwise write in place. A step that writes a few rows of large
    tables therefore guards itself, and says so by a metric "skipped" of its own. Skipping its
    spikes still costs that copy.
    """

    @functools.wraps(step)
    def guarded(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        new, metrics = step(state, batch)
        own = metrics.get("skipped")
        if own is not None and not isinstance(state, SpikeGuardedState):
            return new, metrics
        numbers = [mean.total for mean in metrics.values()]
        if own is None:
            numbers += [_zero_if_finite(leaf) for leaf in jax.tree.leaves(new.params)]
        healthy = jnp.all(jnp.stack([jnp.isfinite(number) for number in numbers]))
        skipped = Mean(1.0 - healthy.astype(jnp.float32), jnp.ones(()))
        counts = {"skipped": skipped if own is None else _select(healthy, own, skipped)}
        accepted, old = healthy, state.replace(step=new.step)
        if isinstance(state, SpikeGuardedState):
            loss = _loss(metrics)
            spike = healthy & state.recent.is_spike(loss)
            accepted = healthy & ~spike
            new = new.replace(recent=state.recent.accept(loss))
            old = old.replace(recent=_select(spike, state.recent.skip(), state.recent))
            counts["spikes"] = Mean(spike.astype(jnp.float32), jnp.ones(()))
        metrics = jax.tree.map(lambda value: jnp.where(accepted, value, 0), metrics)
        return _choose(accepted, new, old), metrics | counts

    return guarded


def _zero_if_finite(leaf: jax.Array) -> jax.Array:
    """Returns 0 when all elements of a leaf are finite, else NaN.

    It is the cheapest way to ask, and one number between devices.
    """
    return jnp.sum(leaf * 0)


def _loss(metrics: Metrics) -> jax.Array:
    if "loss" not in metrics:
        raise InputError(
            f"spikes are seen in the metric 'loss', but this step reports {sorted(metrics)}; leave "
            "out --skip_spikes"
        )
    return metrics["loss"].compute().astype(jnp.float32)


def _select(first: jax.Array, left: Any, right: Any) -> Any:
    return jax.tree.map(functools.partial(jnp.where, first), left, right)


def _branch(first: jax.Array, left: TrainState, right: TrainState) -> TrainState:
    return jax.lax.cond(first, lambda a, b: a, lambda a, b: b, left, right)


def _choose(first: jax.Array, left: TrainState, right: TrainState) -> TrainState:
    """Returns the left state if `first`, else the right one, the same bits.

    On the CPU a conditional passes the buffers on, where a select would touch every number of the
    state: 6 % of a small step. On accelerators a conditional would make the host wait.
    """
    return jax.lax.platform_dependent(first, left, right, cpu=_branch, default=_select)
