"""The choice of the parameters that decay."""

import jax.numpy as jnp
import pytest

from dlcore.errors import InputError
from dlcore.optim.selection import weights

TREE = {
    "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "stack": {
        "norm": {"scale": jnp.ones((4, 3)), "bias": jnp.ones((4, 3))},
        "activation": {"negative_slope": jnp.ones((4, 3))},
    },
    "embedding": jnp.ones((5, 2)),
    "slope": jnp.ones(()),
}


def test_matrices_are_weights_and_stacked_vectors_are_not():
    assert weights(TREE) == {
        "dense": {"kernel": True, "bias": False},
        "stack": {
            "norm": {"scale": False, "bias": False},
            "activation": {"negative_slope": False},
        },
        "embedding": True,
        "slope": False,
    }


def test_rules_come_first():
    found = weights(TREE, [("^embedding$", False), ("scale$", True)])
    assert not found["embedding"] and found["stack"]["norm"]["scale"] and found["dense"]["kernel"]
    with pytest.raises(InputError, match="'nothing' matches none"):
        weights(TREE, [("nothing", True)])
