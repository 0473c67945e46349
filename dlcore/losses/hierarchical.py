"""The hierarchical softmax predicts a word by a path of binary decisions down a tree.

The tree is Huffman's, with canonical codes: the nodes of each depth form one row, leaves (words)
first, inner nodes after them, and the children of a row's i-th inner node are nodes 2i and 2i + 1
of the next row. Inner nodes are numbered row by row from the root, 0. So halving a node's number
gives its parent, and the probabilities of all words follow row by row, without gathering.

Shapes: N positions, D features, V vocabulary, L longest path.
"""

import dataclasses
import heapq

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore.errors import InputError
from dlcore.types import at_least_float32


@dataclasses.dataclass(frozen=True, eq=False)
class HuffmanTree:
    """A binary tree with the V words as leaves and V - 1 inner nodes; `huffman` makes it.

    Its arrays are NumPy's: a jitted function closes over the tree or takes it as a static argument.

    Attributes:
        nodes: int32 [V, L], the inner nodes on each word's path, from the root; 0 past its end.
        codes: int8 [V, L], 1 where the path goes to the second child; 0 past its end.
        lengths: int32 [V], the number of inner nodes on each path.
    """

    nodes: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray


def huffman(counts: np.ndarray) -> HuffmanTree:
    """Builds the tree with the least sum_w count(w) length(w) (Huffman 1952).

    Equal counts are joined in the order of their ids, leaves first, which also makes the longest
    path as short as possible. With all scores 0 a word with a path of length l has probability
    2^-l, close to its relative frequency, so a new layer starts at the unigram distribution.

    Args:
        counts: [V], V >= 2, numbers >= 0.

    Raises:
        InputError: when V < 2, or a count is negative or not finite.

    >>> huffman(np.array([5, 2, 1])).lengths.tolist()
    [1, 2, 2]
    """
    counts = np.asarray(counts)
    if counts.ndim != 1:
        raise ValueError(f"counts of shape {counts.shape}, expected one per word, (V,)")
    if len(counts) < 2:
        raise InputError(f"a tree needs 2 words or more, got {len(counts)}; use the full softmax")
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise InputError(
            f"the {len(counts)} word counts are not all numbers >= 0; "
            "count the words of the training text"
        )
    lengths = _code_lengths(counts)
    leaves = np.bincount(lengths)
    inner = np.ones(1, np.int64)  # The number of inner nodes in each row; the first has the root.
    for leaf_count in leaves[1:]:
        inner = np.append(inner, 2 * inner[-1] - leaf_count)
    first = np.append(0, inner.cumsum())

    number = np.empty_like(lengths)  # Each word's number in its row.
    by_length = np.argsort(lengths, kind="stable")
    number[by_length] = np.arange(len(counts)) - np.append(0, leaves.cumsum())[lengths[by_length]]
    nodes = np.zeros((len(counts), len(leaves) - 1), np.int32)
    codes = np.zeros(nodes.shape, np.int8)
    for depth in range(len(leaves) - 1, 0, -1):
        deep = np.flatnonzero(lengths >= depth)
        parent, code = np.divmod(number[deep], 2)
        nodes[deep, depth - 1] = first[depth - 1] + parent
        codes[deep, depth - 1] = code
        number[deep] = leaves[depth - 1] + parent
    return HuffmanTree(nodes, codes, lengths.astype(np.int32))


def _code_lengths(counts: np.ndarray) -> np.ndarray:
    """Returns the depth of each word's leaf, int64 [V]."""
    words = len(counts)
    heap = [(count, word) for word, count in enumerate(counts.tolist())]
    heapq.heapify(heap)
    parent = [0] * (2 * words - 1)
    for node in range(words, 2 * words - 1):
        count, child = heapq.heappop(heap)
        other_count, other = heap[0]
        parent[child] = parent[other] = node
        heapq.heapreplace(heap, (count + other_count, node))
    depth = [0] * (2 * words - 1)
    for node in range(2 * words - 3, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return np.array(depth[:words])


def hierarchical_softmax(
    hidden: jax.Array,
    nodes_kernel: jax.Array,
    nodes_bias: jax.Array,
    targets: jax.Array,
    *,
    tree: HuffmanTree,
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
    hidden: jax.Array, nodes_kernel: jax.Array, nodes_bias: jax.Array, *, tree: HuffmanTree
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
    for leaf_count in np.bincount(tree.lengths)[1:]:
        row = scores[first : first + len(inner)]
        first += len(inner)
        children = inner[:, None] + jax.nn.log_sigmoid(jnp.stack([-row, row], axis=1))
        children = children.reshape(-1, n)
        leaves.append(children[:leaf_count])
        inner = children[leaf_count:]
    order = np.argsort(np.argsort(tree.lengths, kind="stable"))
    return jnp.concatenate(leaves)[order].T


def _dtype(hidden: jax.Array) -> jnp.dtype:
    return at_least_float32(hidden.dtype)


def _check(
    hidden: jax.Array, nodes_kernel: jax.Array, nodes_bias: jax.Array, tree: HuffmanTree
) -> None:
    inner = len(tree.lengths) - 1
    if nodes_kernel.shape != (inner, hidden.shape[-1]) or nodes_bias.shape != (inner,):
        raise ValueError(
            f"hidden {hidden.shape}, nodes_kernel {nodes_kernel.shape} and nodes_bias "
            f"{nodes_bias.shape} are not (N, D), (V - 1, D) and (V - 1,) with V - 1 = {inner}"
        )
