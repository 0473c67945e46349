"""Measures the size of the signals on their way through a model."""

import jax
import jax.numpy as jnp

from dlcore.plan.walk import ApplyFn
from dlcore.types import Variables


def activation_deviations(
    apply_fn: ApplyFn, variables: Variables, inputs: jax.Array
) -> dict[str, float]:
    """Returns the standard deviation of each activation's values, in order of execution.

    With an initialiser that fits the activation function, it stays about the same through all
    layers (Glorot & Bengio 2010; He et al. 2015).

    Args:
        apply_fn: (variables, inputs) -> (outputs, activations by name), in evaluation mode.
        variables: the model's variables.
        inputs: a batch of inputs.
    """
    names: list[str] = []

    def measure(variables: Variables, inputs: jax.Array) -> list[jax.Array]:
        activations = apply_fn(variables, inputs)[1]
        # A dict that leaves the trace comes back sorted by name.
        names.extend(activations)
        return [jnp.std(value.astype(jnp.float32)) for value in activations.values()]

    deviations = jax.jit(measure)(variables, inputs)
    return dict(zip(names, map(float, deviations), strict=True))
