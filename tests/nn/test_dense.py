"""Products of rows, against the plain forms."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn import Dense
from dlcore.nn.dense import multiply_rows, sum_outer
from dlcore.nn.recurrent import LSTM, Recurrent


def of_seed(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    "leading",
    [
        (),
        pytest.param((3,), marks=pytest.mark.slow),
        pytest.param((2, 3), marks=pytest.mark.slow),
        (2, 3, 2),
    ],
)
@pytest.mark.parametrize("use_bias", [True, False])
def test_the_layer_is_flax_own(leading: tuple[int, ...], use_bias: bool) -> None:
    x, weights = of_seed(0, *leading, 4), of_seed(1, *leading, 5)
    ours, theirs = (layer(5, use_bias=use_bias) for layer in (Dense, nn.Dense))
    variables = ours.init(jax.random.key(0), x)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, theirs.init(jax.random.key(0), x)))

    def total(layer: nn.Dense, variables: Any, x: jax.Array) -> jax.Array:
        return (weights * layer.apply(variables, x)).sum()

    found, expected = (
        jax.value_and_grad(total, argnums=(1, 2))(layer, variables, x) for layer in (ours, theirs)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                 found, expected)  # fmt: skip


@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_the_functions_are_plain_products(leading: tuple[int, ...]) -> None:
    x, y, kernel = of_seed(0, *leading, 4), of_seed(1, *leading, 5), of_seed(2, 4, 5)
    np.testing.assert_allclose(multiply_rows(x, kernel), x @ kernel, rtol=1e-6)
    np.testing.assert_allclose(
        sum_outer(x, y), jnp.einsum("...c,...k->ck", x, y), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("layer", [Dense(5), Recurrent(LSTM(5))], ids=["dense", "recurrent"])
def test_no_product_of_the_gradient_sums_over_several_axes(layer: nn.Module) -> None:
    """XLA's CPU backend copies the arrays of such a product."""
    x = of_seed(0, 2, 3, 4)
    variables = layer.init(jax.random.key(0), x)

    def total(variables: Any, x: jax.Array) -> jax.Array:
        return sum(leaf.sum() for leaf in jax.tree.leaves(layer.apply(variables, x)))

    text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(variables, x).as_text()
    axes = re.findall(r"contracting_dims = \[([^]]*)\]", text)
    assert axes
    assert not [one for one in axes if "," in one]
