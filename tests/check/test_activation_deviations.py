"""Deviations of activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.check import activation_deviations
from dlcore.models import MLP

X = jax.random.normal(jax.random.key(0), (64, 100))


def test_they_are_numpys_in_order_of_execution():
    values = {"z": jnp.arange(6.0).reshape(2, 3), "a": jnp.array([[1.0, 5.0]])}
    deviations = activation_deviations(lambda variables, inputs: (inputs, values), {}, X)
    assert list(deviations) == ["z", "a"]
    assert deviations == pytest.approx(
        {name: float(np.std(value)) for name, value in values.items()}
    )


@pytest.mark.parametrize("name, kept", [("he_normal", True), ("lecun_normal", False)])
def test_he_keeps_the_size_of_signals_through_relus(name, kept):
    """LeCun's loses half of the variance in each of 20 layers."""
    model = MLP(10, features=(100,) * 20, initialiser=name)
    deviations = activation_deviations(model.apply, model.init(jax.random.key(1), X), X)
    ratio = deviations["dense_19"] / deviations["dense_0"]
    assert (0.3 < ratio < 3) == kept
    if not kept:
        assert ratio == pytest.approx(2**-9.5, rel=0.7)
