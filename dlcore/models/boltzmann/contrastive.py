"""Contrastive divergence: the gradient of log p, with the model's part estimated by short chains.

The gradient of -log p(v) is the gradient of F(v) minus its mean over the model (Hinton 2002, eq.
5). Chains replace the model: chains that start at the data (CD-k), or chains that continue from
step to step (persistent CD, Tieleman 2008), also at several temperatures (parallel tempering,
Desjardins et al. 2010). With the chains held fixed it is the gradient of a mean over rows, so that
the ordinary step for gradients of losses can use it.

Shapes: B rows, V visible units, H hidden units, M chains of a row, T temperatures.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlcore import parallel
from dlcore.models.boltzmann.rbm import (
    RBM,
    Machine,
    Path,
    draw_hidden,
    draw_visible,
    gibbs,
    row_keys,
)
from dlcore.types import Mean, Metrics, Params

# How much of the running means of units stays at each step (Hinton 2010, section 11).
_DECAY = 0.95
# What may ask that hidden units are rarely on, see `Contrast`.
SPARSITIES = ("cross_entropy", "squared")


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The options of the chains of a step, and of terms that are added to the gradient.

    Attributes:
        steps: k, the steps of block Gibbs sampling of each chain.
        mean_field: whether visible units of chains that start at the data are set to their means
            instead of being drawn.
        chains: M, the persistent chains of each row; 0 for chains that start at the data.
        temperatures: T, the temperatures of persistent chains, evenly from independent units to the
            machine; 1 for the machine alone.
        centre: whether the gradient is for units minus their running means (Montavon & Müller
            2012), see `centred`.
        sparsity: the penalty that keeps hidden units rarely on: "cross_entropy" with the target
            changes biases and weights (Hinton 2010, section 11), "squared" distance from it changes
            biases alone (Lee et al. 2008), and None penalises nothing. Both use running means.
        target: the share of the data for which a hidden unit should be on.
        cost: the weight of the sparsity.
    """

    steps: int = 1
    mean_field: bool = False
    chains: int = 0
    temperatures: int = 1
    centre: bool = False
    sparsity: str | None = None
    target: float = 0.1
    cost: float = 0.0


class Found(NamedTuple):
    """The results of a contrastive loss.

    Attributes:
        loss: the loss; its value is the error of the data reconstructed from hidden units, in nats,
            and its gradient the one of contrastive divergence.
        means: the new running means of the units.
        chains: the new persistent chains.
        ends: the last states of the machine's chains, [B, M, V]; M is 1 for chains from the data.
        metrics: "free_energy" of the data.
    """

    loss: Mean
    means: Mapping[str, jax.Array]
    chains: jax.Array | None
    ends: jax.Array
    metrics: Metrics


def first_means(rbm: RBM, contrast: Contrast) -> dict[str, jax.Array]:
    """Returns the running means of the units before the first step, if an option needs them."""
    if not (contrast.centre or contrast.sparsity):
        return {}
    visible = rbm.units.mean(jnp.zeros(rbm.visible), _ones(rbm))
    return {"visible": visible, "hidden": jnp.full(rbm.hidden, 0.5)}


def first_chains(rbm: RBM, contrast: Contrast, rows: int, key: jax.Array) -> jax.Array | None:
    """Returns persistent chains [B, M, T, V] of units drawn without a field, or None."""
    if not contrast.chains:
        return None
    shape = rows, contrast.chains, contrast.temperatures, rbm.visible
    return rbm.units.draw(jnp.zeros(shape), _ones(rbm), rbm.units.noise(key, shape))


def _ones(rbm: RBM) -> jax.Array | None:
    return jnp.ones(rbm.visible) if rbm.units.has_precision else None


def contrastive_loss(
    rbm: RBM,
    contrast: Contrast,
    params: Params,
    means: Mapping[str, jax.Array],
    v: jax.Array,
    weight: jax.Array,
    rng: jax.Array,
    chains: jax.Array | None = None,
) -> Found:
    """Returns a loss whose gradient is the one of contrastive divergence.

    Args:
        rbm: the machine.
        contrast: the options of the chains.
        params: the parameters of `rbm`.
        means: the running means from `first_means`, or from the step before.
        v: the data, [B, V].
        weight: the weights of the rows, [B].
        rng: the key.
        chains: the chains from `first_chains`, or from the step before.
    """
    machine = rbm.machine(params)
    if contrast.centre:
        machine = centred(machine, means["visible"], means["hidden"])
    v = jax.lax.stop_gradient(v)
    fixed = jax.lax.stop_gradient(machine)
    first, going = jax.random.split(rng)
    field = machine.hidden_field(v)
    # The step of a chain that starts at the data; where others go on, it measures the error alone.
    h = draw_hidden(jax.lax.stop_gradient(field), row_keys(first, len(v)))
    below = fixed.visible_field(h)
    error = fixed.units.deviance(v, below, fixed.precision)
    if chains is None:
        if contrast.mean_field:
            ends = fixed.units.mean(below, fixed.precision)
        else:
            ends = draw_visible(fixed, below, row_keys(jax.random.fold_in(first, 1), len(v)))
        if contrast.steps > 1:
            steps, mean_field = contrast.steps - 1, contrast.mean_field
            ends, _ = gibbs(fixed, ends, going, steps=steps, mean_field=mean_field)
        ends = ends[:, None]
    else:
        chains = tempered(fixed, chains, going, steps=contrast.steps)
        ends = chains[:, :, -1]
    ends = jax.lax.stop_gradient(ends)
    energy = machine.visible_energy(v) - jax.nn.softplus(field).sum(-1)
    difference = energy - machine.free_energy(ends).mean(1)
    if contrast.centre or contrast.sparsity:
        means = moved(means, v, jax.lax.stop_gradient(jax.nn.sigmoid(field)), weight)
    if contrast.sparsity:
        difference += contrast.cost * _sparsity(contrast, machine, v, means["hidden"])
    # The value of the one and the gradient of the other.
    loss = jax.lax.stop_gradient(error) + difference - jax.lax.stop_gradient(difference)
    metrics = {"free_energy": Mean.of(jax.lax.stop_gradient(energy), weight)}
    return Found(Mean.of(loss, weight), means, chains, ends, metrics)


def moved(
    means: Mapping[str, jax.Array], v: jax.Array, hidden: jax.Array, weight: jax.Array
) -> dict[str, jax.Array]:
    """Returns the running means after taking in the rows of all devices.

    Args:
        means: the running means "visible" [V] and "hidden" [H].
        v: the data, [B, V].
        hidden: the means of hidden units given v, [B, H].
        weight: the weights of the rows, [B].
    """
    rows = {"visible": v, "hidden": hidden}
    sums = {name: weight.astype(x.dtype) @ x for name, x in rows.items()}
    count, sums = parallel.sum_over_devices((weight.sum(), sums))
    return {
        name: _DECAY * mean + (1 - _DECAY) * (sums[name] / count).astype(mean.dtype)
        for name, mean in means.items()
    }


def _sparsity(contrast: Contrast, machine: Machine, v: jax.Array, activity: jax.Array) -> jax.Array:
    """Returns values [B] with the gradient of the sparsity's cost of the running activity [H]."""
    excess = activity - contrast.target
    if contrast.sparsity == "cross_entropy":
        # The derivative of the cross-entropy by a logistic unit's field.
        return machine.hidden_field(v) @ excess
    bias = machine.hidden_bias - jax.lax.stop_gradient(machine.hidden_bias)
    field = jax.lax.stop_gradient(machine.hidden_field(v))
    return jax.nn.sigmoid(field + jnp.broadcast_to(bias.astype(field.dtype), field.shape)) @ (
        2 * excess
    )


@jax.custom_vjp
def centred(machine: Machine, visible: jax.Array, hidden: jax.Array) -> Machine:
    """Returns the machine itself, but with its gradient replaced by the centred one.

    A machine of units minus their offsets, with (v - m) W (h - l) in the energy, is the same
    machine with other biases. A step along its gradient is, in the parameters of the plain machine,
    a step along W' = W - m c^T - b l^T, b' = b - W' l and c' = c - W'^T m, where W, b, c are the
    plain gradient (Montavon & Müller 2012; Melchior et al. 2016, section 4).

    Args:
        machine: the machine.
        visible: m, [V].
        hidden: l, [H].
    """
    return machine


def _centred_forward(
    machine: Machine, visible: jax.Array, hidden: jax.Array
) -> tuple[Machine, Any]:
    return machine, (visible, hidden)


def _centred_backward(offsets: Any, gradient: Machine) -> tuple[Machine, jax.Array, jax.Array]:
    visible, hidden = offsets
    m, offset = (x.astype(gradient.kernel.dtype) for x in offsets)
    of_biases = jnp.outer(m, gradient.hidden_bias) + jnp.outer(gradient.visible_bias, offset)
    kernel = gradient.kernel - of_biases
    new = gradient.replace(
        kernel=kernel,
        visible_bias=gradient.visible_bias - kernel @ offset,
        hidden_bias=gradient.hidden_bias - m @ kernel,
    )
    return new, jnp.zeros_like(visible), jnp.zeros_like(hidden)


centred.defvjp(_centred_forward, _centred_backward)


def tempered(machine: Machine, chains: jax.Array, rng: jax.Array, *, steps: int) -> jax.Array:
    """Returns chains after Gibbs steps at their temperatures and exchanges between these.

    A chain at b, from 0 of the first temperature to 1 of the last, has b times the biases and
    weights of hidden units. Neighbours x, y at b < b' exchange states with the probability
    min(1, exp((b' - b) (g(x) - g(y)))), where g(v, h) = h.(c + v W), even pairs first (Desjardins
    et al. 2010, eq. 8).

    Args:
        machine: the machine.
        chains: the chains, [B, M, T, V].
        rng: the key.
        steps: the number of steps of block Gibbs sampling.
    """
    count = chains.shape[2]
    going, exchange = jax.random.split(rng)
    if count == 1:
        return gibbs(machine, chains, going, steps=steps)[0]
    beta = jnp.linspace(0, 1, count)
    path = Path(machine.visible_bias.astype(jnp.float32), beta[:, None])
    v, h = gibbs(machine, chains, going, steps=steps, path=path)
    score = (machine.hidden_field(v) * h).sum(-1)  # [B, M, T]
    keys = row_keys(exchange, len(v))
    uniform = jax.vmap(lambda key: jax.random.uniform(key, score.shape[1:]))(keys)
    for start in (0, 1):
        lower = jnp.arange(start, count - 1, 2)
        gain = (score[..., lower] - score[..., lower + 1]) / (count - 1)
        accepted = uniform[..., lower] < jnp.exp(jnp.minimum(gain, 0))
        order = jnp.broadcast_to(jnp.arange(count), score.shape)
        order = order.at[..., lower].add(accepted.astype(order.dtype))
        order = order.at[..., lower + 1].add(-accepted.astype(order.dtype))
        score = jnp.take_along_axis(score, order, axis=-1)
        v = jnp.take_along_axis(v, order[..., None], axis=-2)
    return v
