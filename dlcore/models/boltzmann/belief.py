"""The deep belief network (Hinton, Osindero & Teh 2006), a stack of restricted Boltzmann machines.

Each machine is trained on the units of the one below. The lower layers are directed downwards; the
two uppermost ones are an RBM. The parameters are {"dense_0": those of the lowest RBM,
"dense_1": ...}, whose kernels and biases are the dense layers of a classifier with sigmoid units.
Up-down training adds {"up_0", "down_0", ..., "top"}, in which recognition and generation no longer
share their weights.

Shapes: B rows, V visible units, H units of a layer, L layers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.models.boltzmann.contrastive import Contrast, Found, contrastive_loss
from dlcore.models.boltzmann.rbm import (
    RBM,
    Machine,
    draw_hidden,
    draw_visible,
    row_keys,
)
from dlcore.models.boltzmann.units import Binary, Units
from dlcore.types import Mean, Params

TOP = "top"
# A regular expression of the parameters that up-down training changes.
UNTIED = rf"^((up|down)_\d+|{TOP})/"


def layer_name(number: int) -> str:
    """Returns the name of the parameters of a layer's RBM, the name of a dense layer."""
    return f"dense_{number}"


class Stack(NamedTuple):
    """The parts of a network of L layers.

    Attributes:
        up: the L - 1 machines whose hidden units are drawn given the layer below.
        down: the L - 1 machines whose visible units are drawn given the layer above.
        top: the uppermost machine.
    """

    up: tuple[Machine, ...]
    down: tuple[Machine, ...]
    top: Machine


@dataclasses.dataclass(frozen=True)
class DeepBelief:
    """The sizes and the kind of a network.

    Attributes:
        units: the kind of the visible units; all other units are binary.
        visible: V.
        hidden: the number of units of each layer, from below; a network of one layer is an RBM.
        learned_variance: as for `RBM`, for the lowest layer.
    """

    units: Units
    visible: int
    hidden: tuple[int, ...]
    learned_variance: bool = False

    @property
    def layers(self) -> tuple[RBM, ...]:
        """The RBM of each layer, from below."""
        lowest = RBM(self.units, self.visible, self.hidden[0], self.learned_variance)
        pairs = zip(self.hidden[:-1], self.hidden[1:], strict=True)
        return (lowest, *(RBM(Binary(), below, above) for below, above in pairs))

    def init(self, key: jax.Array, *, up_down: bool = False) -> dict[str, Params]:
        """Returns the initial parameters, including those of up-down training if it is wanted."""
        keys = jax.random.split(key, len(self.hidden))
        params = {
            layer_name(n): rbm.init(key)
            for n, (rbm, key) in enumerate(zip(self.layers, keys, strict=True))
        }
        return self.untied(params) if up_down else params

    def started(self, params: Mapping[str, Params], number: int) -> dict[str, Params]:
        """Returns parameters with which a layer can start once the layer below is trained.

        Its visible biases are the hidden biases of the layer below. If it has as many units as that
        layer has visible units, it starts as that machine upside down, which keeps the
        distribution, so that learning can only raise the bound (Hinton et al. 2006, section 4).
        """
        below, layer = params[layer_name(number - 1)], params[layer_name(number)]
        new = {**layer, "visible_bias": below["bias"]}
        rbm = self.layers[number - 1]
        if isinstance(rbm.units, Binary) and self.hidden[number] == rbm.visible:
            new |= {"kernel": below["kernel"].T, "bias": below["visible_bias"]}
        return {**params, layer_name(number): new}

    def untied(self, params: Mapping[str, Params]) -> dict[str, Params]:
        """Returns parameters for up-down training that start from the trained layers."""
        new = {name: tree for name, tree in params.items() if name.startswith("dense_")}
        for n in range(len(self.hidden) - 1):
            layer = new[layer_name(n)]
            machine = self.layers[n].machine(layer)
            new[f"up_{n}"] = {"kernel": machine.kernel, "bias": machine.hidden_bias}
            new[f"down_{n}"] = {name: tree for name, tree in layer.items() if name != "bias"}
        new[TOP] = new[layer_name(len(self.hidden) - 1)]
        return jax.tree.map(lambda leaf: leaf + jnp.zeros((), leaf.dtype), new)

    def machines(self, params: Mapping[str, Params]) -> list[Machine]:
        """Returns the machine of each layer, from below, as trained one by one."""
        return [rbm.machine(params[layer_name(n)]) for n, rbm in enumerate(self.layers)]

    def stack(self, params: Mapping[str, Params], layers: int | None = None) -> Stack:
        """Returns the network of the layers, as they were trained one by one.

        Args:
            params: the parameters.
            layers: the number of layers, from below; all by default.
        """
        *lower, top = self.machines(params)[:layers]
        return Stack(tuple(machine.replace(precision=None) for machine in lower), (*lower,), top)

    def untied_stack(self, params: Mapping[str, Params]) -> Stack:
        """Returns the network that up-down training changes."""
        *lower, top = self.layers
        up, down = [], []
        for n, rbm in enumerate(lower):
            # Each direction does without the biases of the other.
            above, below = params[f"up_{n}"], params[f"down_{n}"]
            unused = jnp.zeros_like(below["visible_bias"]), jnp.zeros_like(above["bias"])
            up.append(Machine(above["kernel"], unused[0], above["bias"], None, rbm.units))
            down.append(rbm.machine({**below, "bias": unused[1]}))
        return Stack((*up,), (*down,), top.machine(params[TOP]))

    def greedy_loss(
        self,
        number: int,
        contrast: Contrast,
        params: Mapping[str, Params],
        means: Mapping[str, jax.Array],
        v: jax.Array,
        weight: jax.Array,
        rng: jax.Array,
        chains: jax.Array | None = None,
    ) -> Found:
        """Returns the loss of a layer on the data as transformed by the layers below.

        Args:
            number: the number of the layer, from 0; the layers below are drawn and get no gradient.
            contrast: the options of the layer's chains; see `contrastive_loss`.
            params: the parameters of all layers.
            means: running means of the layer's units.
            v: the data, [B, V].
            weight: the weights of the rows, [B].
            rng: the key.
            chains: persistent chains of the layer.
        """
        below, key = jax.random.split(rng)
        if number:
            stack = jax.lax.stop_gradient(self.stack(params, number + 1))
            v = drawn_up(stack, v, below)[-1]
        rbm, layer = self.layers[number], params[layer_name(number)]
        return contrastive_loss(rbm, contrast, layer, means, v, weight, key, chains)

    def up_down_loss(
        self,
        contrast: Contrast,
        params: Mapping[str, Params],
        v: jax.Array,
        weight: jax.Array,
        rng: jax.Array,
    ) -> Mean:
        """Returns the loss of a step of the up-down algorithm (Hinton et al. 2006, appendix B).

        Upwards, the layers are drawn by recognition, and generation learns to draw each layer from
        the one above. The top learns by contrastive divergence from there. Downwards, the layers
        are drawn by generation from the ends of the top's chains, and recognition learns to draw
        each layer from the one below. The value is the upward part for the data, -log p(v | h)
        above its minimum, in nats.

        Args:
            contrast: the options of the top's chains.
            params: the parameters, with those of up-down training.
            v: the data, [B, V].
            weight: the weights of the rows, [B].
            rng: the key.
        """
        stack = self.untied_stack(params)
        fixed = jax.lax.stop_gradient(stack)
        above, top, below = jax.random.split(rng, 3)
        wake = drawn_up(fixed, v, above)
        errors = [
            machine.deviance(*pair)
            for machine, *pair in zip(stack.down, [v, *wake[:-1]], wake, strict=True)
        ]
        found = contrastive_loss(
            self.layers[-1], contrast, params[TOP], {}, wake[-1], weight, top, None
        )
        dream = drawn_down(fixed, found.ends[:, 0], below)
        recognition = jnp.zeros(len(v))
        for machine, lower, higher in zip(stack.up, dream[:-1], dream[1:], strict=True):
            recognition += Binary().deviance(higher, machine.hidden_field(lower), None)
        others = sum(errors[1:], recognition)
        loss = Mean.of(errors[0] + others - jax.lax.stop_gradient(others), weight)
        change = found.loss.total - jax.lax.stop_gradient(found.loss.total)
        return Mean(loss.total + change, loss.weight)


def drawn_up(stack: Stack, v: jax.Array, rng: jax.Array) -> list[jax.Array]:
    """Returns the units of each layer below the top's hidden ones, drawn from below, [B, H]."""
    layers: list[jax.Array] = []
    for n, machine in enumerate(stack.up):
        keys = row_keys(jax.random.fold_in(rng, n), len(v))
        layers.append(draw_hidden(machine.hidden_field(layers[-1] if n else v), keys))
    return layers


def drawn_down(stack: Stack, units: jax.Array, rng: jax.Array) -> list[jax.Array]:
    """Returns all layers from the data up to the top's visible units, drawn from above.

    Args:
        stack: the network.
        units: the visible units of the top, [B, H].
        rng: the key.
    """
    layers = [units]
    for n, machine in reversed([*enumerate(stack.down)]):
        keys = row_keys(jax.random.fold_in(rng, n), len(units))
        layers.insert(0, draw_visible(machine, machine.visible_field(layers[0]), keys))
    return layers


def means_up(stack: Stack, v: jax.Array) -> list[jax.Array]:
    """Returns the means of each layer's units above the data, given the means one layer below."""
    layers: list[jax.Array] = []
    for machine in (*stack.up, stack.top):
        layers.append(jax.nn.sigmoid(machine.hidden_field(layers[-1] if layers else v)))
    return layers


def drawn_again(stack: Stack, v: jax.Array) -> jax.Array:
    """Returns the field of the data after a pass up to the last layer and down again by means."""
    x = means_up(stack, v)[-1]
    for n, machine in reversed([*enumerate((*stack.down, stack.top))]):
        field = machine.visible_field(x)
        x = machine.units.mean(field, machine.precision) if n else field
    return x


def bound(
    stack: Stack, v: jax.Array, log_z: float, rng: jax.Array, *, samples: int = 10
) -> jax.Array:
    """Returns a lower bound of log p(v), or for a single RBM log p(v) itself, in nats [B].

    The bound is E log p(v | h) + H(q(h | v)) + E log p(h) with h drawn by recognition q, for each
    layer in turn; the RBM at the top defines its log p(h) (Hinton et al. 2006, eq. 8; Salakhutdinov
    & Murray 2008, section 3). The result is an unbiased estimate from a few draws of h.

    Args:
        stack: the network.
        v: the data, [B, V].
        log_z: log Z of the top.
        rng: the key.
        samples: the number of draws of h for each row.
    """

    def one(rng: jax.Array) -> jax.Array:
        total, below = jnp.zeros(len(v)), v
        for higher, up, down in zip(drawn_up(stack, v, rng), stack.up, stack.down, strict=True):
            field = up.hidden_field(below)
            entropy = jax.nn.softplus(field) - field * jax.nn.sigmoid(field)
            likelihood = down.units.log_prob(below, down.visible_field(higher), down.precision)
            total += likelihood + entropy.sum(-1)
            below = higher
        return total - stack.top.free_energy(below)

    return jax.lax.map(one, jax.random.split(rng, samples)).mean(0) - log_z


def generated(stack: Stack, v: jax.Array, h: jax.Array, rng: jax.Array) -> jax.Array:
    """Returns the means of the data that the network generates from a state of its top, [B, V].

    Args:
        stack: the network.
        v: the visible units of the top.
        h: the hidden units of the top that v was drawn from.
        rng: the key of the layers in between.
    """
    lowest = (*stack.down, stack.top)[0]
    above = drawn_down(stack, v, rng)[1] if stack.down else h
    return lowest.units.mean(lowest.visible_field(above), lowest.precision)


def reconstruction(stack: Stack, v: jax.Array) -> jax.Array:
    """Returns the error of the data reconstructed through all layers by means, in nats [B]."""
    machines: Sequence[Machine] = (*stack.down, stack.top)
    lowest = machines[0]
    return lowest.units.deviance(v, drawn_again(stack, v), lowest.precision)
