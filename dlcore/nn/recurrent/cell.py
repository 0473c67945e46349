"""The interface of recurrent cells: pure functions of their parameters.

A cell has no state of its own. `init` draws its parameters, `initial_carry` returns its initial
state, `project` multiplies the inputs of all steps by the input weights in one large product, which
needs no carry, and `step` does the rest of one step. So the scan, a stack, a bidirectional pair,
truncated back-propagation through time, attention and a decoder work with any cell.

Shapes: B batch, T time, D input features, F output features, G the width of the projected input,
`...` any leading axes.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from dlcore.nn.dense import multiply_rows
from dlcore.types import PyTree

Params = Mapping[str, PyTree]
# What a cell hands to the next step, by name; leaves are [B, F].
Carry = dict[str, jax.Array]
Product = Callable[[str, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Hooks:
    """The functions through which the scan changes a step.

    Attributes:
        product: (name, h) -> h @ params[name], for every product with a recurrent matrix. The scan
            computes the gradient of these matrices for all steps at once, and variational dropout
            masks h here.
        candidate: the identity on the values that the step will add to the carry; recurrent dropout
            masks them here.
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
        """The names of the parameters that the step uses only through `Hooks.product`."""

    @property
    def output_features(self) -> int:
        """F, the width of the output."""
        return self.features

    @abc.abstractmethod
    def init(self, key: jax.Array, inputs: int) -> dict[str, PyTree]:
        """Draws the parameters for D = `inputs`."""

    @abc.abstractmethod
    def initial_carry(self, batch: int) -> Carry:
        """Returns the carry before the first step: zeros, each leaf with leading axis B."""

    def project(self, params: Params, x: jax.Array) -> jax.Array:
        """Maps inputs (..., D) to (..., G), the part of the step that needs no carry."""
        return multiply_rows(x, params["input_kernel"]) + expand(params["bias"], x.ndim)

    @abc.abstractmethod
    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, PyTree]:
        """Maps the carry and the projected input (B, G) to the next carry and the output (B, F)."""

    def init_state(self) -> dict[str, PyTree]:
        """Returns the initial running statistics of the cell; none by default."""
        return {}

    def prepare(
        self, params: Params, state: Params, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> PyTree:
        """Returns the steps' arguments `projected`, a tree with leading axis T.

        Args:
            params: the parameters.
            state: the running statistics.
            x: inputs (T, B, D).
            mask: (T, B), true where there is an input; None where there is one everywhere.
            train: whether to use statistics of the batch, or else the running ones.
        """
        del state, mask, train
        return self.project(params, x)

    def finish(
        self, state: Params, outputs: PyTree, train: bool
    ) -> tuple[jax.Array, dict[str, PyTree]]:
        """Turns the steps' stacked outputs into outputs (T, B, F) and new running statistics."""
        del train
        return outputs, dict(state)

    def __call__(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        """Runs one step: maps the carry and an input (B, D) to the next carry and y (B, F)."""
        hooks = Hooks(lambda name, h: h @ params[name])
        return self.step(params, carry, self.project(params, x), hooks)


def expand(vector: jax.Array, rank: int) -> jax.Array:
    """Gives a vector (G,) leading axes of size 1, so that it has `rank` axes."""
    return vector.reshape((1,) * (rank - 1) + vector.shape)


def zeros(batch: int, features: int) -> jax.Array:
    """Returns zeros (B, features) of JAX's default type."""
    return jnp.zeros((batch, features))


def gates(pre: jax.Array, count: int) -> list[jax.Array]:
    """Cuts (B, count * H) into its `count` blocks of (B, H)."""
    return jnp.split(pre, count, axis=-1)
