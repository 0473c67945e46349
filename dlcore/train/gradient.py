"""The ordinary step: a pure function (state, batch) -> (state, metrics)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dlcore.optim import reported
from dlcore.parallel import Part, part_of_batch
from dlcore.runtime.layout import Jit, Layout
from dlcore.types import Aux, Batch, LossFn, Mean, Metrics, Step, TrainState


def gradient_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    layout: Layout | None = None,
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
        layout: that the step will be compiled for; one device by default.

    Returns:
        A step whose metrics are "loss", "grad_norm", those of `loss_fn` and what the optimizer
        reports.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; it must be at least 1")
    layout = layout or Jit()

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if state.carry is not None:
            batch = {**batch, "carry": state.carry}
        shared = state.model_state, jax.random.fold_in(state.rng, state.step)
        (grads, (loss, metrics)), model_state, carry = spread(state.params, shared, batch)
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

    def of_rows(
        params: Any,
        shared: tuple[Any, jax.Array],
        batch: Batch,
        *,
        value_and_grad: Callable[..., Any],
    ) -> tuple[Any, Any, Any]:
        """((gradient, (loss, metrics)) of the rows at hand, model state, carry)."""
        model_state, rng = shared
        offset: jax.Array | int = 0
        if layout.axis_name is not None:
            rows = len(jax.tree.leaves(batch)[0])
            offset = jax.lax.axis_index(layout.axis_name) * rows
        one = functools.partial(_gradient, loss_fn, value_and_grad, params, rng)
        part = Part(offset, 1, layout.axis_name)
        if accumulate == 1:
            return one(model_state, batch, part)
        return _accumulated(one, accumulate, model_state, batch, part)

    spread = layout.spread(of_rows)
    return step


def _gradient(
    loss_fn: LossFn,
    value_and_grad: Callable[..., Any],
    params: Any,
    rng: jax.Array,
    model_state: Any,
    batch: Batch,
    part: Part,
) -> tuple[Any, Any, Any]:
    def total(
        params: Any, model_state: Any, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Aux]]:
        loss, aux = loss_fn(params, model_state, batch, rng)
        return loss.total, (loss.weight, aux)

    with part_of_batch(part):
        (value, (weight, aux)), grads = value_and_grad(total)(params, model_state, batch, rng)
    return (grads, (Mean(value, weight), aux.metrics)), aux.model_state, aux.carry


def _accumulated(
    gradient: Callable[..., tuple[Any, Any, Any]],
    count: int,
    model_state: Any,
    batch: Batch,
    part: Part,
) -> tuple[Any, Any, Any]:
    """The sum of the gradients of `count` micro-batches, one after the other."""

    # Micro-batch i takes the rows i, i + count, ...: contiguous rows would hold few of the
    # examples that belong together, such as the partners of a mixture.
    def cut(leaf: jax.Array) -> jax.Array:
        leaf = jnp.asarray(leaf)
        rows = leaf.reshape(leaf.shape[0] // count, count, *leaf.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    def join(leaf: jax.Array) -> jax.Array:
        return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

    def add(so_far: tuple[Any, Any], xs: tuple[jax.Array, Batch]) -> tuple[Any, Any]:
        model_state, sums = so_far
        index, micro = xs
        here = Part(part.offset + index, count, part.axis_name)
        terms, model_state, carry = gradient(model_state, micro, here)
        return (model_state, jax.tree.map(jnp.add, sums, terms)), carry

    micro_batches = jax.tree.map(cut, batch)
    first = jax.tree.map(lambda leaf: leaf[0], micro_batches)
    shapes, _, _ = jax.eval_shape(functools.partial(gradient, part=part), model_state, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (model_state, sums), carries = jax.lax.scan(
        add, (model_state, zeros), (jnp.arange(count), micro_batches)
    )
    return sums, model_state, jax.tree.map(join, carries)
