"""LSTMs with normalisation inside the recurrence.

Shapes: T time, B batch, D inputs, H features, S steps with their own statistics, `...` any axes.
"""

import dataclasses
from collections.abc import Mapping
from typing import NoReturn

import jax
import jax.numpy as jnp
from flax import struct
from jax.nn import sigmoid, standardize

from dlcore import parallel
from dlcore.nn.dense import multiply_rows
from dlcore.nn.recurrent.cell import Carry, Hooks, Params, expand, gates
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.parallel import AxisName
from dlcore.types import PyTree, at_least_float32

# "mean" and "var".
Moments = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(LSTM):
    """An LSTM with layer normalisation (Ba et al. 2016, eq. 20-22).

    i, f, g, o are computed from N(x W; a) + N(h U; a') + b, and h' = o tanh(N(c'; a'', b'')), where
    N brings each example's vector (4H,) or (H,) to mean 0 and variance 1 and multiplies it by its
    gains.

    With gains of 1 a wide net is chaotic: it enlarges the smallest difference between two carries
    from step to step, so that long sequences computed in two precisions diverge completely.

    Parameters beside the LSTM's: the gains `input_scale` (4H,), `recurrent_scale` (4H,) and
    `cell_scale` (H,), initially 1, and `cell_bias` (H,). The first two normalisations have no
    biases, which would only add to `bias`.
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        return super().init(key, inputs) | _scales(self.features, 1.0)

    def project(self, params: Params, x: jax.Array) -> jax.Array:
        product = multiply_rows(x, params["input_kernel"])
        return _layer_norm(product, params["input_scale"], params["bias"])

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, jax.Array]:
        product = hooks.product("recurrent_kernel", carry["h"])
        i, f, g, o = gates(projected + _layer_norm(product, params["recurrent_scale"]), 4)
        c = sigmoid(f) * carry["c"] + sigmoid(i) * hooks.candidate(jnp.tanh(g))
        h = sigmoid(o) * jnp.tanh(_layer_norm(c, params["cell_scale"], params["cell_bias"]))
        return {"h": h, "c": c}, h


class _Prepared(struct.PyTreeNode):
    """The arguments of a batch-normalised LSTM's steps; the named axis is fixed before the scan.

    Attributes:
        projected: the normalised input products, (T, B, 4H).
        mask: bool (T, B), true for the rows that count.
        count: (T,), their number on all devices.
        batch: in training the statistics of the input products; else None.
        running: in evaluation the running statistics of "recurrent" and "cell"; else None.
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
    """An LSTM with batch normalisation, separate for each step (Cooijmans et al. 2016, eq. 6-8).

    i, f, g, o are computed from N(x W; a) + N(h U; a') + b, and h' = o tanh(N(c'; a'', b'')), where
    N brings each feature to mean 0 and variance 1 over the batch and multiplies it by its gain.
    Each of the first S steps has its own running statistics, because the state is not yet in
    equilibrium; later steps use those of step S. Training uses the statistics of the batch, over
    all devices, and updates running = momentum * running + (1 - momentum) * batch; evaluation uses
    the running ones. Rows without an input at a step do not count there.

    Steps are counted from the start of the scan, so the sequences must start together: a backward
    net reverses its sequences by length (`reverse_by_length`) and scans them forwards, and each
    window of truncated back-propagation would begin at step 0 again.

    Parameters beside the LSTM's: the gains `input_scale` (4H,), `recurrent_scale` (4H,) and
    `cell_scale` (H,), initially 0.1, where tanh still has a gradient, and `cell_bias` (H,).
    State: {"input", "recurrent", "cell"}, each {"mean", "var"} of (S, 4H), (S, 4H), (S, H).

    Attributes:
        features: H.
        forget_bias: the initial bias of the forget gate.
        steps: S.
        momentum: the share of the old running statistics that is kept.
        epsilon: added to the variance.
    """

    steps: int = 100
    momentum: float = 0.9
    epsilon: float = 1e-5

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        return super().init(key, inputs) | _scales(self.features, 0.1)

    def init_state(self) -> dict[str, Moments]:
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
        count = _sum_over_devices(mask.sum(1).astype(jnp.float32), axis_name)
        product = multiply_rows(x, params["input_kernel"])
        if train:
            running, batch = None, _moments(product, mask, count, axis_name)
            moments = batch
        else:
            index = jnp.minimum(jnp.arange(len(x)), self.steps - 1)
            running, batch = jax.tree.map(lambda leaf: leaf[index], dict(state)), None
            moments = running.pop("input")
        projected = self._normalise(product, moments, params["input_scale"], params["bias"])
        return _Prepared(projected, mask, count, batch, running, axis_name)

    def step(
        self, params: Params, carry: Carry, projected: PyTree, hooks: Hooks
    ) -> tuple[Carry, tuple[jax.Array, jax.Array, dict[str, Moments | None]]]:
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

    def finish(
        self, state: Params, outputs: PyTree, train: bool
    ) -> tuple[jax.Array, dict[str, Moments]]:
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
        """Raises an error, because a single step does not know its statistics.

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
        return _standardised(x, mean, var, scale, bias, self.epsilon)


def reverse_by_length(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Reverses the first `lengths` (B,) steps of each sequence of x (T, B, ...).

    The rest, the padding, stays in place.

    >>> reverse_by_length(jnp.array([[1], [2], [0]]), jnp.array([2])).T.tolist()
    [[2, 1, 0]]
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


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    wide = x.astype(at_least_float32(x.dtype))
    # `standardize` by itself would compute the variance as E[x^2] - E[x]^2, which cancels.
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    return _standardised(x, mean, var, scale, bias)


def _standardised(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array,
    bias: jax.Array | None,
    epsilon: float = 1e-5,
) -> jax.Array:
    """Returns x with a mean of 0 and a variance of 1, times gains, computed in float32 at least."""
    wide = x.astype(at_least_float32(x.dtype))
    normal = standardize(wide, mean=mean, variance=var, epsilon=epsilon)
    y = normal * expand(scale.astype(wide.dtype), wide.ndim)
    return (y if bias is None else y + expand(bias.astype(wide.dtype), wide.ndim)).astype(x.dtype)


def _sum_over_devices(total: jax.Array, axis_name: AxisName | None) -> jax.Array:
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _moments(
    x: jax.Array, mask: jax.Array, count: jax.Array, axis_name: AxisName | None
) -> Moments:
    """Computes mean and (biased) variance of x (..., B, K) over the `count` (...) masked rows.

    Both are float32 at least.
    """
    x = x.astype(at_least_float32(x.dtype))
    count = jnp.maximum(count, 1)[..., None]

    def average(values: jax.Array) -> jax.Array:
        # Not a product with the mask: 0 times padding that is not finite would be NaN.
        total = jnp.where(mask[..., None], values, jnp.zeros_like(values)).sum(-2)
        return _sum_over_devices(total, axis_name) / count

    mean = average(x)
    return {"mean": mean, "var": average(jnp.square(x - mean[..., None, :]))}
