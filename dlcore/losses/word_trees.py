"""Binary trees of words, whose inner nodes are the decisions of the hierarchical softmax.

`huffman` knows how often words occur, and makes the mean path as short as possible. `balanced_tree`
also keeps to an order of the words, such as the one of `order_by_likeness`, in which words that
occur in the same contexts are close together: its decisions are easier to learn, on slightly longer
paths.

Inner nodes are numbered row by row from the root, 0, and within a row in the order of their
parents: the two children of a row's i-th inner node are numbers 2i and 2i + 1 of the next row's
nodes.

Shapes: V words, L longest path, N tokens of a text, D features, n stretches of an order.
"""

import dataclasses
import heapq

import numpy as np

from dlcore.errors import InputError

_CONTEXTS, _FEATURES = 1000, 32
_ROUNDS = 8  # of power iteration, which need not converge: any direction cuts


@dataclasses.dataclass(frozen=True, eq=False)
class WordTree:
    """A binary tree with the V words as leaves and V - 1 inner nodes.

    Its arrays are NumPy arrays: a jitted function closes over the tree or takes it as a static
    argument.

    Attributes:
        nodes: int32 [V, L], the inner nodes on each word's path, from the root; 0 past its end.
        codes: int8 [V, L], 1 where the path goes to the second child; 0 past its end.
        lengths: int32 [V], the number of inner nodes on each path.
    """

    nodes: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray

    def log_odds(self, counts: np.ndarray) -> np.ndarray:
        """Returns the log odds of the second child of each node by the counts below it, [V - 1].

        Each count is raised by one.

        Args:
            counts: [V], numbers >= 0.
        """
        on_path = np.arange(self.nodes.shape[1]) < self.lengths[:, None]
        below = np.broadcast_to(counts[:, None] + 1.0, on_path.shape)[on_path]
        nodes, second = self.nodes[on_path], self.codes[on_path] == 1
        first, other = (np.bincount(nodes[side], below[side]) for side in (~second, second))
        return np.log(other / first).astype(np.float32)


def huffman(counts: np.ndarray) -> WordTree:
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
    counts = _checked(counts)
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
    return WordTree(nodes, codes, lengths.astype(np.int32))


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


def balanced_tree(counts: np.ndarray, order: np.ndarray) -> WordTree:
    """Builds the tree whose leaves keep an order, and whose nodes halve the counts below them.

    Each count is raised by one, so that words that never occur have short paths too. The mean path
    is less than two steps longer than the entropy in bits.

    Args:
        counts: [V], V >= 2, numbers >= 0.
        order: the words, int [V].

    Raises:
        InputError: as for `huffman`.

    >>> balanced_tree(np.array([5, 2, 1]), np.array([1, 0, 2])).lengths.tolist()
    [2, 1, 2]
    """
    counts = _checked(counts)
    weights, lengths = counts[order] + 1.0, np.zeros(len(counts), np.int32)
    nodes: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    start, end, first = np.array([0]), np.array([len(counts)]), 0
    while len(start):
        place, group = _places(start, end)
        words = order[place]
        cut, *parts = _halves(weights, start, end)
        node, code = np.zeros(len(counts), np.int32), np.zeros(len(counts), np.int8)
        node[words], code[words] = first + group, place >= cut[group]
        nodes.append(node)
        codes.append(code)
        lengths[words] += 1
        first += len(start)
        start, end = parts
    return WordTree(np.stack(nodes, 1), np.stack(codes, 1), lengths)


def order_by_likeness(tokens: np.ndarray, size: int) -> np.ndarray:
    """Returns the words in an order that brings words in similar contexts together, int32 [V].

    The order is that of the leaves of a tree that repeatedly halves the words, with equal counts on
    both sides, across the direction in which their vectors differ most. Mnih & Hinton (2009) grow
    such trees by mixtures of two Gaussians. The vector of a word describes what it follows: it is
    the positive pointwise mutual information with the most frequent words before it, projected onto
    the first principal axes and scaled to length 1.

    Args:
        tokens: the ids of a text, int [N].
        size: V, the number of words.
    """
    counts = np.bincount(tokens, minlength=size)
    vectors, weights = _vectors(tokens, counts), counts + 1.0
    order, start, end = np.arange(size, dtype=np.int32), np.array([0]), np.array([size])
    while size > 1 and len(start):
        place, group = _places(start, end)
        words = order[place]
        along = _projections(vectors[words], weights[words, None], group)
        order[place] = words[np.lexsort((along, group))]
        _, start, end = _halves(weights[order], start, end)
    return order


def _vectors(tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the vectors of words, which describe the words that they follow, [V, D]."""
    import scipy.sparse  # which takes longer than all else that a job imports from here

    common = np.argsort(-counts, kind="stable")[:_CONTEXTS]
    column = np.full(len(counts), -1)
    column[common] = np.arange(len(common))
    context, word = column[tokens[:-1]], tokens[1:]
    known = context >= 0
    ones = np.ones(np.count_nonzero(known), np.float32)
    shape = (len(counts), len(common))
    pairs = scipy.sparse.csr_matrix((ones, (word[known], context[known])), shape).tocoo()
    rows, columns = (np.asarray(pairs.sum(axis)).reshape(-1) for axis in (1, 0))
    expected = rows[pairs.row] * columns[pairs.col] / rows.sum()
    pairs.data = np.maximum(np.log(pairs.data / expected), 0)
    information = pairs.tocsr()
    _, axes = np.linalg.eigh((information.T @ information).toarray())
    vectors = information @ axes[:, -_FEATURES:]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _projections(vectors: np.ndarray, weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the coordinates of the vectors along the first principal axis of their group.

    Args:
        vectors: [m, D].
        weights: [m, 1].
        group: the number of each vector's group, rising, [m].
    """
    first = np.flatnonzero(np.diff(group, prepend=-1))
    means = np.add.reduceat(weights * vectors, first) / np.add.reduceat(weights, first)
    apart = vectors - means[group]
    farthest = np.lexsort(((weights * apart**2).sum(1), group))[
        np.append(first[1:], len(group)) - 1
    ]
    axis = apart[farthest]
    for _ in range(_ROUNDS):
        axis = np.add.reduceat((apart * axis[group]).sum(1, keepdims=True) * weights * apart, first)
        axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-30)
    return (apart * axis[group]).sum(1)


def _places(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns all positions of some stretches of an order, and the index of each one's stretch."""
    group = np.repeat(np.arange(len(start)), end - start)
    before = np.cumsum(end - start) - (end - start)
    return np.arange(len(group)) + (start - before)[group], group


def _halves(
    weights: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts stretches of two or more words where the weights of both sides differ least.

    Args:
        weights: positive weights of the words, in the order, [V].
        start: the first position of each stretch, [n].
        end: the position after the last one of each stretch, [n].

    Returns:
        The first position of each second part, [n]; and the starts and ends of the parts that have
        two or more words.
    """
    sums = np.append(0.0, np.cumsum(weights))
    middle = (sums[start] + sums[end]) / 2
    cut = np.searchsorted(sums, middle)
    cut -= middle - sums[cut - 1] < sums[cut] - middle
    cut = np.clip(cut, start + 1, end - 1)
    parts = (np.stack(pair, 1).reshape(-1) for pair in ((start, cut), (cut, end)))
    starts, ends = parts
    longer = ends - starts > 1
    return cut, starts[longer], ends[longer]


def _checked(counts: np.ndarray) -> np.ndarray:
    """Returns the counts of the words of a tree; raises the same errors as `huffman`."""
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
    return counts
