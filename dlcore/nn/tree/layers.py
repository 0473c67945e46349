"""The layer that runs a cell over trees."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.nn.tree.cells import TreeCell
from dlcore.nn.tree.scan import scan_tree


class TreeRecursion(nn.Module):
    """A layer that runs a cell over a batch of trees; its parameters have the cell's names.

    Shapes: B batch, L leaves, S steps, W nodes of a step, C children, E features of a word, D of a
    node.

    Attributes:
        cell: the cell.
    """

    cell: TreeCell

    @nn.compact
    def __call__(
        self, x: jax.Array, children: jax.Array, inner: jax.Array | None = None
    ) -> jax.Array:
        """Maps words of leaves [B, L, E] to the vectors of leaves and inner nodes [B, L + S W, D].

        Args:
            x: the words of the leaves.
            children: int [B, S, W, C], see `scan_tree`.
            inner: the words of inner nodes, [B, S, W, E], for a cell that reads such words.
        """
        draw = functools.partial(self.cell.init, inputs=x.shape[-1])
        if self.is_initializing():
            start = draw(self.make_rng("params"))
        else:  # `param` compares their shapes and returns the existing parameters.
            start = jax.tree.map(jnp.zeros_like, jax.eval_shape(draw, jax.random.key(0)))
        params = {
            name: self.param(name, lambda key, value=value: value) for name, value in start.items()
        }
        read = None if inner is None else self.cell.read(params, inner)
        states = scan_tree(self.cell, params, self.cell.leaf(params, x), read, children)
        return self.cell.output(states)
