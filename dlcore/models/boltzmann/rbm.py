"""The restricted Boltzmann machine (Smolensky 1986; Hinton 2002).

Its energy is E(v, h) = - b.v - c.h - v W h + sum l v^2 / 2, and p(v, h) = exp(-E(v, h)) / Z with
binary hidden units h. Only Gaussian visible units have the precision l (Welling et al. 2005). Their
variance is learned as in Cho et al. 2011: with s = log variance, l = exp(-s), W = exp(-s) W',
b = exp(-s) b', so that the mean of v given h is b' + W' h.

Shapes: V visible units, H hidden units, B rows, `...` any leading axes.
"""

import dataclasses
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import parallel
from dlcore.models.boltzmann.units import Binary, Softmax, Units, self_energy
from dlcore.types import Params, at_least_float32

# The deviation of first weights, after Hinton 2010, section 8.
_DEVIATION = 0.01


class Machine(flax.struct.PyTreeNode):
    """An RBM in terms of its natural parameters, in which -E is linear.

    Attributes:
        kernel: W, [V, H].
        visible_bias: b, [V], or [B, V] where each row of the units [B, ...] has biases of its own.
        hidden_bias: c, [H], or [B, H].
        precision: l, [V], for Gaussian visible units; else None.
        units: the kind of the visible units.
    """

    kernel: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array
    precision: jax.Array | None = None
    units: Units = flax.struct.field(pytree_node=False, default=Binary())

    def hidden_field(self, v: jax.Array) -> jax.Array:
        """Returns c + v W [..., H], whose sigmoid is the mean of h, in float32 at least."""
        return affine(v, self.kernel, self.hidden_bias)

    def visible_field(self, h: jax.Array) -> jax.Array:
        """Returns b + h W^T [..., V], the field of the visible units."""
        return affine(h, self.kernel.T, self.visible_bias)

    def energy(self, v: jax.Array, h: jax.Array) -> jax.Array:
        """Returns E(v, h), [...]."""
        field = self.hidden_field(v)
        return self.visible_energy(v) - (field * h.astype(field.dtype)).sum(-1)

    def visible_energy(self, v: jax.Array) -> jax.Array:
        """Returns the energy without hidden units, [...]."""
        bias = _of_rows(self.visible_bias.astype(at_least_float32(v.dtype)), v.shape)
        return self_energy(v, self.precision) - (v.astype(bias.dtype) * bias).sum(-1)

    def free_energy(self, v: jax.Array) -> jax.Array:
        """Returns F(v) = - log sum over h of exp(-E(v, h)), [...]; p(v) = exp(-F(v)) / Z."""
        return self.visible_energy(v) - jax.nn.softplus(self.hidden_field(v)).sum(-1)

    def deviance(self, v: jax.Array, h: jax.Array) -> jax.Array:
        """Returns the error of reconstructing v from h, see `Units.deviance`; in nats [...]."""
        return self.units.deviance(v, self.visible_field(h), self.precision)


def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns x W + bias, with the product in the kernel's type and the sum in float32 at least."""
    product = x.astype(kernel.dtype) @ kernel
    kind = at_least_float32(product.dtype)
    return product.astype(kind) + _of_rows(bias.astype(kind), product.shape)


def _of_rows(bias: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns a bias [V], or one for each row [B, V], in the shape of units [B, ..., V]."""
    if bias.ndim > 1:
        bias = bias.reshape(bias.shape[0], *(1,) * (len(shape) - 2), bias.shape[-1])
    return jnp.broadcast_to(bias, shape)


@dataclasses.dataclass(frozen=True)
class RBM:
    """The size and kind of a machine, which makes and reads its parameters.

    The parameters are {"kernel": W [V, H], "bias": c [H], "visible_bias": b [V]}, and for Gaussian
    units with learned variance "log_variance" [V]. The first two have the names and shapes of a
    dense layer, which can take them over as they are.

    Attributes:
        units: the kind of the visible units.
        visible: V.
        hidden: H.
        learned_variance: whether the variance of Gaussian units is learned; otherwise it is 1.

    >>> rbm = RBM(Binary(), visible=3, hidden=2)
    >>> machine = rbm.machine(rbm.init(jax.random.key(0)))
    >>> machine.free_energy(jnp.ones((4, 3))).shape
    (4,)
    """

    units: Units
    visible: int
    hidden: int
    learned_variance: bool = False

    def init(self, key: jax.Array) -> Params:
        """Returns the initial parameters: small random weights, and biases of 0."""
        params = {
            "kernel": _DEVIATION * jax.random.normal(key, (self.visible, self.hidden)),
            "bias": jnp.zeros(self.hidden),
            "visible_bias": jnp.zeros(self.visible),
        }
        if self.learned_variance:
            params["log_variance"] = jnp.zeros(self.visible)
        return params

    def machine(self, params: Params) -> Machine:
        """Returns the machine of some parameters."""
        kernel, bias, visible_bias = (params[n] for n in ("kernel", "bias", "visible_bias"))
        if not self.units.has_precision:
            return Machine(kernel, visible_bias, bias, None, self.units)
        if not self.learned_variance:
            return Machine(kernel, visible_bias, bias, jnp.ones_like(visible_bias), self.units)
        precision = jnp.exp(-params["log_variance"])
        kernel = kernel * jnp.broadcast_to(precision[:, None], kernel.shape)
        return Machine(kernel, visible_bias * precision, bias, precision, self.units)

    def with_mean(self, params: Params, mean: np.ndarray) -> Params:
        """Returns parameters whose visible biases give the units the mean [V] of the data.

        This is the start of training in Hinton 2010, section 8.1.
        """
        unit = np.ones_like(mean) if self.units.has_precision else None
        field = self.units.field_of(mean, unit)
        return {**params, "visible_bias": jnp.asarray(field, params["visible_bias"].dtype)}


class Path(NamedTuple):
    """A point on the path from independent units to a machine.

    Attributes:
        base: the only field of the visible units at the start of the path, [V].
        beta: from 0, the start, to 1, the machine; in a shape that broadcasts with [..., 1].
    """

    base: jax.Array
    beta: jax.Array

    def hidden(self, field: jax.Array) -> jax.Array:
        """Returns the field of the hidden units at the point, [..., H]."""
        return jnp.broadcast_to(self.beta, field.shape) * field

    def visible(self, field: jax.Array) -> jax.Array:
        """Returns the field of the visible units at the point, [..., V]."""
        beta = jnp.broadcast_to(self.beta, field.shape)
        return (1 - beta) * jnp.broadcast_to(self.base, field.shape) + beta * field


def row_keys(rng: jax.Array, count: int) -> jax.Array:
    """Returns the key of each local row, which is the same in every layout."""
    return jax.vmap(lambda position: jax.random.fold_in(rng, position))(parallel.positions(count))


def draw_hidden(field: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns hidden units [B, ..., H] drawn given their field, by the keys [B]."""
    units = Binary()
    return units.draw(field, None, jax.vmap(lambda key: units.noise(key, field.shape[1:]))(keys))


def draw_visible(machine: Machine, field: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns visible units [B, ..., V] drawn given their field, by the keys [B]."""
    units = machine.units
    noise = jax.vmap(lambda key: units.noise(key, field.shape[1:]))(keys)
    return units.draw(field, machine.precision, noise)


def gibbs(
    machine: Machine,
    v: jax.Array,
    rng: jax.Array,
    *,
    steps: int,
    mean_field: bool = False,
    path: Path | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Makes steps of block Gibbs sampling: all hidden units given the visible ones, and back.

    Args:
        machine: the machine.
        v: the states of the chains, [B, ..., V].
        rng: the key; the noise of a row depends on its position in the batch.
        steps: the number of steps.
        mean_field: whether visible units are set to their means instead of being drawn (Hinton
            2010, section 3.2).
        path: the point of each chain between independent units and the machine; by default the
            machine.

    Returns:
        v [B, ..., V] after the steps, and h [B, ..., H] from which the last v was drawn.
    """
    # A product inside of a loop is slow on a matrix that must be read transposed.
    back = machine.kernel.T

    def step(number: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        above, below = jax.random.split(jax.random.fold_in(rng, number))
        field = machine.hidden_field(v)
        h = draw_hidden(field if path is None else path.hidden(field), row_keys(above, len(v)))
        field = affine(h, back, machine.visible_bias)
        field = field if path is None else path.visible(field)
        if mean_field:
            return machine.units.mean(field, machine.precision), h
        return draw_visible(machine, field, row_keys(below, len(v))), h

    v = v.astype(at_least_float32(v.dtype))
    v, h = step(jnp.int32(0), v)
    if steps > 1:
        v, h = jax.lax.fori_loop(1, steps, lambda number, state: step(number, state[0]), (v, h))
    return v, h


def pseudo_log_likelihood(machine: Machine, v: jax.Array) -> jax.Array:
    """Returns the sum over the units of log p(unit | all other units) (Besag 1975), [B].

    Args:
        machine: a machine of binary or softmax units.
        v: [B, V].

    Raises:
        TypeError: for Gaussian units, whose p(unit | others) has no closed form.
    """
    field, bias = machine.hidden_field(v), machine.visible_bias.astype(jnp.float32)
    v, kernel = v.astype(field.dtype), machine.kernel.astype(field.dtype)
    here = jax.nn.softplus(field).sum(-1)

    def above(shift: jax.Array) -> jax.Array:
        """The part of log p that hidden units have, above that of v, where they are shifted."""
        fields = jnp.broadcast_to(field[:, None], shift.shape) + shift
        return jax.nn.softplus(fields).sum(-1) - jnp.broadcast_to(here[:, None], shift.shape[:2])

    if isinstance(machine.units, Binary):

        def of_unit(unit: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            values, b, weights = unit
            flip = (1 - 2 * values)[:, None, None]
            shape = (len(values), 1, len(weights))
            shift = jnp.broadcast_to(flip, shape) * jnp.broadcast_to(weights, shape)
            return -jax.nn.softplus((1 - 2 * values) * b + above(shift)[:, 0])

        units = v.T, bias, kernel
    elif isinstance(machine.units, Softmax):
        levels = machine.units.levels

        def of_unit(unit: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            values, b, weights = unit  # [B, K], [K], [K, H]
            shape = (*values.shape, weights.shape[-1])
            now = jnp.broadcast_to((values @ weights)[:, None], shape)
            change = jnp.broadcast_to(b, values.shape) - (values @ b)[:, None] * jnp.ones(
                (1, levels), b.dtype
            )
            change += above(jnp.broadcast_to(weights, shape) - now)
            return -jax.nn.logsumexp(change, axis=-1)

        units = (
            v.reshape(len(v), -1, levels).swapaxes(0, 1),
            bias.reshape(-1, levels),
            kernel.reshape(-1, levels, kernel.shape[-1]),
        )
    else:
        raise TypeError(f"{type(machine.units).__name__} units have no pseudo-likelihood")
    return jax.lax.map(of_unit, units).sum(0)
