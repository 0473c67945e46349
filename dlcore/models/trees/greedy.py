"""A recursive autoencoder that finds the structure of sentences by itself (Socher et al. 2011).

Shapes: B batch, L words, D features, K classes.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.nn import Dense, Dropout
from dlcore.nn.embedding import Embedding
from dlcore.nn.tree import Autoencoder, scan_tree


class Found(NamedTuple):
    """The trees and losses that the autoencoder finds for sentences.

    Attributes:
        logits: the logits of the words and of the L - 1 joined nodes, [B, 2 L - 1, K].
        errors: the reconstruction error of each joined node, weighted by the numbers of words of
            its children, [B, L - 1].
        joins: the indices of the children of each joined node, int [B, L - 1, 2]: 1 to L are words,
            then the joined nodes follow; 0 past the end of a sentence.
    """

    logits: jax.Array
    errors: jax.Array
    joins: jax.Array


class _Joining(NamedTuple):
    """The nodes of a sentence that are not joined yet, from left to right, [L, ...] each.

    Attributes:
        nodes: the states of the nodes.
        sizes: the number of words of each node.
        places: the index of each node.
        joined: the state of each node joined with the next one.
        errors: the error of this join.
    """

    nodes: jax.Array
    sizes: jax.Array
    places: jax.Array
    joined: jax.Array
    errors: jax.Array


class GreedyAutoencoder(nn.Module):
    """A model that repeatedly joins the two neighbours that it can reconstruct best.

    It ends when one node is left. The structure is found without a gradient; then the nodes are
    computed again along it, as for a given tree. A linear layer predicts the class of every node.

    Attributes:
        vocab_size: the number of word ids.
        features: D, of words and nodes.
        num_classes: K.
        dropout: the share of values dropped from the vectors of nodes before the linear layer.
        embedding_dropout: the share of words that is dropped, see `Embedding`.
    """

    vocab_size: int
    features: int
    num_classes: int
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    @nn.compact
    def __call__(self, words: jax.Array, length: jax.Array, train: bool = False) -> Found:
        """Maps words int [B, L] and their numbers int [B] to the findings.

        Draws from the stream "dropout".
        """
        cell = Autoencoder(self.features)
        x = Embedding(
            self.vocab_size, self.features, dropout=self.embedding_dropout, name="embedding"
        )(words, train)
        draw = cell.init
        if self.is_initializing():
            start = draw(self.make_rng("params"), self.features)
        else:  # `param` compares their shapes and returns the existing parameters.
            shapes = jax.eval_shape(lambda key: draw(key, self.features), jax.random.key(0))
            start = jax.tree.map(jnp.zeros_like, shapes)
        params = {
            name: self.param(name, lambda key, value=value: value) for name, value in start.items()
        }
        leaves = cell.leaf(params, x)
        fixed = jax.lax.stop_gradient((params, leaves))
        joins = jax.vmap(lambda leaf, count: find_joins(cell, fixed[0], leaf, count))(
            fixed[1], length
        )
        states = scan_tree(cell, params, leaves, None, joins[:, :, None])
        errors = reconstruction_errors(cell, params, states, joins)
        logits = Dense(self.num_classes, name="output")(Dropout(self.dropout)(states, train))
        return Found(logits, errors, joins)


def find_joins(
    cell: Autoencoder, params: dict[str, jax.Array], leaves: jax.Array, length: jax.Array
) -> jax.Array:
    """Returns the indices of the children of each joined node of a sentence, int [L - 1, 2].

    Of pairs with equal errors the first one is joined.

    Args:
        cell: the cell.
        params: its parameters.
        leaves: the states of L words, [L, D].
        length: the number of real words.
    """
    count = len(leaves)
    spots = jnp.arange(count)

    def errors_of(nodes: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the joined node and its error of each place (n, 2, D) of two children."""
        joined = cell.combine(cell.project(params, nodes), None, nodes)
        return joined, cell.error(params, joined, nodes, sizes)

    pairs = jnp.stack([leaves, jnp.roll(leaves, -1, axis=0)], axis=1)
    ones = jnp.ones((count, 2), leaves.dtype)
    joined, errors = errors_of(pairs, ones)

    def join(state: _Joining, step: jax.Array) -> tuple[_Joining, jax.Array]:
        nodes, sizes, places, joined, errors = state
        left = length - step  # nodes that are left
        best = jnp.where(spots < left - 1, errors, jnp.inf).argmin()
        real = left > 1
        children = jnp.where(real, jnp.stack([places[best], places[(best + 1) % count]]), 0)

        def shifted(array: jax.Array, new: jax.Array) -> jax.Array:
            """Puts the new node in the place of both, and moves the others up."""
            moved = jnp.where(
                (spots > best).reshape(-1, *(1,) * (array.ndim - 1)),
                jnp.roll(array, -1, axis=0),
                array,
            )
            return moved.at[best].set(new)

        nodes = shifted(nodes, joined[best])
        sizes = shifted(sizes, sizes[best] + sizes[(best + 1) % count])
        places = shifted(places, count + 1 + step)
        joined, errors = shifted(joined, joined[best]), shifted(errors, errors[best])
        # The new node has two new pairs: with the one before it and with the one after it.
        at = jnp.stack([(best - 1) % count, best])
        beside = jnp.stack([at, (at + 1) % count], axis=1)
        new_joined, new_errors = errors_of(nodes[beside], sizes[beside])
        joined, errors = joined.at[at].set(new_joined), errors.at[at].set(new_errors)
        return _Joining(nodes, sizes, places, joined, errors), children

    start = _Joining(leaves, jnp.ones(count, leaves.dtype), 1 + spots, joined, errors)
    _, joins = jax.lax.scan(join, start, jnp.arange(count - 1))
    return joins


def reconstruction_errors(
    cell: Autoencoder, params: dict[str, jax.Array], states: jax.Array, joins: jax.Array
) -> jax.Array:
    """Returns the error of each joined node, [B, L - 1]; for padding it has no meaning.

    Args:
        cell: the cell.
        params: its parameters.
        states: the states of words and joined nodes, [B, 2 L - 1, D].
        joins: int [B, L - 1, 2].
    """
    count = joins.shape[1] + 1

    def grow(sizes: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        step, children = now
        return sizes.at[count + 1 + step].set(sizes[children].sum()), None

    def sizes_of(joins: jax.Array) -> jax.Array:
        start = jnp.zeros(2 * count, states.dtype).at[1 : count + 1].set(1)
        return jax.lax.scan(grow, start, (jnp.arange(count - 1), joins))[0]

    sizes = jax.vmap(sizes_of)(joins)
    padded = jnp.pad(states, ((0, 0), (1, 0), (0, 0)))
    rows = jnp.arange(len(joins))[:, None, None]
    children = padded[rows, joins]
    return cell.error(params, states[:, count:], children, sizes[rows, joins])
