"""GloVe: word vectors whose products are the logarithms of co-occurrence counts.

    J = 1/2 sum_ij f(X_ij) (w_i . c_j + b_i + d_j - log X_ij)^2,   f(x) = min(1, x / x_max)^alpha

over the cells with X_ij > 0 (Pennington et al. 2014, equations 8 and 9; the factor 1/2 is not in
the paper but in its authors' program). The step does a whole square of X at once: the summed
gradient of its cells gives one update of AdaGrad (Duchi et al. 2011, with an accumulator for each
number) to each of the square's rows and columns. Compared with the authors' program, which updates
after every cell:

- the accumulators hold squares of summed gradients, including the present one, and start near 0,
  since the sums differ in size far more than the gradients of single cells;
- the biases start at the values that alone fit log X best, at about the cost that the program
  reaches in its first pass.

Shapes: V words, D dimensions of a vector, n cells, K squares of a batch, T words of a dense tile's
side, S of a square of the rest, C cells of a part of the rest.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax import lax

from dlcore import parallel
from dlcore.errors import pick
from dlcore.models.embedding.glove_tiles import REST_SIDE
from dlcore.models.embedding.updates import all_finite
from dlcore.types import Batch, Mean, Metrics, Step, TrainState

_CELLS = 1 << 20  # cells of the matrix that are read at once
_START = 1e-3  # where the accumulators start


class Tables(NamedTuple):
    """A number for each parameter: the parameters themselves, or their accumulators.

    Attributes:
        word: w, float32 [V, D].
        context: c, float32 [V, D].
        word_bias: b, float32 [V].
        context_bias: d, float32 [V].
    """

    word: jax.Array
    context: jax.Array
    word_bias: jax.Array
    context_bias: jax.Array


def glove_tables(
    key: jax.Array, *, vocabulary_size: int, dimension: int, biases: np.ndarray | None = None
) -> Tables:
    """Draws the parameters before the first step.

    Args:
        key: the key that draws the vectors, uniform in +-1 / (2 D).
        vocabulary_size: V.
        dimension: D.
        biases: b and d, float32 [2, V], from `fitted_biases`; None for 0.
    """
    half = 0.5 / dimension
    shape = 2, vocabulary_size, dimension
    word, context = jax.random.uniform(key, shape, minval=-half, maxval=half)
    word_bias, context_bias = jnp.zeros((2, vocabulary_size)) if biases is None else biases
    return Tables(word, context, jnp.array(word_bias), jnp.array(context_bias))


def initial_squares(tables: Tables) -> Tables:
    """Makes AdaGrad's accumulators before the first step."""
    return jax.tree.map(lambda table: jnp.full_like(table, _START), tables)


def glove_step(
    *, rate: float | Callable[[jax.Array], Any] = 0.1, x_max: float = 100.0, alpha: float = 0.75
) -> Step:
    """Makes the step over batches of `GloveTiles`; jit it with the state donated.

    The state's parameters are `Tables`, and `initial_squares` makes its `opt_state`. Devices that
    hold parts of a batch divide the cells of each square among them, and each makes the whole
    update by the sum of their gradients.

    Args:
        rate: AdaGrad's learning rate, or a function from the steps taken to it.
        x_max: the count from which on f is 1.
        alpha: the exponent of f; with 0 all cells have the same weight.

    Returns:
        A step whose metric "loss" is the mean of 1/2 f error^2 over the batch's cells, each before
        its update. It guards itself: a square whose cost or gradient is not finite changes
        nothing, and "skipped" is the share of them.
    """

    def square(
        carry: tuple[Tables, Tables], square: Batch, *, now: Any
    ) -> tuple[tuple[Tables, Tables], tuple[Mean, jax.Array]]:
        params, squares = carry
        gradient, cost, at, side = _gradient(params, square, x_max, alpha)
        healthy = all_finite((gradient, cost))
        gradient, cost = jax.tree.map(lambda leaf: jnp.where(healthy, leaf, 0), (gradient, cost))
        updates = []
        for table, summed, change, first in zip(params, squares, gradient, at, strict=True):
            # The sums are read back from the new table, for XLA would copy the old one each time.
            total = _put(summed, _cut(summed, first, side) + change**2, first)
            new = _cut(table, first, side) - now * change * lax.rsqrt(_cut(total, first, side))
            updates.append((_put(table, new, first), total))
        tables, sums = zip(*updates, strict=True)
        return (Tables(*tables), Tables(*sums)), (cost, ~healthy)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        carry = state.params, state.opt_state
        now = rate(state.step) if callable(rate) else rate
        body = functools.partial(square, now=now)
        (params, squares), (costs, bad) = lax.scan(
            body, carry, parallel.gather_over_devices(dict(batch))
        )
        cost = Mean(costs.total.sum(), costs.weight.sum())
        state = state.replace(step=state.step + 1, params=params, opt_state=squares)
        return state, {"loss": cost, "skipped": Mean.of(bad.astype(float))}

    return step


def glove_cost(
    params: Tables,
    rows: jax.Array,
    columns: jax.Array,
    values: jax.Array,
    *,
    x_max: float = 100.0,
    alpha: float = 0.75,
) -> Mean:
    """Returns the mean of 1/2 f error^2 over cells.

    Args:
        params: the parameters.
        rows: i, int32 [n].
        columns: j, int32 [n].
        values: X_ij, float32 [n]; entries of 0 do not count.
        x_max: the count from which on f is 1.
        alpha: the exponent of f.
    """
    log, weight = _target(values, x_max, alpha)
    products = (params.word[rows] * params.context[columns]).sum(-1)
    error = products + params.word_bias[rows] + params.context_bias[columns] - log
    return Mean(0.5 * (weight * error**2).sum(), (values > 0).sum().astype(jnp.float32))


def fitted_biases(
    rows: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    *,
    vocabulary_size: int,
    x_max: float = 100.0,
    alpha: float = 0.75,
    sweeps: int = 3,
) -> np.ndarray:
    """Finds the biases that alone fit log X best: J's minimum at w = c = 0, by alternating means.

    Args:
        rows: i, int32 [n]; these arrays may be memory maps.
        columns: j, int32 [n].
        values: X_ij > 0, float32 [n].
        vocabulary_size: V.
        x_max: the count from which on f is 1.
        alpha: the exponent of f.
        sweeps: the number of times that b and then d are set.

    Returns:
        b and d, float32 [2, V]; 0 for words without cells.
    """
    bias = np.zeros((2, vocabulary_size))
    progress = tqdm.tqdm(total=2 * sweeps, desc="fitting biases", delay=2, leave=False)
    with progress:
        for own in (0, 1) * sweeps:
            total, weights = np.zeros((2, vocabulary_size))
            for start in range(0, len(rows), _CELLS):
                cells = slice(start, start + _CELLS)
                places = rows[cells], columns[cells]
                weight = np.minimum(1, values[cells] / np.float32(x_max)) ** np.float32(alpha)
                left = np.log(values[cells]) - bias[1 - own][places[1 - own]]
                total += np.bincount(places[own], weight * left, vocabulary_size)
                weights += np.bincount(places[own], weight, vocabulary_size)
            bias[own] = np.divide(total, weights, out=total, where=weights > 0)
            progress.update()
    return bias.astype(np.float32)


def glove_vectors(params: Tables, *, combination: str = "sum") -> np.ndarray:
    """Combines the word and context vectors of each word.

    Args:
        params: the parameters.
        combination: "sum", w + c, as in the paper; "average", half of that, which has the same
            cosines; "word", w alone; "concatenate", both.

    Returns:
        float32 [V, D], or [V, 2 D] for "concatenate".

    Raises:
        InputError: for any other combination.
    """
    return pick("combination of word and context vectors", combination, _COMBINATIONS)(
        np.asarray(params.word), np.asarray(params.context)
    )


_COMBINATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sum": lambda word, context: word + context,
    "average": lambda word, context: (word + context) / 2,
    "word": lambda word, context: word,
    "concatenate": lambda word, context: np.concatenate([word, context], axis=1),
}


def _target(values: jax.Array, x_max: float, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Returns log X and f(X); both are 0 where there is no cell."""
    log = jnp.log(jnp.where(values > 0, values, 1))
    weight = jnp.exp(alpha * jnp.minimum(log - np.log(x_max), 0))
    return log, jnp.where(values > 0, weight, 0)


def _gradient(
    params: Tables, square: Batch, x_max: float, alpha: float
) -> tuple[Tables, Mean, Tables, int]:
    """Returns the gradient of J over a square's cells, their cost, and the square's place and side.

    Each device computes its share of the cells; in a dense tile these are the cells of some rows.
    """
    dense = square["values"].ndim == 2
    side = len(square["values"]) if dense else min(REST_SIDE, len(params.word))
    values = _own(square["values"])
    i, j = square["first_row"], square["first_column"]
    at = Tables(i, j, i, j)
    word, context, word_bias, context_bias = (
        _cut(table, first, side) for table, first in zip(params, at, strict=True)
    )
    log, weight = _target(values, x_max, alpha)
    if dense:
        own, own_bias = _own(word), _own(word_bias)
        error = own @ context.T + own_bias[:, None] + context_bias[None] - log  # [own rows, T]
        slope = weight * error
        of_words, of_biases = parallel.gather_over_devices((slope @ context, slope.sum(1)))
        others = parallel.sum_over_devices((slope.T @ own, slope.sum(0)))
        gradient = Tables(of_words[:side], others[0], of_biases[:side], others[1])
    else:
        rows, columns = _own(square["rows"]), _own(square["columns"])
        words, contexts = word[rows], context[columns]  # [C, D]
        error = (words * contexts).sum(1) + word_bias[rows] + context_bias[columns] - log
        slope = weight * error
        gradient = parallel.sum_over_devices(
            Tables(
                jnp.zeros_like(word).at[rows].add(slope[:, None] * contexts),
                jnp.zeros_like(context).at[columns].add(slope[:, None] * words),
                jnp.zeros_like(word_bias).at[rows].add(slope),
                jnp.zeros_like(context_bias).at[columns].add(slope),
            )
        )
    cost = Mean(0.5 * (slope * error).sum(), (values > 0).sum().astype(jnp.float32))
    return gradient, parallel.sum_over_devices(cost), at, side


def _own(rows: jax.Array) -> jax.Array:
    """Returns this device's share of rows that all devices have, padded with zeros."""
    device, devices = parallel.device_share()
    if devices == 1:
        return rows
    each = -(-len(rows) // devices)
    padded = jnp.pad(rows, [(0, each * devices - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
    return lax.dynamic_slice_in_dim(padded, device * each, each)


def _cut(table: jax.Array, first: jax.Array, side: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(table, first, side)


def _put(table: jax.Array, rows: jax.Array, first: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(table, rows, first, 0)
