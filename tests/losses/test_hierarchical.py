"""Trees of words, and the softmax on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import losses
from dlcore.errors import InputError
from dlcore.losses.word_trees import balanced_tree, order_by_likeness

ZIPF = (1e5 / np.arange(1, 301)).astype(int)
COUNTS = {
    "two": [3, 1],
    "equal": [1] * 8,
    "zipf": np.random.default_rng(0).permutation(ZIPF),
    "chain": [2**i for i in range(12)],
    "zeros": [0, 5, 0, 0, 2],
    "probabilities": [0.5, 0.2, 0.3],
}
every_count = pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())


def shuffled(counts):
    """A balanced tree on an order that has nothing to do with the counts."""
    return balanced_tree(counts, np.random.default_rng(3).permutation(len(counts)))


KINDS = {"huffman": losses.huffman, "balanced": shuffled}
every_tree = pytest.mark.parametrize(
    "tree",
    [make(np.array(counts)) for make in KINDS.values() for counts in COUNTS.values()],
    ids=[f"{kind}-{name}" for kind in KINDS for name in COUNTS],
)


some_trees = pytest.mark.parametrize(
    "tree",
    [
        pytest.param(
            make(np.array(counts)),
            id=f"{kind}-{name}",
            marks=[pytest.mark.slow] * (kind == "balanced" or name in ("two", "equal", "chain")),
        )
        for kind, make in KINDS.items()
        for name, counts in COUNTS.items()
    ],
)


def layer(tree, n=6, d=4, scale=1.0):
    draw = np.random.default_rng(1).normal
    v = len(tree.lengths)
    shapes = ((n, d), (v - 1, d), (v - 1,))
    return tuple(jnp.asarray(scale * draw(size=shape), jnp.float32) for shape in shapes)


def paths(tree):
    return [
        list(zip(nodes[:n].tolist(), codes[:n].tolist(), strict=True))
        for nodes, codes, n in zip(tree.nodes, tree.codes, tree.lengths, strict=True)
    ]


def test_a_tree_worked_by_hand():
    """Counts 5 2 1 1 1: 1+1 = 2, 1+2 = 3, 2+3 = 5, 5+5. Lengths 1, 3, 3, 3, 3; the rows hold
    root | word 0, node 1 | nodes 2, 3 | words 1, 2 (of node 2), words 3, 4 (of node 3)."""
    tree = losses.huffman(np.array([5, 2, 1, 1, 1]))
    assert paths(tree) == [
        [(0, 0)],
        [(0, 1), (1, 0), (2, 0)],
        [(0, 1), (1, 0), (2, 1)],
        [(0, 1), (1, 1), (3, 0)],
        [(0, 1), (1, 1), (3, 1)],
    ]
    np.testing.assert_array_equal(tree.lengths, [1, 3, 3, 3, 3])
    assert (tree.nodes.dtype, tree.codes.dtype, tree.lengths.dtype) == (np.int32, np.int8, np.int32)


@every_tree
def test_it_is_a_binary_tree(tree):
    """Every inner node has two children, and a single path leads to each."""
    v = len(tree.lengths)
    children: dict = {}
    for word, path in enumerate(paths(tree)):
        assert path[0][0] == 0
        following = [node for node, _ in path[1:]] + [f"word {word}"]
        for step, child in zip(path, following, strict=True):
            assert children.setdefault(step, child) == child
    assert sorted(children) == [(node, code) for node in range(v - 1) for code in (0, 1)]
    assert len(set(children.values())) == 2 * (v - 1)


@every_count
def test_the_mean_length_is_huffmans_optimum(counts):
    """It is the sum of all joined counts, less than one bit above the entropy."""
    tree = losses.huffman(np.array(counts))
    total = float(sum(counts))
    queue, optimum = sorted(map(float, counts)), 0.0
    while len(queue) > 1:
        joined = queue.pop(0) + queue.pop(0)
        optimum += joined
        queue = sorted([*queue, joined])
    mean = (np.array(counts) * tree.lengths).sum() / total
    np.testing.assert_allclose(mean, optimum / total, rtol=1e-12)
    p = np.array([c for c in counts if c > 0]) / total
    assert -(p * np.log2(p)).sum() <= mean + 1e-12 < 1 - (p * np.log2(p)).sum() + 1e-12


@every_tree
def test_probabilities_sum_to_one(tree):
    run = jax.jit(functools.partial(losses.hierarchical_log_probs, tree=tree))
    for scale in (0.0, 1.0, 30.0):
        log_probs = run(*layer(tree, scale=scale))
        assert log_probs.shape == (6, len(tree.lengths)) and np.isfinite(log_probs).all()
        np.testing.assert_allclose(np.exp(np.asarray(log_probs, np.float64)).sum(1), 1, atol=1e-6)
        if scale == 0:
            np.testing.assert_allclose(log_probs[0], -np.log(2) * tree.lengths, rtol=1e-6)


@some_trees
def test_loss_and_gradients_of_one_path_are_those_of_all_words(tree):
    params = layer(tree)
    targets = jnp.arange(6, dtype=jnp.int32) % len(tree.lengths)

    def by_path(params):
        return losses.hierarchical_softmax(*params, targets, tree=tree)

    def by_words(params):
        return -losses.hierarchical_log_probs(*params, tree=tree)[jnp.arange(6), targets]

    np.testing.assert_allclose(jax.jit(by_path)(params), jax.jit(by_words)(params), rtol=1e-5)
    mine, reference = (
        jax.jit(jax.grad(lambda p, loss=loss: loss(p).sum()))(params)
        for loss in (by_path, by_words)
    )
    for gradient, expected in zip(mine, reference, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=2e-6)


@every_count
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_log_odds_are_those_of_the_frequencies(make, counts):
    """Hidden states that say nothing leave the share of each word, which counts once more."""
    counts = np.array(counts)
    tree = make(counts)
    odds = tree.log_odds(counts)
    assert odds.dtype == np.float32
    hidden, kernel = jnp.zeros((1, 2)), jnp.zeros((len(counts) - 1, 2))
    run = jax.jit(functools.partial(losses.hierarchical_log_probs, tree=tree))
    found = run(hidden, kernel, jnp.asarray(odds))[0]
    np.testing.assert_allclose(np.exp(found), (counts + 1) / (counts + 1).sum(), rtol=1e-5)


def test_a_balanced_tree_worked_by_hand():
    """Weights 4 1 2 3 2 are 2 2 4 1 3 in the order 4 2 0 1 3. Half of 12 is as near to the sum 4 as
    to 8, of which the latter cuts: 2 2 4 | 1 3; half of 8 is the sum 4: 2 2 | 4."""
    tree = balanced_tree(np.array([3, 0, 1, 2, 1]), np.array([4, 2, 0, 1, 3]))
    assert paths(tree) == [
        [(0, 0), (1, 1)],
        [(0, 1), (2, 0)],
        [(0, 0), (1, 0), (3, 1)],
        [(0, 1), (2, 1)],
        [(0, 0), (1, 0), (3, 0)],
    ]


@every_count
def test_a_balanced_tree_keeps_the_order_on_short_paths(counts):
    counts = np.array(counts)
    order = np.random.default_rng(3).permutation(len(counts))
    tree = balanced_tree(counts, order)
    inorder = sorted(range(len(counts)), key=lambda word: tree.codes[word].tolist())
    assert inorder == order.tolist()
    p = (counts + 1) / (counts + 1).sum()
    assert (p * tree.lengths).sum() < 2 - (p * np.log2(p)).sum()


def test_words_that_follow_the_same_words_stand_together():
    """Kinds of words follow one another in turn; within a kind any word is as likely."""
    rng, kinds, of_each = np.random.default_rng(0), 4, 6
    name = rng.permutation(kinds * of_each).reshape(kinds, of_each)
    rows = np.arange(12_000) % kinds
    tokens = name[rows, rng.integers(0, of_each, len(rows))]
    order = order_by_likeness(tokens, kinds * of_each)
    assert sorted(order) == list(range(kinds * of_each))
    kind_of = np.argsort(name.reshape(-1)) // of_each
    assert np.count_nonzero(np.diff(kind_of[order])) == kinds - 1
    np.testing.assert_array_equal(order, order_by_likeness(tokens, kinds * of_each))


@pytest.mark.parametrize(("tokens", "size"), [([0, 1], 2), ([1, 1, 1], 3), ([0], 4)])
def test_texts_too_short_to_tell_have_some_order(tokens, size):
    assert sorted(order_by_likeness(np.array(tokens), size)) == list(range(size))


def test_definition():
    """The loss is that of the product of the path's decisions in NumPy."""
    tree = losses.huffman(COUNTS["zipf"])
    hidden, kernel, bias = (np.asarray(x, np.float64) for x in layer(tree))
    targets = np.array([0, 7, 50, 51, 200, 299])
    expected = [
        sum(
            np.log1p(np.exp((1 - 2 * code) * (hidden[n] @ kernel[node] + bias[node])))
            for node, code in paths(tree)[target]
        )
        for n, target in enumerate(targets)
    ]
    loss = losses.hierarchical_softmax(*layer(tree), jnp.asarray(targets), tree=tree)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_half_precision_is_summed_in_single():
    tree = losses.huffman(COUNTS["zipf"])
    halves = [x.astype(jnp.bfloat16) for x in layer(tree)]
    singles = [x.astype(jnp.float32) for x in halves]
    targets = jnp.arange(6)
    mine, exact = (losses.hierarchical_softmax(*p, targets, tree=tree) for p in (halves, singles))
    assert mine.dtype == jnp.float32
    np.testing.assert_allclose(mine, exact, rtol=1e-6)


def test_a_large_vocabulary_is_quick_and_the_same_each_time():
    counts = np.random.default_rng(2).zipf(1.2, 50_000).clip(max=10**9)
    a, b = losses.huffman(counts), losses.huffman(counts)
    np.testing.assert_array_equal(a.nodes, b.nodes)
    np.testing.assert_allclose(np.exp2(-a.lengths.astype(float)).sum(), 1)  # Kraft


@pytest.mark.parametrize("counts", [[], [4]])
def test_too_few_words(counts):
    with pytest.raises(InputError, match=f"a tree needs 2 words or more, got {len(counts)}"):
        losses.huffman(np.array(counts))


@pytest.mark.parametrize("counts", [[1, -1], [1, np.nan]])
def test_bad_counts(counts):
    with pytest.raises(InputError, match="the 2 word counts are not all numbers >= 0"):
        losses.huffman(np.array(counts))


def test_bad_shapes():
    tree = losses.huffman(np.ones(4))
    hidden, kernel, bias = layer(tree)
    with pytest.raises(ValueError, match=r"nodes_kernel \(4, 4\).* with V - 1 = 3"):
        losses.hierarchical_log_probs(hidden, jnp.zeros((4, 4)), bias, tree=tree)
    with pytest.raises(ValueError, match=r"targets \(5,\) for 6 positions"):
        losses.hierarchical_softmax(hidden, kernel, bias, jnp.zeros(5, jnp.int32), tree=tree)
