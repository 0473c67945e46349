"""The partition function of a restricted Boltzmann machine, exact and by annealing both ways.

Shapes: V visible units, H hidden units, M chains, K temperatures on the way, N examples.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.models.boltzmann.rbm import Machine, Path, affine
from dlcore.models.boltzmann.units import Binary, Units

# The most units that are enumerated, and how many of them at a time.
MOST_EXACT = 20
_TOGETHER = 12
# The most hidden units that are enumerated for each row, and the rows that are annealed together.
_FEW, _ROWS = 8, 256
# Of the error bars of Salakhutdinov & Murray 2008.
_DEVIATIONS = 3


class LogPartition(NamedTuple):
    """An estimate of log Z, in nats.

    Attributes:
        value: log of the mean of the chains' weights.
        low: log of that mean minus three of its standard deviations; -inf where this is below 0.
        high: log of that mean plus three of its standard deviations.
        effective: the number of equally weighted chains that would be as informative, from 1 to M.
    """

    value: float
    low: float
    high: float
    effective: float


def enumerated(units: Units, visible: int, hidden: int) -> int:
    """Returns how many units the exact log Z enumerates, the units of the smaller side.

    Visible units are enumerated only where they are binary.
    """
    return min(visible, hidden) if isinstance(units, Binary) else hidden


def require_enumerable(units: Units, visible: int, hidden: int) -> None:
    """Checks that a machine is small enough for an exact log Z.

    Raises:
        InputError: for more than 20 units on its smaller side.
    """
    count = enumerated(units, visible, hidden)
    if count > MOST_EXACT:
        raise InputError(
            f"an exact log Z of {visible} visible numbers and {hidden} hidden units enumerates "
            f"2^{count} states, and {MOST_EXACT} units are the most; annealed importance sampling "
            "(--log_likelihood=ais) with 100 chains through 1,000 distributions costs "
            f"{annealing_cost(visible, hidden):,.1f} GFLOP, about a second for each 50 on two cores"
        )


def log_partition(machine: Machine) -> float:
    """Returns log Z exactly, by the sum over all states of the smaller side.

    Raises:
        InputError: for more than 20 units on that side.
    """
    visible, hidden = machine.kernel.shape
    require_enumerable(machine.units, visible, hidden)
    count = enumerated(machine.units, visible, hidden)
    parts = np.asarray(_log_sums(machine, count, hidden > count), np.float64)
    top = parts.max()
    return float(top + np.log(np.exp(parts - top).sum()))


def annealing_cost(visible: int, hidden: int, chains: int = 100, steps: int = 1000) -> float:
    """Returns the cost of annealed importance sampling in GFLOP: two products per temperature."""
    return 4e-9 * chains * steps * visible * hidden


@functools.partial(jax.jit, static_argnums=(1, 2))
def _log_sums(machine: Machine, count: int, of_visible: bool) -> jax.Array:
    """Returns log of the sums over blocks of states of the enumerated side."""
    block = min(count, _TOGETHER)
    low = jnp.arange(1 << block)[:, None] >> jnp.arange(block)[None] & 1

    def of_block(number: jax.Array) -> jax.Array:
        high = (number >> jnp.arange(count - block))[None] & 1
        high = jnp.broadcast_to(high, (len(low), count - block))
        states = jnp.concatenate([low, high], axis=1).astype(machine.kernel.dtype)
        if of_visible:
            terms = -machine.free_energy(states)
        else:
            bias = machine.hidden_bias.astype(states.dtype)
            field = machine.visible_field(states)
            terms = states @ bias + machine.units.log_partition(field, machine.precision)
        return jax.nn.logsumexp(terms)

    return jax.lax.map(of_block, jnp.arange(1 << (count - block)))


def log_likelihood(machine: Machine, v: jax.Array, log_z: float) -> np.ndarray:
    """Returns log p(v) = -F(v) - log Z of examples [N, V], in nats float64 [N]."""
    energies: np.ndarray = np.asarray(_free_energies(machine, v), np.float64)
    return -energies - log_z


@jax.jit
def _free_energies(machine: Machine, v: jax.Array) -> jax.Array:
    return machine.free_energy(v)


def places(count: int) -> np.ndarray:
    """Returns the inverse temperatures of an annealing, from 0 to 1, denser towards the end.

    Salakhutdinov & Murray 2008, section 4.2, spend 1/29 of them on 0 to 0.5, 8/29 on 0.5 to 0.9 and
    20/29 on 0.9 to 1.

    Args:
        count: K, the number of steps between temperatures.
    """
    first, second = max(1, count // 29), max(1, 8 * count // 29)
    ends = (0.0, first), (0.5, second), (0.9, max(1, count - first - second)), (1.0, 0)
    parts = [
        np.linspace(start, stop, steps, endpoint=False)
        for (start, steps), (stop, _) in zip(ends[:-1], ends[1:], strict=True)
    ]
    return np.concatenate([*parts, [1.0]])


def ais(
    machine: Machine, base: jax.Array, key: jax.Array, *, chains: int = 100, steps: int = 1000
) -> LogPartition:
    """Returns log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

    The chains start as independent units. The mean of their weights is unbiased for Z, so that its
    logarithm is on average too small, and likelihoods are too large.

    Args:
        machine: the machine.
        base: the field of the visible units at the start of the chains, [V], such as
            `Units.field_of` of the data's means.
        key: the key of the chains.
        chains: M, two or more.
        steps: K.
    """
    increments, start = _forward(
        machine, base, key, jnp.asarray(places(steps), jnp.float32), chains
    )
    log_weights = np.asarray(increments, np.float64).sum(0) + float(start)
    top = log_weights.max()
    weights = np.exp(log_weights - top)
    mean, deviation = weights.mean(), weights.std(ddof=1) / math.sqrt(chains)
    low = mean - _DEVIATIONS * deviation
    return LogPartition(
        float(top + np.log(mean)),
        float(top + np.log(low)) if low > 0 else -math.inf,
        float(top + np.log(mean + _DEVIATIONS * deviation)),
        float(weights.sum() ** 2 / (weights**2).sum()),
    )


def row_log_partitions(
    machines: Machine, keys: jax.Array, *, chains: int = 10, steps: int = 100
) -> jax.Array:
    """Returns log Z of machines that share their weights, by annealing each, float32 [N].

    It is exact where the machines have few hidden units; else it is on average too small, as for
    `ais`. The chains start from independent units that have the field of a mean-field step.

    Args:
        machines: the machines, with biases [N, V] and [N, H].
        keys: the keys of the rows, [N].
        chains: M, the number of chains of each row.
        steps: K.
    """
    hidden = machines.kernel.shape[1]
    betas = jnp.asarray(places(steps), jnp.float32)

    def one(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        visible_bias, hidden_bias, key = row
        machine = machines.replace(visible_bias=visible_bias, hidden_bias=hidden_bias)
        if hidden <= _FEW:
            return jax.nn.logsumexp(_log_sums(machine, hidden, False))
        increments, start = _forward(machine, mean_field(machine), key, betas, chains)
        return start + jax.nn.logsumexp(increments.sum(0)) - math.log(chains)

    rows = machines.visible_bias, machines.hidden_bias, keys
    found: jax.Array = jax.lax.map(one, rows, batch_size=_ROWS)
    return found


def row_log_partitions_above(
    machines: Machine, v: jax.Array, keys: jax.Array, *, steps: int = 100
) -> jax.Array:
    """Returns a bound above log Z of each row on average, by `reverse_ais` of its v, [N].

    Args:
        machines: as for `row_log_partitions`; the result is exact for the same machines.
        v: an example of each row, [N, V].
        keys: the keys of the rows, [N].
        steps: K.
    """
    if machines.kernel.shape[1] <= _FEW:
        return row_log_partitions(machines, keys)
    betas = jnp.asarray(places(steps)[::-1].copy(), jnp.float32)

    def one(row: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        visible_bias, hidden_bias, v, key = row
        machine = machines.replace(visible_bias=visible_bias, hidden_bias=hidden_bias)
        increments, start = _backward(machine, mean_field(machine), v[None], key, betas)
        return start - increments.sum()

    rows = machines.visible_bias, machines.hidden_bias, v, keys
    found: jax.Array = jax.lax.map(one, rows, batch_size=_ROWS)
    return found


def mean_field(machine: Machine) -> jax.Array:
    """Returns the field of the visible units given the means of hidden units after a step, [V]."""
    means = machine.units.mean(machine.visible_bias, machine.precision)
    return machine.visible_field(jax.nn.sigmoid(machine.hidden_field(means)))


def reverse_ais(
    machine: Machine,
    base: jax.Array,
    v: jax.Array,
    key: jax.Array,
    *,
    steps: int = 1000,
) -> tuple[float, float]:
    """Returns an upper bound of log Z on average, by reverse annealing of examples (RAISE).

    The chains start at examples and are annealed to independent units. Their weights are unbiased
    for the probability that the forward annealing assigns to an example, so that log p is on
    average too small (Burda et al. 2015, section 3), and the resulting log Z, -F(v) - log p, too
    large.

    Args:
        machine: the machine.
        base: as for `ais`.
        v: two or more examples, such as those of a test, [N, V].
        key: the key of the chains.
        steps: K.

    Returns:
        The mean over the examples, and its standard deviation.
    """
    betas = jnp.asarray(places(steps)[::-1].copy(), jnp.float32)
    increments, start = _backward(machine, base, v, key, betas)
    above = float(start) - np.asarray(increments, np.float64).sum(0)
    return float(above.mean()), float(above.std(ddof=1) / math.sqrt(len(above)))


@functools.partial(jax.jit, static_argnums=4)
def _forward(
    machine: Machine, base: jax.Array, key: jax.Array, betas: jax.Array, chains: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the increments of the log weights [K, M], and log Z of independent units."""
    base, move, change, start = _annealing(machine, base)
    units = machine.units
    first, key = jax.random.split(key)
    shape = chains, len(base)
    v = units.draw(jnp.broadcast_to(base, shape), machine.precision, units.noise(first, shape))

    def step(state: tuple[jax.Array, jax.Array], x: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
        v, field = state
        before, beta, key = x
        increment = change(v, field, before, beta)
        v = move(field, beta, key)
        return (v, machine.hidden_field(v)), increment

    keys = jax.random.split(key, len(betas) - 1)
    xs = betas[:-1], betas[1:], keys
    return jax.lax.scan(step, (v, machine.hidden_field(v)), xs)[1], start


@jax.jit
def _backward(
    machine: Machine, base: jax.Array, v: jax.Array, key: jax.Array, betas: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the increments [K, N] of the annealing back from examples, and log Z of the start."""
    base, move, change, start = _annealing(machine, base)

    def step(field: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        beta, after, key = x
        v = move(field, beta, key)
        field = machine.hidden_field(v)
        return field, change(v, field, beta, after)

    keys = jax.random.split(key, len(betas) - 1)
    return jax.lax.scan(step, machine.hidden_field(v), (betas[:-1], betas[1:], keys))[1], start


def _annealing(
    machine: Machine, base: jax.Array
) -> tuple[jax.Array, Callable[..., jax.Array], Callable[..., jax.Array], jax.Array]:
    """Returns base, a step at b, the change of log f between two b, and log Z of the start.

    At b, log f(v) = (1 - b) base.v + b bias.v - sum l v^2 / 2 + sum softplus(b (c + v W)).
    """
    units, hidden = machine.units, Binary()
    base = base.astype(jnp.float32)
    bias = machine.visible_bias.astype(jnp.float32)
    back = machine.kernel.T  # a product in a loop is slow on what it must read transposed

    def move(field: jax.Array, beta: jax.Array, key: jax.Array) -> jax.Array:
        above, below = jax.random.split(key)
        path = Path(base, beta)
        h = hidden.draw(path.hidden(field), None, hidden.noise(above, field.shape))
        visible = path.visible(affine(h, back, bias))
        return units.draw(visible, machine.precision, units.noise(below, visible.shape))

    def change(v: jax.Array, field: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
        terms = jax.nn.softplus(after * field) - jax.nn.softplus(before * field)
        return (after - before) * (v @ (bias - base)) + terms.sum(-1)

    start = machine.kernel.shape[1] * math.log(2) + units.log_partition(base, machine.precision)
    return base, move, change, start
