"""Steps: pure functions (state, batch) -> (state, metrics)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dlcore.metrics import Mean
from dlcore.nn.examples import Part, part_of_batch
from dlcore.optim import reported
from dlcore.train.state import Aux, Batch, LossFn, Metrics, Step, TrainState


def gradient_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Step:
    """The ordinary step: one gradient of the mean loss over the whole batch, one update.

    The gradient is that of the loss's total, summed over micro-batches and devices and divided
    once by the summed weight: neither the padding nor `accumulate` nor the number of devices
    changes it.

    Args:
        loss_fn: (params, model_state, batch, rng) -> (Mean, Aux). The weight must not depend on
            the parameters.
        tx: the optimizer.
        accumulate: into how many micro-batches the batch is cut, one after the other, to save
            memory. The model's state passes through all of them.
        axis_name: the axis of `pmap` over which the batch is spread; None where the compiler
            sees the whole batch.

    Returns:
        A step whose metrics are "loss", "grad_norm", those of `loss_fn` and what the optimizer
        reports.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; it must be at least 1")

    def total(
        params: Any, model_state: Any, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Aux]]:
        loss, aux = loss_fn(params, model_state, batch, rng)
        return loss.total, (loss.weight, aux)

    def gradient(
        state: TrainState, model_state: Any, batch: Batch, part: Part
    ) -> tuple[Any, Any, tuple[Any, Mean, Metrics]]:
        rng = jax.random.fold_in(state.rng, state.step)
        with part_of_batch(part):
            (value, (weight, aux)), grads = jax.value_and_grad(total, has_aux=True)(
                state.params, model_state, batch, rng
            )
        return aux.model_state, aux.carry, (grads, Mean(value, weight), aux.metrics)

    def accumulated(
        state: TrainState, batch: Batch, part: Part
    ) -> tuple[Any, Any, tuple[Any, Mean, Metrics]]:
        if accumulate == 1:
            return gradient(state, state.model_state, batch, part)

        # Micro-batch i takes the rows i, i + accumulate, ...: contiguous rows would lie on few of
        # a mesh's devices.
        def cut(leaf: jax.Array) -> jax.Array:
            leaf = jnp.asarray(leaf)
            rows = leaf.reshape(leaf.shape[0] // accumulate, accumulate, *leaf.shape[1:])
            return jnp.swapaxes(rows, 0, 1)

        micro_batches = jax.tree.map(cut, batch)

        def join(leaf: jax.Array) -> jax.Array:
            return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

        def add(so_far: tuple[Any, Any], xs: tuple[jax.Array, Batch]) -> tuple[Any, Any]:
            model_state, sums = so_far
            index, micro = xs
            here = Part(part.offset + index, accumulate, part.axis_name)
            model_state, carry, terms = gradient(state, model_state, micro, here)
            return (model_state, jax.tree.map(jnp.add, sums, terms)), carry

        first = jax.tree.map(lambda leaf: leaf[0], micro_batches)
        _, _, shapes = jax.eval_shape(
            functools.partial(gradient, part=part), state, state.model_state, first
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (model_state, sums), carries = jax.lax.scan(
            add, (state.model_state, zeros), (jnp.arange(accumulate), micro_batches)
        )
        return model_state, jax.tree.map(join, carries), sums

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        offset: jax.Array | int = 0
        if axis_name is not None:
            offset = jax.lax.axis_index(axis_name) * len(next(iter(batch.values())))
        if state.carry is not None:
            batch = {**batch, "carry": state.carry}
        model_state, carry, sums = accumulated(state, batch, Part(offset, 1, axis_name))
        if axis_name is not None:
            sums = jax.lax.psum(sums, axis_name)
        grads, loss, metrics = sums
        grads = jax.tree.map(lambda g: g / loss.weight, grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
            carry=carry,
        )
        norm = Mean(optax.tree.norm(grads), jnp.ones(()))
        return new, {"loss": loss, "grad_norm": norm, **metrics, **reported(opt_state)}

    return step


def guard(step: Step) -> Step:
    """The health guard: a step that reports anything not finite changes nothing but the counter.

    A loss can look healthy while its gradient is not, so a step is guarded by all that it
    reports; `gradient_step` reports the gradient's norm. The metrics of a bad step count nothing
    (total and weight are 0); the added metric "skipped" is the share of bad steps.

    To go back, the state from before must be kept, which costs a copy of all that a step would else
    write in place. A step that writes a few rows of large tables therefore guards itself, and says
    so by a metric "skipped" of its own.
    """

    def guarded(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        new, metrics = step(state, batch)
        if "skipped" in metrics:
            return new, metrics
        healthy = jnp.all(jnp.stack([jnp.isfinite(mean.total) for mean in metrics.values()]))
        state = _choose(healthy, new, state.replace(step=new.step))
        metrics = jax.tree.map(lambda value: jnp.where(healthy, value, 0), metrics)
        return state, metrics | {"skipped": Mean(1.0 - healthy, jnp.ones(()))}

    return guarded


def _select(first: jax.Array, left: TrainState, right: TrainState) -> TrainState:
    return jax.tree.map(functools.partial(jnp.where, first), left, right)


def _branch(first: jax.Array, left: TrainState, right: TrainState) -> TrainState:
    return jax.lax.cond(first, lambda a, b: a, lambda a, b: b, left, right)


def _choose(first: jax.Array, left: TrainState, right: TrainState) -> TrainState:
    """The left state if `first`, else the right one, the same bits.

    On the CPU a conditional passes the buffers on, where a select would touch every number of the
    state: 6 % of a small step. On accelerators a conditional would make the host wait.
    """
    return jax.lax.platform_dependent(first, left, right, cpu=_branch, default=_select)
