"""The hierarchical softmax predicts a word by a path of binary decisions down a tree.

The probabilities of all words follow row by row of the tree, from the root down.

Shapes: N positions, D features, V vocabulary, L longest path.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore.losses.word_trees import WordTree
from dlcore.types import at_least_float32


def hierarchical_softmax(
    hidden: jax.Array,
    nodes_kernel: jax.Array,
    nodes_bias: jax.Array,
    targets: jax.Array,
    *,
    tree: WordTree,
) -> jax.Array:
    """Returns -log P(target) in nats, [N], which is exact and costs one path.

    P(w) is the product of its path's decisions, where sigmoid(kernel[n] . h + bias[n]) is the
    probability of the second child of node n (Morin & Bengio 2005; on Huffman's tree, Mikolov et
    al. 2013). The mean over a text is the true cross-entropy, so evaluation needs nothing else.

    Args:
        hidden: [N, D].
        nodes_kernel: [V - 1, D].
        nodes_bias: [V - 1].
        targets: the ids of words, int [N].
        tree: the tree of the V words.

    Raises:
        ValueError: when the shapes do not fit.
    """
    _check(hidden, nodes_kernel, nodes_bias, tree)
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets {targets.shape} for {hidden.shape[0]} positions")
    path = jnp.asarray(tree.nodes)[targets]
    codes = jnp.asarray(tree.codes)[targets]
    on_path = jnp.arange(path.shape[1])[None] < jnp.asarray(tree.lengths)[targets][:, None]
    scores = jnp.einsum(
        "nd,nld->nl", hidden, nodes_kernel[path], preferred_element_type=_dtype(hidden)
    )
    losses = optax.sigmoid_binary_cross_entropy(
        scores + nodes_bias[path].astype(scores.dtype), codes
    )
    return jnp.where(on_path, losses, 0).sum(-1)


def hierarchical_log_probs(
    hidden: jax.Array, nodes_kernel: jax.Array, nodes_bias: jax.Array, *, tree: WordTree
) -> jax.Array:
    """Returns log P of every word, [N, V].

    Args:
        hidden: [N, D].
        nodes_kernel: [V - 1, D].
        nodes_bias: [V - 1].
        tree: the tree of the V words.

    Raises:
        ValueError: when the shapes do not fit.
    """
    _check(hidden, nodes_kernel, nodes_bias, tree)
    # Words and nodes take the first axis, so that rows of the tree are contiguous.
    scores = jnp.einsum("vd,nd->vn", nodes_kernel, hidden, preferred_element_type=_dtype(hidden))
    scores += nodes_bias[:, None].astype(scores.dtype)
    n = len(hidden)
    inner, first, leaves = jnp.zeros((1, n), scores.dtype), 0, []
    for depth in range(tree.nodes.shape[1]):
        row = scores[first : first + len(inner)]
        children = inner[:, None] + jax.nn.log_sigmoid(jnp.stack([-row, row], axis=1))
        children = children.reshape(-1, n)
        ending = tree.lengths == depth + 1
        numbers = 2 * (tree.nodes[ending, depth] - first) + tree.codes[ending, depth]
        first += len(inner)
        leaves.append(children[numbers])
        inner = children[np.delete(np.arange(len(children)), numbers)]
    order = np.argsort(np.argsort(tree.lengths, kind="stable"))
    return jnp.concatenate(leaves)[order].T


def _dtype(hidden: jax.Array) -> jnp.dtype:
    return at_least_float32(hidden.dtype)


def _check(
    hidden: jax.Array, nodes_kernel: jax.Array, nodes_bias: jax.Array, tree: WordTree
) -> None:
    inner = len(tree.lengths) - 1
    if nodes_kernel.shape != (inner, hidden.shape[-1]) or nodes_bias.shape != (inner,):
        raise ValueError(
            f"hidden {hidden.shape}, nodes_kernel {nodes_kernel.shape} and nodes_bias "
            f"{nodes_bias.shape} are not (N, D), (V - 1, D) and (V - 1,) with V - 1 = {inner}"
        )
