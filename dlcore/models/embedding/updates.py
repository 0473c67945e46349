"""The updates of word2vec: AdaGrad on only the rows that a micro-batch names.

Shapes: R rows of a table, D features, n rows of a micro-batch, P words of it, W words of a margin.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dlcore import parallel
from dlcore.errors import InputError
from dlcore.models.embedding import kernel
from dlcore.models.embedding.word2vec import Word2Vec, row_sums
from dlcore.types import Batch, Mean, Metrics, PyTree, Step, TrainState

START = 0.1  # where AdaGrad's sums start; from 0 the tiny first gradients would be magnified


def row_adagrad(
    table: jax.Array,
    sums: jax.Array,
    rows: jax.Array,
    gradients: jax.Array,
    rate: jax.Array,
    healthy: jax.Array | bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Updates some rows of a table by AdaGrad (Duchi et al. 2011), one accumulator for each row.

    Only these rows are read and written. A row that occurs more than once gets the sum of its
    gradients, each divided by the root of the accumulator with all of their squares.

    Args:
        table: [R, D].
        sums: [R, 1], the sums of the mean squares of the gradients so far.
        rows: int [n], the rows to update.
        gradients: [n, D].
        rate: the learning rate.
        healthy: if it is false, nothing changes, whatever the gradients are.

    Returns:
        The new table and sums.
    """
    sums = sums.at[rows].add(jnp.where(healthy, mean_squares(gradients), 0))
    scale = rate * jax.lax.rsqrt(sums[rows] + 1e-10)
    return table.at[rows].add(jnp.where(healthy, -scale * gradients, 0)), sums


def mean_squares(gradients: jax.Array) -> jax.Array:
    """Returns the mean squares [n, 1] of rows [n, D]."""
    return row_sums(jnp.square(gradients))[..., None] / gradients.shape[-1]


def word2vec_step(
    model: Word2Vec,
    *,
    learning_rate: Callable[[jax.Array], jax.Array],
    micro_batch: int,
    fixed: Collection[str] = (),
) -> Step:
    """Makes the training step, which updates after each micro-batch of P words in turn.

    Devices that hold parts of a batch divide each micro-batch among them, and each makes the whole
    update: it gets the gradients of the rows that the others have read.

    Args:
        model: the model; the state's parameters are its tables, and `initial_sums` makes
            `opt_state`.
        learning_rate: the learning rate of `row_adagrad` by the number of steps taken; about 0.4.
        micro_batch: P, which the model's `groups` divide into multiples of T.
        fixed: the names of tables that stay as they are.

    Returns:
        A step (state, batch) -> (state, metrics) for batches of n P words between margins of W. A
        batch may have up to P - 1 more words, which are not read and only make it divide among
        devices. The step guards itself: a micro-batch with a loss or gradient that is not finite
        changes nothing, and "skipped" is the share of such micro-batches.
    """
    unit = model.groups(micro_batch) * model.block
    if micro_batch < 1 or micro_batch % unit:
        raise InputError(f"micro-batches of {micro_batch} words are not a multiple of {unit} words")
    margin, exact = 2 * model.window, model.objective.exact

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = parallel.gather_over_devices(dict(batch))
        device, devices = parallel.device_share()
        words = _share(model, micro_batch, devices)
        count = (len(batch["words"]) - margin) // micro_batch
        groups = 1 if exact else count * model.groups(micro_batch)
        every = model.objective.others(jax.random.fold_in(state.rng, state.step), groups)
        noise = None if exact else every.reshape(count, -1)
        rate = learning_rate(state.step)

        def update(carry: Any, xs: tuple[jax.Array, jax.Array | None]) -> tuple[Any, Any]:
            (tables, sums), (start, noise) = carry, xs
            others = every if noise is None else noise
            own_others = others if exact else others.reshape(devices, -1)[device]
            own = _words(batch, start + device * words, words + margin)
            vectors = {name: tables[name][ids] for name, ids in model.rows(own).items()}
            vectors["others"] = tables["output"][own_others]

            def total(vectors: Any) -> tuple[jax.Array, jax.Array]:
                mean = model.loss(vectors, own, own_others)
                return mean.total, mean.weight

            sums_of_own, slopes = jax.value_and_grad(total, has_aux=True)(vectors)
            value, weight = parallel.sum_over_devices(sums_of_own)
            rows = model.rows(_words(batch, start, micro_batch + margin))
            if devices > 1:
                # What all queries are scored against is the same on all devices.
                shared = parallel.sum_over_devices(slopes.pop("others")) if exact else None
                slopes = model.joined(parallel.gather_over_devices(slopes), devices, words)
                if shared is not None:
                    slopes["others"] = shared
            rows["output"] = jnp.concatenate([rows["output"], others])
            slopes["output"] = jnp.concatenate([slopes["output"], slopes["others"]])
            updates = {name: (rows[name], slopes[name]) for name in rows}
            healthy = all_finite([value, *(mean_squares(slope) for _, slope in updates.values())])
            value, weight = (jnp.where(healthy, x, 0) for x in (value, weight))
            new = {
                name: row_adagrad(tables[name], sums[name], *rows_and_slopes, rate, healthy)
                for name, rows_and_slopes in updates.items()
                if name not in fixed
            }
            tables, sums = (
                {**old, **{name: pair[i] for name, pair in new.items()}}
                for i, old in enumerate((tables, sums))
            )
            return (tables, sums), (Mean(value, weight), ~healthy)

        if not fixed and kernel.suits(model, state.params):
            tables, sums, losses, bad = kernel.step(
                model, state.params, state.opt_state, batch, every, rate, micro_batch=micro_batch
            )
        else:
            starts = jnp.arange(count) * micro_batch
            (tables, sums), (losses, bad) = jax.lax.scan(
                update, (state.params, state.opt_state), (starts, noise)
            )
        loss = Mean(losses.total.sum(), losses.weight.sum())
        state = state.replace(step=state.step + 1, params=tables, opt_state=sums)
        return state, {"loss": loss, "skipped": Mean.of(bad.astype(float))}

    return step


def _words(batch: Batch, start: jax.Array | int, count: int) -> Batch:
    """Returns some words of a batch."""
    return {name: jax.lax.dynamic_slice_in_dim(leaf, start, count) for name, leaf in batch.items()}


def _share(model: Word2Vec, micro_batch: int, devices: int) -> int:
    """Returns the number of words of a micro-batch that each device learns from.

    Raises:
        InputError: when the groups of words that share noise do not divide among the devices.
    """
    size = model.block if model.objective.exact else micro_batch // model.groups(micro_batch)
    if micro_batch % (size * devices):
        raise InputError(
            f"micro-batches of {micro_batch} words do not divide among {devices} devices by groups "
            f"of {size}, which belong together; make them a multiple of {size * devices} words, or "
            "choose --mesh=model=N"
        )
    return micro_batch // devices


def all_finite(tree: PyTree) -> jax.Array:
    """Returns whether the sum of each leaf is finite, and so every number of the tree."""
    return jnp.isfinite(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(tree)])).all()


def initial_sums(tables: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Makes the accumulators of `row_adagrad` before the first step."""
    return {name: jnp.full((len(table), 1), START) for name, table in tables.items()}
