"""The penalty of doubly stochastic attention, at numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np

from dlcore.losses import doubly_stochastic


def test_penalty_by_hand() -> None:
    # Two steps over three places: together 0.7, 0.8 and 0.5 of attention.
    weights = jnp.array([[[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [9.0, 9.0, jnp.nan]]])
    real = jnp.array([[True, True, False]])
    found = doubly_stochastic(weights, real)
    np.testing.assert_allclose(found, [0.3**2 + 0.2**2 + 0.5**2], rtol=1e-6)
    # Every place looked at once costs nothing.
    once = jnp.eye(3)[None]
    assert doubly_stochastic(once, jnp.ones((1, 3), bool)).tolist() == [0]
    assert doubly_stochastic(once.astype(jnp.bfloat16), jnp.ones((1, 3), bool)).dtype == jnp.float32
