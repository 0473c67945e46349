"""Recursive networks against plain recursion in NumPy, one node at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.tree import TREE_CELLS, Recursive, TensorRecursive, TreeRecursion, scan_tree

D, E = 3, 4
CELLS = sorted(TREE_CELLS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_node(name, params, kids, x):
    """The state of a node by its equations; `kids` are the states of its children."""
    if name in ("recursive", "rntn"):
        if not kids:
            return np.tanh(x)
        h = np.concatenate([*kids, *[np.zeros(D)] * (2 - len(kids))])
        pre = h @ params["kernel"] + params["bias"]
        if name == "rntn":
            pre = pre + np.array([h @ params["tensor"][:, :, d] @ h for d in range(D)])
        return np.tanh(pre)
    hs, cs = ([kid[part] for kid in kids] for part in (slice(0, D), slice(D, None)))
    word = params["bias"] + (0 if x is None else x @ params["input_kernel"])
    w_i, w_o, w_u, w_f = np.split(word, 4)
    if name == "child_sum":
        total = sum(hs, np.zeros(D))
        i, o, u = np.split(total @ params["sum_kernel"], 3)
        f = [sigmoid(h @ params["forget_kernel"] + w_f) for h in hs]
    else:
        matrices = params["kernel"].reshape(-1, D, params["kernel"].shape[1])
        products = sum(
            (h @ m for h, m in zip(hs, matrices, strict=False)), np.zeros(matrices.shape[2])
        )
        i, o, u, *f = np.split(products, products.size // D)
        f = [sigmoid(one + w_f) for one in f]
    c = sigmoid(i + w_i) * np.tanh(u + w_u) + sum(
        (gate * one for gate, one in zip(f, cs, strict=False)), np.zeros(D)
    )
    return np.concatenate([sigmoid(o + w_o) * np.tanh(c), c])


# Places of children (0 none, 1 to 4 leaves, then inner nodes): two slots and two steps of 2.
TREES = np.array(
    [
        [[[1, 2], [3, 4]], [[5, 6], [0, 0]]],  # balanced
        [[[1, 2], [0, 0]], [[5, 3], [0, 0]]],  # to the left, three leaves
        [[[2, 0], [0, 0]], [[5, 1], [0, 0]]],  # a node of one child
    ]
)
ROOTS = [6, 6, 6]  # of the rows of states, leaves and inner nodes


def plain_states(name, params, row, xs, inner=None):
    """The states of a row of `TREES`; what pads stays 0."""
    leaves = [plain_node(name, params, [], x) for x in xs]
    states = [np.zeros_like(leaves[0]), *leaves]
    for place, children in enumerate(row.reshape(-1, 2)):
        kids = [states[child] for child in children if child]
        word = None if inner is None else inner.reshape(-1, E)[place]
        states.append(plain_node(name, params, kids, word) if kids else np.zeros_like(leaves[0]))
    return np.array(states[1:])


def drawn(name, seed=0):
    cell = TREE_CELLS[name](D, 2)
    inputs = D if name in ("recursive", "rntn") else E
    keys = jax.random.split(jax.random.key(seed), 3)
    params = cell.init(keys[0], inputs)
    params = {
        name: leaf + 0.3 * jax.random.normal(jax.random.fold_in(keys[2], n), leaf.shape)
        for n, (name, leaf) in enumerate(sorted(params.items()))
    }
    return cell, params, jax.random.normal(keys[1], (len(TREES), 4, inputs))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("child_sum", "rntn")))
        for name in CELLS
    ],
)
def test_a_batch_is_the_plain_recursion(name):
    cell, params, x = drawn(name)
    found = jax.jit(lambda p, x: scan_tree(cell, p, cell.leaf(p, x), None, jnp.array(TREES)))(
        params, x
    )
    for row, root in enumerate(ROOTS):
        plain = plain_states(
            name, {k: np.asarray(v) for k, v in params.items()}, TREES[row], x[row]
        )
        np.testing.assert_allclose(
            found[row, [0, 1, 2, 3, 4, root]], plain[[0, 1, 2, 3, 4, root]], atol=1e-6
        )


@pytest.mark.parametrize("name", ["child_sum", "nary"])
def test_inner_nodes_read_their_words(name):
    cell, params, x = drawn(name)
    inner = jax.random.normal(jax.random.key(5), (len(TREES), 2, 2, E))
    layer = TreeRecursion(cell)
    found = layer.apply({"params": params}, x, jnp.array(TREES), inner)
    for row, root in enumerate(ROOTS):
        numbers = {k: np.asarray(v) for k, v in params.items()}
        plain = plain_states(name, numbers, TREES[row], x[row], np.asarray(inner[row]))
        np.testing.assert_allclose(found[row, root], plain[root, :D], atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("child_sum", "recursive")))
        for name in CELLS
    ],
)
def test_the_gradient_is_that_of_the_unrolled_recursion(name):
    cell, params, x = drawn(name)
    children = jnp.array(TREES)
    weights = np.zeros((len(TREES), 8, cell.state_features), np.float32)
    for row, root in enumerate(ROOTS):  # of a few nodes and never of one that pads
        weights[row, [0, 4, root]] = np.random.default_rng(row).normal(
            size=(3, cell.state_features)
        )
    inner = None
    if cell.words_inside:
        inner = jax.random.normal(jax.random.key(5), (len(TREES), 2, 2, E))

    def scanned(params, x, inner):
        read = None if inner is None else cell.read(params, inner)
        states = scan_tree(cell, params, cell.leaf(params, x), read, children)
        return (states * weights).sum()

    def unrolled(params, x, inner):
        total = 0.0
        for row, tree in enumerate(TREES):
            leaves = cell.leaf(params, x[row])
            states = [jnp.zeros_like(leaves[0]), *leaves]
            for place, kids in enumerate(tree.reshape(-1, 2)):
                known = jnp.stack([states[kid] for kid in kids])
                word = (
                    None if inner is None else cell.read(params, inner[row].reshape(-1, E)[place])
                )
                states.append(cell.combine(cell.project(params, known), word, known))
            total += (jnp.stack(states[1:]) * weights[row]).sum()
        return total

    found, wanted = (
        jax.jit(jax.grad(total, (0, 1, 2)))(params, x, inner) for total in (scanned, unrolled)
    )
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(two).max() > 0
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-6)


def test_equations_at_numbers_worked_by_hand():
    """tanh(0.5 0.2 + 2 0.4 - 0.1) = tanh 0.8, and with V: + 0.2^2 + 3 0.2 0.4 = tanh 1.08."""
    kids = jnp.array([[0.2], [0.4]])
    params = {"kernel": jnp.array([[0.5], [2.0]]), "bias": jnp.array([-0.1])}
    cell = Recursive(1)
    plain = cell.combine(cell.project(params, kids), None, kids)
    np.testing.assert_allclose(plain, np.tanh([0.8]), rtol=1e-6)
    params["tensor"] = jnp.array([[[1.0], [1.0]], [[2.0], [0.0]]])
    cell = TensorRecursive(1)
    tensor = cell.combine(cell.project(params, kids), None, kids)
    np.testing.assert_allclose(tensor, np.tanh([1.08]), rtol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_padding_changes_nothing(name):
    cell, params, x = drawn(name)
    leaf = cell.leaf(params, x)
    wide = jnp.pad(jnp.array(TREES), ((0, 0), (0, 3), (0, 0), (0, 0)))
    found = scan_tree(cell, params, leaf, None, wide)
    plain = scan_tree(cell, params, leaf, None, jnp.array(TREES))
    np.testing.assert_array_equal(found[:, :8], plain)


def test_words_of_another_width_are_refused():
    with pytest.raises(InputError, match="3, not 4"):
        Recursive(3).init(jax.random.key(0), 4)
