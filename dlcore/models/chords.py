"""Distributions of a chord: which of V pitches sound together, given a network's output.

A distribution, called a law here, is a tree of arrays that computes the probability of a chord and
draws chords. A Linen layer makes it from the network's output:

- `Independent`: each pitch sounds with a probability of its own.
- `NADE`: the pitches are drawn one after the other, from the highest down, each given those above
  it (Larochelle & Murray 2011), with biases from the network (Boulanger-Lewandowski et al. 2012,
  section 4.3: the RNN-NADE).
- `Machines`: a restricted Boltzmann machine with biases from the network (the same paper, section
  4.1: the RNN-RBM), trained by contrastive divergence.

Shapes: B rows, T time, D features, V pitches, H hidden units; `...` any leading axes.
"""

import abc
from typing import Protocol

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dlcore.models.boltzmann import (
    RBM,
    Binary,
    Contrast,
    Machine,
    contrastive_loss,
    row_log_partitions,
    row_log_partitions_above,
)
from dlcore.nn import Dense
from dlcore.types import Mean, at_least_float32

# In `given`: the pitch is drawn; 0 and 1 say that it is silent and that it sounds.
DRAWN = -1


class Law(flax.struct.PyTreeNode, abc.ABC):
    """A law of chords for each of some positions [...]."""

    @abc.abstractmethod
    def log_prob(self, v: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns log p of chords in nats, float32 [...].

        Args:
            v: bits, [..., V].
            keys: keys [...], used where the probability is estimated.
        """

    @abc.abstractmethod
    def draw(self, keys: jax.Array, given: jax.Array, temperature: float = 1.0) -> jax.Array:
        """Draws chords, float32 [..., V].

        Args:
            keys: keys [...].
            given: the given value of each pitch, int [..., V]: 0, 1 or `DRAWN`.
            temperature: divides the log-odds; 0 takes the likelier value, pitch by pitch.
        """

    def loss(self, v: jax.Array, real: jax.Array, rng: jax.Array) -> Mean:
        """Returns the loss of chords [B, T, V] in nats for each step.

        Args:
            v: bits, [B, T, V].
            real: the weight of each step, 0 for padding, [B, T].
            rng: the key.
        """
        return Mean.of(-self.log_prob(v, jnp.broadcast_to(rng, v.shape[:-1])), real)


class Independent(Law):
    """A law under which each pitch sounds independently of the others.

    Attributes:
        logits: the log-odds, [..., V].
    """

    logits: jax.Array

    def log_prob(self, v: jax.Array, keys: jax.Array) -> jax.Array:
        return _log_bernoulli(self.logits, v)

    def draw(self, keys: jax.Array, given: jax.Array, temperature: float = 1.0) -> jax.Array:
        found = _bits(self.logits, _uniform(keys, self.logits.shape[-1]), temperature)
        return _with_given(found, given)


class NADE(Law):
    """The neural autoregressive distribution estimator, from the highest pitch down.

    It has p(v_i = 1 | those above) = sigmoid(b_i + U_i . sigmoid(c + sum of W_j v_j over the j
    above i)). The arrays are in the order of the pitches, the lowest first.

    Attributes:
        kernel: W, [V, H].
        back: U, [V, H].
        visible_bias: b, [..., V].
        hidden_bias: c, [..., H].
        notes: the largest number of notes of a chord whose probability can be computed; it is NaN
            for chords with more. The hidden units change only with each note that sounds, so that
            they have one state more than there are notes.
    """

    kernel: jax.Array
    back: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array
    notes: int = flax.struct.field(pytree_node=False)

    def log_prob(self, v: jax.Array, keys: jax.Array) -> jax.Array:
        counts = v.astype(jnp.int32)
        above = jax.lax.cumsum(counts, axis=counts.ndim - 1, reverse=True) - counts  # [..., V]
        state = jnp.arange(self.notes + 1)
        shape = (*v.shape[:-1], len(state), v.shape[-1])
        above = jnp.broadcast_to(above[..., None, :], shape)
        places = jnp.broadcast_to(state[:, None], shape)
        # State s has seen the s highest notes, and is the one of the pitches below the s-th.
        kind = self.kernel.dtype
        seen = jnp.where(above < places, v[..., None, :].astype(kind), jnp.zeros((), kind))
        field = (seen @ self.kernel).astype(self.hidden_bias.dtype)
        hidden = jax.nn.sigmoid(field + self.hidden_bias[..., None, :])
        logits = (hidden.astype(kind) @ self.back.T).astype(self.visible_bias.dtype)
        own = jnp.where(above == places, logits, jnp.zeros_like(logits)).sum(-2)
        found = _log_bernoulli(own + self.visible_bias, v)
        return jnp.where(counts.sum(-1) <= self.notes, found, jnp.nan)

    def draw(self, keys: jax.Array, given: jax.Array, temperature: float = 1.0) -> jax.Array:
        back = self.back.astype(self.hidden_bias.dtype)
        kernel = self.kernel.astype(back.dtype)

        def pitch(field: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            w, u, b, noise, given = x
            found = _with_given(_bits(b + jax.nn.sigmoid(field) @ u, noise, temperature), given)
            return field + found[..., None] * jnp.broadcast_to(w, field.shape), found

        noise = _uniform(keys, len(kernel))
        rows = (jnp.moveaxis(x, -1, 0) for x in (self.visible_bias, noise, given))
        _, found = jax.lax.scan(pitch, self.hidden_bias, (kernel, back, *rows), reverse=True)
        return jnp.moveaxis(found, 0, -1)


class Machines(Law):
    """Restricted Boltzmann machines with shared weights and separate biases.

    Their log p is exact for at most 8 hidden units; else it is estimated by annealed importance
    sampling, which on average makes it too large.

    Attributes:
        machine: the machine, with biases [..., V] and [..., H].
        k: the steps of Gibbs sampling in contrastive divergence.
        gibbs: the steps of Gibbs sampling that draw a chord.
        chains: the number of chains of each step's annealing.
        annealing: the number of distributions that these chains pass through.
    """

    machine: Machine
    k: int = flax.struct.field(pytree_node=False)
    gibbs: int = flax.struct.field(pytree_node=False)
    chains: int = flax.struct.field(pytree_node=False)
    annealing: int = flax.struct.field(pytree_node=False)

    @property
    def rows(self) -> Machine:
        """The machines in one row each, with biases [N, V] and [N, H]."""
        visible, hidden = self.machine.visible_bias, self.machine.hidden_bias
        return self.machine.replace(
            visible_bias=visible.reshape(-1, visible.shape[-1]),
            hidden_bias=hidden.reshape(-1, hidden.shape[-1]),
        )

    def log_prob(self, v: jax.Array, keys: jax.Array) -> jax.Array:
        flat, rows = v.reshape(-1, v.shape[-1]), self.rows
        log_z = row_log_partitions(rows, keys.reshape(-1), chains=self.chains, steps=self.annealing)
        return (-rows.free_energy(flat) - log_z).reshape(v.shape[:-1])

    def log_prob_below(self, v: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns a lower bound of log p on average, by annealing from v, [...]."""
        flat, rows = v.reshape(-1, v.shape[-1]), self.rows
        log_z = row_log_partitions_above(rows, flat, keys.reshape(-1), steps=self.annealing)
        return (-rows.free_energy(flat) - log_z).reshape(v.shape[:-1])

    def draw(self, keys: jax.Array, given: jax.Array, temperature: float = 1.0) -> jax.Array:
        rows = self.rows
        told = given.reshape(-1, given.shape[-1])
        keys = keys.reshape(-1)
        pitches, hidden = rows.kernel.shape

        def bits(field: jax.Array, number: jax.Array, size: int) -> jax.Array:
            here = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            return _bits(field, _uniform(here, size), temperature)

        def step(number: jax.Array, v: jax.Array) -> jax.Array:
            h = bits(rows.hidden_field(v), 2 * number + 1, hidden)
            return _with_given(bits(rows.visible_field(h), 2 * number + 2, pitches), told)

        start = _with_given(bits(rows.visible_bias, jnp.int32(0), pitches), told)
        return jax.lax.fori_loop(0, self.gibbs, step, start).reshape(given.shape)

    def loss(self, v: jax.Array, real: jax.Array, rng: jax.Array) -> Mean:
        """Returns a loss with the gradient of CD-k.

        Its value is the error of chords [B, T, V] reconstructed from hidden units, in nats."""
        pitches, hidden = self.machine.kernel.shape
        rbm, contrast = RBM(Binary(), pitches, hidden), Contrast(self.k)

        def of_step(number: jax.Array, x: tuple[jax.Array, ...]) -> Mean:
            visible_bias, hidden_bias, v, weight = x
            params = {
                "kernel": self.machine.kernel,
                "visible_bias": visible_bias,
                "bias": hidden_bias,
            }
            key = jax.random.fold_in(rng, number)
            return contrastive_loss(rbm, contrast, params, {}, v, weight, key).loss

        arrays = self.machine.visible_bias, self.machine.hidden_bias, v, real
        steps = jax.vmap(of_step)(
            jnp.arange(v.shape[1]), jax.tree.map(lambda x: x.swapaxes(0, 1), arrays)
        )
        return Mean(steps.total.sum(), steps.weight.sum())


class Output(Protocol):
    """A Linen layer that makes the law of the next chord."""

    def __call__(self, y: jax.Array) -> Law:
        """Maps the network's output [..., D] to a law for positions [...]."""
        ...


class IndependentOutput(nn.Module):
    """A layer that makes an `Independent` law.

    Attributes:
        pitches: V.
    """

    pitches: int

    @nn.compact
    def __call__(self, y: jax.Array) -> Independent:
        return Independent(_biases(self.pitches, y))


class NADEOutput(nn.Module):
    """A layer that makes a `NADE` law.

    Attributes:
        pitches: V.
        hidden: H.
        notes: see `NADE`.
    """

    pitches: int
    hidden: int
    notes: int

    @nn.compact
    def __call__(self, y: jax.Array) -> NADE:
        both = _biases(self.pitches + self.hidden, y)
        shape, start = (self.pitches, self.hidden), nn.initializers
        return NADE(
            self.param("kernel", start.lecun_normal(), shape),
            self.param("back", start.lecun_normal(in_axis=1, out_axis=0), shape),
            both[..., : self.pitches],
            both[..., self.pitches :],
            self.notes,
        )


class MachinesOutput(nn.Module):
    """A layer that makes a `Machines` law.

    Attributes:
        pitches: V.
        hidden: H.
        k: see `Machines`, as for the others.
        gibbs: see there.
        chains: see there.
        annealing: see there.
    """

    pitches: int
    hidden: int
    k: int = 1
    gibbs: int = 25
    chains: int = 10
    annealing: int = 100

    @nn.compact
    def __call__(self, y: jax.Array) -> Machines:
        both = _biases(self.pitches + self.hidden, y)
        shape = (self.pitches, self.hidden)
        kernel = self.param("kernel", nn.initializers.normal(0.01), shape)
        machine = Machine(kernel, both[..., : self.pitches], both[..., self.pitches :])
        return Machines(machine, self.k, self.gibbs, self.chains, self.annealing)


def _biases(features: int, y: jax.Array) -> jax.Array:
    found = Dense(features, name="biases")(y)
    return found.astype(at_least_float32(found.dtype))


def _log_bernoulli(logits: jax.Array, v: jax.Array) -> jax.Array:
    """Returns log p of independent bits [..., V], given their log-odds, [...]."""
    return (logits * v.astype(logits.dtype) - jax.nn.softplus(logits)).sum(-1)


def _bits(logits: jax.Array, noise: jax.Array, temperature: float) -> jax.Array:
    if temperature == 0:
        return (logits > 0).astype(logits.dtype)
    return (noise.astype(logits.dtype) < jax.nn.sigmoid(logits / temperature)).astype(logits.dtype)


def _uniform(keys: jax.Array, size: int) -> jax.Array:
    """Returns random numbers [..., size] by keys [...]."""
    found = jax.vmap(lambda key: jax.random.uniform(key, (size,)))(keys.reshape(-1))
    return found.reshape(*keys.shape, size)


def _with_given(found: jax.Array, given: jax.Array) -> jax.Array:
    return jnp.where(given == DRAWN, found, given.astype(found.dtype))
