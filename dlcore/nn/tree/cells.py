"""Cells of recursive networks, which compute the state of a node from those of its children.

A cell has no state of its own, and is split in two: `project` has all products with the parameters,
and `combine` has none. So the scan over the steps of a tree saves the products, and computes the
gradient of the parameters for all nodes at once.

Shapes: C children, D features of a node, F numbers of its state, E features of a word, G the width
of the products, `...` any leading axes.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from dlcore import errors

Params = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class TreeCell(abc.ABC):
    """A cell of a recursive network.

    Attributes:
        features: D.
        children: C; a node with fewer has zeros in place of the others.
        words_inside: whether inner nodes may have words too.
    """

    features: int
    children: int = 2
    words_inside: ClassVar[bool] = False

    @property
    def state_features(self) -> int:
        """F, the number of values of a state."""
        return self.features

    @abc.abstractmethod
    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        """Draws the parameters for E = `inputs`."""

    @abc.abstractmethod
    def leaf(self, params: Params, x: jax.Array) -> jax.Array:
        """Maps words (..., E) to the states of leaves (..., F)."""

    def read(self, params: Params, x: jax.Array) -> jax.Array:
        """Maps words (..., E) of inner nodes to the values that `combine` needs of them."""
        raise TypeError(f"{type(self).__name__} reads words at leaves only")

    @abc.abstractmethod
    def project(self, params: Params, children: jax.Array) -> jax.Array:
        """Maps states of children (..., C, F) to their products with the parameters (..., G)."""

    @abc.abstractmethod
    def combine(
        self, projected: jax.Array, word: jax.Array | None, children: jax.Array
    ) -> jax.Array:
        """Maps products (..., G), the result of `read`, and the children to the state (..., F)."""

    def output(self, state: jax.Array) -> jax.Array:
        """Maps states (..., F) to the vectors of the nodes (..., D)."""
        return state[..., : self.features]


def _uniform(key: jax.Array, shape: tuple[int, ...], bound: float) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _averaging(key: jax.Array, features: int, children: int) -> jax.Array:
    """Draws a matrix (C D, D) with which a node is at first about the mean of its children."""
    noise = _uniform(key, (children * features, features), 1 / (2 * features**0.5))
    return noise + jnp.tile(jnp.eye(features), (children, 1)) / children


def _flat(children: jax.Array) -> jax.Array:
    """Puts children (..., C, F) side by side, (..., C F)."""
    return children.reshape(*children.shape[:-2], -1)


@dataclasses.dataclass(frozen=True)
class Recursive(TreeCell):
    """A cell tanh(W [c1; ...; cC] + b) (Socher et al. 2011, eq. 2); a leaf is tanh of its word.

    Parameters: `kernel` (C D, D), `bias` (D,).
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        _same(self, inputs)
        return {
            "kernel": _averaging(key, self.features, self.children),
            "bias": jnp.zeros(self.features),
        }

    def leaf(self, params: Params, x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    def project(self, params: Params, children: jax.Array) -> jax.Array:
        return _flat(children) @ params["kernel"] + _row(params["bias"], children.ndim - 1)

    def combine(
        self, projected: jax.Array, word: jax.Array | None, children: jax.Array
    ) -> jax.Array:
        return jnp.tanh(projected)


@dataclasses.dataclass(frozen=True)
class TensorRecursive(Recursive):
    """A cell tanh(h V h + W h + b) with h = [c1; c2] and a slice of V for each feature.

    It is the recursive neural tensor network (Socher et al. 2013, section 4.3). Parameters: those
    of `Recursive`, and `tensor` (C D, C D, D).
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        params = super().init(key, inputs)
        size = self.children * self.features
        shape = (size, size, self.features)
        tensor = _uniform(jax.random.fold_in(key, 1), shape, 1 / (4 * self.features))
        return {**params, "tensor": tensor}

    def project(self, params: Params, children: jax.Array) -> jax.Array:
        h, tensor = _flat(children), params["tensor"]
        size = h.shape[-1]
        slices = (h @ tensor.reshape(size, -1)).reshape(*h.shape, self.features)
        quadratic = jnp.einsum("...i,...id->...d", h, slices)
        return quadratic + super().project(params, children)


def _same(cell: TreeCell, inputs: int) -> None:
    if inputs != cell.features:
        raise errors.InputError(
            f"leaves of a recursive network are words, so that these have as many features as "
            f"nodes, {cell.features}, not {inputs}; give both the same width"
        )


def _row(vector: jax.Array, rank: int) -> jax.Array:
    return vector.reshape((1,) * (rank - 1) + vector.shape)


@dataclasses.dataclass(frozen=True)
class _TreeLSTM(TreeCell):
    """A base of LSTM cells; the gates i, o, f and the update u of a word are in the order i o u f.

    A state is [h; c]. Parameters: `input_kernel` (E, 4 D), `bias` (4 D,), and those of the kind.
    """

    words_inside = True

    @property
    def state_features(self) -> int:
        return 2 * self.features

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        draw = jax.nn.initializers.lecun_normal()
        return {
            "input_kernel": draw(key, (inputs, 4 * self.features)),
            "bias": jnp.zeros(4 * self.features),
        }

    def leaf(self, params: Params, x: jax.Array) -> jax.Array:
        pre = self.read(params, x) + _row(params["bias"], x.ndim)
        i, o, u, _ = jnp.split(pre, 4, axis=-1)
        return _state(o, jax.nn.sigmoid(i) * jnp.tanh(u))

    def read(self, params: Params, x: jax.Array) -> jax.Array:
        return x @ params["input_kernel"]

    def _halves(self, children: jax.Array) -> tuple[jax.Array, jax.Array]:
        return children[..., : self.features], children[..., self.features :]

    def combine(
        self, projected: jax.Array, word: jax.Array | None, children: jax.Array
    ) -> jax.Array:
        size = self.features
        own, forget = projected[..., : 3 * size], projected[..., 3 * size :]
        forget = forget.reshape(*forget.shape[:-1], self.children, size)
        if word is not None:
            own, forget = own + word[..., : 3 * size], forget + word[..., None, 3 * size :]
        i, o, u = jnp.split(own, 3, axis=-1)
        _, c = self._halves(children)
        kept = (jax.nn.sigmoid(forget) * c).sum(axis=-2)
        return _state(o, jax.nn.sigmoid(i) * jnp.tanh(u) + kept)

    def _with_bias(self, params: Params, own: jax.Array, forget: jax.Array) -> jax.Array:
        """Joins products (..., 3 D) and (..., C D) and adds the bias, which all children share."""
        bias, size = params["bias"], 3 * self.features
        whole = jnp.concatenate([bias[:size], *[bias[size:]] * self.children])
        joined = jnp.concatenate([own, forget], axis=-1)
        return joined + _row(whole, joined.ndim)


def _state(o: jax.Array, c: jax.Array) -> jax.Array:
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(c), c], axis=-1)


@dataclasses.dataclass(frozen=True)
class ChildSumTreeLSTM(_TreeLSTM):
    """A cell that reads the sum of the children and forgets each separately (Tai et al. 2015).

    It follows their eq. 2-8. Parameters beside those of words: `sum_kernel` (D, 3 D) and
    `forget_kernel` (D, D).
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        draw, size = jax.nn.initializers.lecun_normal(), self.features
        word_key, sum_key, forget_key = jax.random.split(key, 3)
        return {
            **super().init(word_key, inputs),
            "sum_kernel": draw(sum_key, (size, 3 * size)),
            "forget_kernel": draw(forget_key, (size, size)),
        }

    def project(self, params: Params, children: jax.Array) -> jax.Array:
        h, _ = self._halves(children)
        forget = h @ params["forget_kernel"]
        return self._with_bias(params, h.sum(axis=-2) @ params["sum_kernel"], _flat(forget))


@dataclasses.dataclass(frozen=True)
class NaryTreeLSTM(_TreeLSTM):
    """A cell with separate matrices for each child position (Tai et al. 2015, eq. 9-14).

    Parameter beside those of words: `kernel` (C D, (3 + C) D).
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        word_key, key = jax.random.split(key)
        shape = (self.children * self.features, (3 + self.children) * self.features)
        kernel = jax.nn.initializers.lecun_normal()(key, shape)
        return {**super().init(word_key, inputs), "kernel": kernel}

    def project(self, params: Params, children: jax.Array) -> jax.Array:
        h, _ = self._halves(children)
        products = _flat(h) @ params["kernel"]
        size = 3 * self.features
        return self._with_bias(params, products[..., :size], products[..., size:])


# The cells of recursive networks by name.
TREE_CELLS: dict[str, Callable[[int, int], TreeCell]] = {
    "recursive": Recursive,
    "rntn": TensorRecursive,
    "child_sum": ChildSumTreeLSTM,
    "nary": NaryTreeLSTM,
}
