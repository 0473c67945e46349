"""Gradients of mean losses that are right in every layout, and the ordinary step built on them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dlcore.optim import reported
from dlcore.parallel import Part, current_part, part_of_batch
from dlcore.runtime import map_rows
from dlcore.runtime.precision import as_before, current_precision
from dlcore.types import Aux, Batch, LossFn, Mean, Metrics, Step, TrainState

# (params, model_state, batch, rng) -> (gradient, loss, Aux)
MeanGradient = Callable[[Any, Any, Batch, jax.Array], tuple[Any, Mean, Aux]]


def gradient_step(
    loss_fn: LossFn, tx: optax.GradientTransformation, *, accumulate: int = 1
) -> Step:
    """Returns the ordinary step: one gradient of the mean loss over the whole batch, one update.

    The gradient is the one of `mean_gradient`: neither the padding nor `accumulate` nor the layout
    changes it.

    Args:
        loss_fn: (params, model_state, batch, rng) -> (Mean, Aux). The weight must not depend on
            the parameters. Where the state has a carry, it is batch["carry"].
        tx: the optimizer.
        accumulate: the number of micro-batches into which the batch is cut, to save memory. They
            are computed one after the other, and the model's state passes through all of them.

    Returns:
        A step whose metrics are "loss", "grad_norm", the metrics of `loss_fn` and what the
        optimizer reports.
    """
    gradient = mean_gradient(loss_fn, accumulate=accumulate)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if state.carry is not None:
            batch = {**batch, "carry": state.carry}
        rng = jax.random.fold_in(state.rng, state.step)
        grads, loss, aux = gradient(state.params, state.model_state, batch, rng)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=aux.model_state,
            opt_state=opt_state,
            carry=aux.carry,
        )
        norm = Mean(optax.tree.norm(grads), jnp.ones(()))
        return new, {"loss": loss, "grad_norm": norm, **aux.metrics, **reported(opt_state)}

    return step


def mean_gradient(loss_fn: LossFn, *, accumulate: int = 1) -> MeanGradient:
    """Returns the gradient of a mean loss over the whole batch, for custom steps.

    The gradient of the loss's total is summed over micro-batches and devices and divided once by
    the summed weight. A step that calls this is right in every layout without an argument for it:
    the layout is an argument of `compile_step`, and so is the precision. The loss function gets
    the parameters in the type that the step computes in, while gradients have the type of the
    parameters, means are at least float32, and model state and carry keep their types.

    Args:
        loss_fn: as for `gradient_step`.
        accumulate: the number of micro-batches into which the batch is cut.

    Returns:
        A function (params, model_state, batch, rng) -> (gradient, loss, Aux), all over the whole
        batch. The loss function sees the rows of one device or micro-batch; it must get everything
        else that it needs by its arguments. Values that are neither rows nor differentiated belong
        in `model_state`.

    A custom step that plays two players against each other, each with an optimizer:

    >>> players = {"up": optax.sgd(-0.5), "down": optax.sgd(0.5)}
    >>> def loss_of(player):  # of (x - y) * rows; the other one is no parameter here
    ...     def loss_fn(params, others, batch, rng):
    ...         both = {**others, player: params}
    ...         losses = (both["up"] - both["down"]) ** 2 * batch["x"]
    ...         return Mean.of(losses), Aux(others, {})
    ...     return loss_fn
    >>> def step(state, batch):
    ...     rng = jax.random.fold_in(state.rng, state.step)
    ...     params, opt_state, metrics = dict(state.params), dict(state.opt_state), {}
    ...     for player, tx in players.items():
    ...         others = {name: params[name] for name in params if name != player}
    ...         gradient = mean_gradient(loss_of(player))
    ...         grads, metrics[player], _ = gradient(params[player], others, batch, rng)
    ...         updates, opt_state[player] = tx.update(grads, opt_state[player], params[player])
    ...         params[player] = optax.apply_updates(params[player], updates)
    ...     return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics
    >>> params = {"up": jnp.array(1.0), "down": jnp.array(0.0)}
    >>> opt_state = {name: tx.init(params[name]) for name, tx in players.items()}
    >>> state = TrainState(jnp.array(0), params, {}, opt_state, jax.random.key(0))
    >>> new, metrics = step(state, {"x": jnp.ones(4)})
    >>> float(new.params["up"]), float(new.params["down"])
    (2.0, 2.0)
    """
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}; it must be at least 1")

    def of_rows(
        params: Any,
        shared: tuple[Any, jax.Array],
        batch: Batch,
        *,
        value_and_grad: Callable[..., Any],
    ) -> tuple[Any, Any, Any]:
        """((gradient, (loss, metrics)) of the rows at hand, model state, carry)."""
        model_state, rng = shared
        one = functools.partial(_gradient, loss_fn, value_and_grad, params, rng)
        if accumulate == 1:
            return one(model_state, batch, current_part())
        return _accumulated(one, accumulate, model_state, batch, current_part())

    mapped = map_rows(of_rows)

    def gradient(
        params: Any, model_state: Any, batch: Batch, rng: jax.Array
    ) -> tuple[Any, Mean, Aux]:
        (grads, (loss, metrics)), model_state, carry = mapped(params, (model_state, rng), batch)
        grads = jax.tree.map(lambda g: g / loss.weight, grads)
        return grads, loss, Aux(model_state, metrics, carry)

    return gradient


def _gradient(
    loss_fn: LossFn,
    value_and_grad: Callable[..., Any],
    params: Any,
    rng: jax.Array,
    model_state: Any,
    batch: Batch,
    part: Part,
) -> tuple[Any, Any, Any]:
    precision = current_precision()

    def total(
        params: Any, model_state: Any, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Aux]]:
        here = dataclasses.replace(part, weight=batch.get("weight"))
        with part_of_batch(here):
            loss, aux = loss_fn(precision.cast(params), model_state, _finite_padding(batch), rng)
        loss, metrics = precision.widen((loss, aux.metrics))
        model_state = as_before(aux.model_state, model_state)
        carry = as_before(aux.carry, batch.get("carry"))
        return loss.total, (loss.weight, Aux(model_state, metrics, carry))

    (value, (weight, aux)), grads = value_and_grad(total)(params, model_state, batch, rng)
    return (grads, (Mean(value, weight), aux.metrics)), aux.model_state, aux.carry


def _finite_padding(batch: Batch) -> Batch:
    """Returns the batch with 0 for each number that is not finite in rows of weight 0.

    The loss leaves these rows out, but its gradient would not: their part of it is 0 times what
    the layers computed of them, which is NaN where that is not finite. The carry stays: it is no
    input, and is finite if the inputs are.
    """
    weight = batch.get("weight")
    if weight is None or jnp.ndim(weight) == 0:
        return batch
    padding = jnp.all(weight.reshape(len(weight), -1) == 0, axis=1)

    def finite(leaf: jax.Array) -> jax.Array:
        if jnp.shape(leaf)[:1] != padding.shape or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        rows = padding.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(rows & ~jnp.isfinite(leaf), jnp.zeros_like(leaf), leaf)

    return {k: v if k == "carry" else jax.tree.map(finite, v) for k, v in batch.items()}


def _accumulated(
    gradient: Callable[..., tuple[Any, Any, Any]],
    count: int,
    model_state: Any,
    batch: Batch,
    part: Part,
) -> tuple[Any, Any, Any]:
    """Returns the sum of the gradients of `count` micro-batches, one after the other."""

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
