"""What a recurrent cell is: pure functions of its parameters, one step in time.

A cell has no state of its own. `init` draws its parameters, `initial_carry` gives what it starts
from, `project` multiplies inputs by the input weights, which needs no carry and is done for all
steps in one large product, and `step` does the rest of one step. So the scan, a stack, a
bidirectional pair, truncated back-propagation through time, attention and a decoder take any cell.

Shapes: B batch, T time, D input features, F output features, G the width of the projected input,
`...` any leading axes.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Params = Mapping[str, Any]
Carry = dict[str, jax.Array]
Product = Callable[[str, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Hooks:
    """How a step calls what the scan may want to change.

    Attributes:
        product: (name, h) -> h @ params[name]: every product with a recurrent matrix. The scan
            takes the gradient of these matrices for all steps at once, and variational dropout
            masks h here.
        candidate: what is about to be added to the carry -> the same; recurrent dropout masks it.
    """

    product: Product
    candidate: Callable[[jax.Array], jax.Array] = lambda update: update


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """A recurrent cell.

    Attributes:
        features: the width of the carried state.
    """

    features: int

    @property
    @abc.abstractmethod
    def recurrent(self) -> tuple[str, ...]:
        """The names of the parameters that only `Hooks.product` multiplies by."""

    @property
    def output_features(self) -> int:
        """F, the width of the output."""
        return self.features

    @abc.abstractmethod
    def init(self, key: jax.Array, inputs: int) -> dict[str, Any]:
        """The parameters for D = `inputs`."""

    @abc.abstractmethod
    def initial_carry(self, batch: int) -> Carry:
        """The carry before the first step: zeros, each leaf with leading axis B."""

    def project(self, params: Params, x: jax.Array) -> jax.Array:
        """Maps inputs (..., D) to (..., G): all of the step that needs no carry."""
        return x @ params["input_kernel"] + expand(params["bias"], x.ndim)

    @abc.abstractmethod
    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, jax.Array]:
        """One step: the carry and the projected input (B, G) give the next carry and y (B, F)."""

    def init_state(self) -> dict[str, Any]:
        """The running statistics that the cell keeps beside its parameters; none by default."""
        return {}

    def prepare(
        self, params: Params, state: Params, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> Any:
        """What the steps take as `projected`: a tree of leading axis T.

        Args:
            params: the parameters.
            state: the running statistics.
            x: inputs (T, B, D).
            mask: (T, B), true where there is an input; None where everywhere.
            train: whether statistics are the batch's, or else the running ones.
        """
        del state, mask, train
        return self.project(params, x)

    def finish(self, state: Params, outputs: Any, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        """The outputs (T, B, F) and the new running statistics from what the steps gave."""
        del train
        return outputs, dict(state)

    def __call__(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        """One step from an input (B, D): (carry, x) -> (carry, y (B, F))."""
        hooks = Hooks(lambda name, h: h @ params[name])
        return self.step(params, carry, self.project(params, x), hooks)


def expand(vector: jax.Array, rank: int) -> jax.Array:
    """A vector (G,) with leading axes of size 1, `rank` axes in all."""
    return vector.reshape((1,) * (rank - 1) + vector.shape)


def zeros(batch: int, features: int) -> jax.Array:
    """Zeros (B, features) of JAX's default type."""
    return jnp.zeros((batch, features))


def gates(pre: jax.Array, count: int) -> list[jax.Array]:
    """Cuts (B, count * H) into its `count` blocks of (B, H)."""
    return jnp.split(pre, count, axis=-1)
