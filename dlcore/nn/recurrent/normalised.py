"""LSTMs with normalisation inside of the recurrence.

Shapes: T time, B batch, D inputs, H features, S steps of their own statistics, `...` any axes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import struct
from jax.nn import sigmoid, standardize

from dlcore import parallel
from dlcore.nn.recurrent.cell import Carry, Hooks, Params, expand, gates
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.parallel import AxisName

Moments = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(LSTM):
    """The LSTM with layer normalisation (Ba et al. 2016, eq. 20-22).

    i, f, g, o come from N(x W; a) + N(h U; a') + b and h' = o tanh(N(c'; a'', b'')), where N takes
    each example's vector (4H,) or (H,) to mean 0 and variance 1 and multiplies it by its gains.

    Parameters beside the LSTM's: the gains `input_scale` (4H,), `recurrent_scale` (4H,) and
    `cell_scale` (H,), 1 at the start, and `cell_bias` (H,). The biases of the first two
    normalisations would only add to `bias`, so there are none.
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, Any]:
        return super().init(key, inputs) | _scales(self.features, 1.0)

    def project(self, params: Params, x: jax.Array) -> jax.Array:
        normal = _layer_norm(x @ params["input_kernel"])
        return _affine(normal, params["input_scale"], params["bias"])

    def step(self, params: Params, carry: Carry, projected: Any, hooks: Hooks) -> tuple[Carry, Any]:
        product = hooks.product("recurrent_kernel", carry["h"])
        normal = _layer_norm(product)
        i, f, g, o = gates(projected + _affine(normal, params["recurrent_scale"]), 4)
        c = sigmoid(f) * carry["c"] + sigmoid(i) * hooks.candidate(jnp.tanh(g))
        normal = _layer_norm(c)
        h = sigmoid(o) * jnp.tanh(_affine(normal, params["cell_scale"], params["cell_bias"]))
        return {"h": h, "c": c}, h


class _Prepared(struct.PyTreeNode):
    """What the steps of a batch-normalised LSTM take; the named axis is fixed before the scan.

    Attributes:
        projected: (T, B, 4H), normalised.
        mask: (T, B), which rows count.
        count: (T,), how many, on all devices.
        batch: in training the statistics of the input products; else None.
        running: in evaluation the statistics of the other two sites; else None.
        axis_name: the named axis over which the rest of the batch lies.
    """

    projected: jax.Array
    mask: jax.Array
    count: jax.Array
    batch: Moments | None
    running: Mapping[str, Moments] | None
    axis_name: AxisName | None = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class BatchNormLSTM(LSTM):
    """The LSTM with batch normalisation of its own at each step (Cooijmans et al. 2016, eq. 6-8).

    i, f, g, o come from N(x W; a) + N(h U; a') + b and h' = o tanh(N(c'; a'', b'')), where N takes
    each feature to mean 0 and variance 1 over the batch and multiplies it by its gain. Each step of
    the first S has running statistics of its own, because the state is not yet in equilibrium
    there; later ones use the last's. In training the statistics are the batch's, of all devices,
    and the running ones follow as running = momentum * running + (1 - momentum) * batch; in
    evaluation they are the running ones. Rows without an input at a step count for nothing there.

    A step is counted from the start of the scan, so the sequences must start together: a backward
    net takes its sequences reversed by length (`reverse_by_length`) and scans them forwards, and
    the windows of truncated back-propagation would each begin at step 0 again.

    Parameters beside the LSTM's: the gains `input_scale` (4H,), `recurrent_scale` (4H,) and
    `cell_scale` (H,), 0.1 at the start, where tanh still has a gradient, and `cell_bias` (H,).
    State: {"input", "recurrent", "cell"}, each {"mean", "var"} of (S, 4H), (S, 4H), (S, H).

    Attributes:
        features: H.
        forget_bias: where the bias of the forget gate starts.
        steps: S.
        momentum: the share of the old running statistics that stays.
        epsilon: added to the variance.
    """

    steps: int = 100
    momentum: float = 0.9
    epsilon: float = 1e-5

    def init(self, key: jax.Array, inputs: int) -> dict[str, Any]:
        return super().init(key, inputs) | _scales(self.features, 0.1)

    def init_state(self) -> dict[str, Any]:
        widths = {"input": 4 * self.features, "recurrent": 4 * self.features, "cell": self.features}
        return {
            site: {"mean": jnp.zeros((self.steps, width)), "var": jnp.ones((self.steps, width))}
            for site, width in widths.items()
        }

    def prepare(
        self, params: Params, state: Params, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> _Prepared:
        axis_name = parallel.axis_name()
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        count = _everywhere(mask.sum(1).astype(jnp.float32), axis_name)
        product = x @ params["input_kernel"]
        if train:
            running, batch = None, _moments(product, mask, count, axis_name)
            moments = batch
        else:
            index = jnp.minimum(jnp.arange(len(x)), self.steps - 1)
            running, batch = jax.tree.map(lambda leaf: leaf[index], dict(state)), None
            moments = running.pop("input")
        projected = self._normalise(product, moments, params["input_scale"], params["bias"])
        return _Prepared(projected, mask, count, batch, running, axis_name)

    def step(self, params: Params, carry: Carry, projected: Any, hooks: Hooks) -> tuple[Carry, Any]:
        now: _Prepared = projected
        batch = {"input": now.batch}

        def normalise(site: str, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
            if now.running is None:
                moments = batch[site] = _moments(x, now.mask, now.count, now.axis_name)
            else:
                moments = now.running[site]
            return self._normalise(x, moments, params[f"{site}_scale"], bias)

        pre = normalise("recurrent", hooks.product("recurrent_kernel", carry["h"]))
        i, f, g, o = gates(now.projected + pre, 4)
        c = sigmoid(f) * carry["c"] + sigmoid(i) * hooks.candidate(jnp.tanh(g))
        h = sigmoid(o) * jnp.tanh(normalise("cell", c, params["cell_bias"]))
        return {"h": h, "c": c}, (h, now.count, batch)

    def finish(self, state: Params, outputs: Any, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        y, count, batch = outputs
        if not train:
            return y, dict(state)
        steps = min(self.steps, len(count))
        seen = count[:steps, None] > 0

        def follow(running: jax.Array, new: jax.Array) -> jax.Array:
            old = running[:steps]
            mixed = self.momentum * old + (1 - self.momentum) * new[:steps]
            return running.at[:steps].set(jnp.where(seen, mixed, old))

        return y, jax.tree.map(follow, dict(state), jax.lax.stop_gradient(batch))

    def __call__(self, params: Params, carry: Carry, x: jax.Array) -> NoReturn:
        """Not for this cell: a step alone does not know its statistics.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a batch-normalised LSTM has no step without its statistics; "
            "use prepare, scan and finish"
        )

    def _normalise(
        self, x: jax.Array, moments: Moments, scale: jax.Array, bias: jax.Array | None = None
    ) -> jax.Array:
        mean, var = moments["mean"][..., None, :], moments["var"][..., None, :]
        return _affine(standardize(x, mean=mean, variance=var, epsilon=self.epsilon), scale, bias)


def reverse_by_length(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Reverses the first `lengths` (B,) steps of each sequence of x (T, B, ...); twice is nothing.

    The rest, the padding, stays where it is.
    """
    times = jnp.arange(x.shape[0])[:, None]
    source = jnp.where(times < lengths[None], lengths[None] - 1 - times, times)
    return x[source, jnp.arange(x.shape[1])[None]]


def _scales(features: int, start: float) -> dict[str, jax.Array]:
    return {
        "input_scale": jnp.full(4 * features, start),
        "recurrent_scale": jnp.full(4 * features, start),
        "cell_scale": jnp.full(features, start),
        "cell_bias": jnp.zeros(features),
    }


def _layer_norm(x: jax.Array) -> jax.Array:
    # Its own variance is E[x^2] - E[x]^2, which cancels.
    return standardize(x, variance=x.var(-1, keepdims=True))


def _affine(x: jax.Array, scale: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    x = x * expand(scale, x.ndim)
    return x if bias is None else x + expand(bias, x.ndim)


def _everywhere(total: jax.Array, axis_name: AxisName | None) -> jax.Array:
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _moments(
    x: jax.Array, mask: jax.Array, count: jax.Array, axis_name: AxisName | None
) -> Moments:
    """Mean and (biased) variance of x (..., B, K) over the `count` (...) rows in the mask."""
    count = jnp.maximum(count, 1)[..., None]

    def average(values: jax.Array) -> jax.Array:
        # Not a product: 0 times what padding overflows to would be NaN.
        total = jnp.where(mask[..., None], values, jnp.zeros_like(values)).sum(-2)
        return _everywhere(total, axis_name) / count

    mean = average(x)
    return {"mean": mean, "var": average(jnp.square(x - mean[..., None, :]))}
