"""Classifiers of trees: one by one as in a batch, padding, masks of dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.data.trees import Trees, parse_brackets
from dlcore.models.trees import TreeClassifier
from dlcore.nn.tree import TREE_CELLS

TEXTS = ["(1 (0 a) (1 (1 b) (0 c)))", "(0 d)", "(_ (1 a b) (_ (0 c d) (1 e f)))", "(0 (0 a b) c)"]


def split_of(texts):
    trees = [tree for text in texts for tree in parse_brackets(text)]
    return Trees(
        trees,
        lambda words: np.array([ord(w[0]) - 97 for w in words], np.int32),
        {"0": 0, "1": 1},
        children=2,
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "child_sum"))
        for name in sorted(TREE_CELLS)
    ],
)
def test_a_batch_is_as_its_trees_one_by_one(name):
    model = TreeClassifier(6, 8, TREE_CELLS[name](8, 2), 2)
    batch = split_of(TEXTS).gather(np.arange(4))
    variables = jax.jit(model.init)(jax.random.key(0), batch["words"], batch["children"])
    apply = jax.jit(model.apply, static_argnames="train")
    together, _ = apply(variables, batch["words"], batch["children"])
    for row, text in enumerate(TEXTS):
        one = split_of([text]).gather(np.array([0]))
        alone, _ = apply(variables, one["words"], one["children"])
        np.testing.assert_array_equal(
            one["label"][one["label"] >= 0], batch["label"][row][batch["label"][row] >= 0]
        )
        np.testing.assert_allclose(
            alone[0][one["label"][0] >= 0], together[row][batch["label"][row] >= 0], atol=1e-6
        )
        np.testing.assert_allclose(
            alone[0, one["root"][0]], together[row, batch["root"][row]], atol=1e-6
        )


def test_masks_depend_on_the_row():
    model = TreeClassifier(6, 8, TREE_CELLS["nary"](8, 2), 2, 0.5, 0.3)
    batch = split_of(TEXTS).gather(np.arange(4))
    variables = jax.jit(model.init)(jax.random.key(0), batch["words"], batch["children"])
    apply = jax.jit(model.apply, static_argnames="train")
    rngs = {"dropout": jax.random.key(3)}
    both, _ = apply(variables, batch["words"], batch["children"], train=True, rngs=rngs)
    half, _ = apply(variables, batch["words"][:2], batch["children"][:2], train=True, rngs=rngs)
    plain, _ = apply(variables, batch["words"], batch["children"])
    np.testing.assert_allclose(both[:2], half, atol=1e-6)
    assert not jnp.allclose(both, plain, atol=1e-3)
