"""The state of a run and the shapes of the functions that act on it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dlcore.metrics import Mean

Batch = Mapping[str, Any]
Metrics = dict[str, Mean]


class TrainState(flax.struct.PyTreeNode):
    """All that a run is, beside its flags: a checkpoint of it continues bit for bit.

    Attributes:
        step: how many steps were taken, an int32 scalar; also the number of the next batch.
        params: what the optimizer changes.
        model_state: what the model itself changes, such as running statistics.
        opt_state: what the optimizer remembers.
        rng: the key of the run; the key of a step is `fold_in(rng, step)`.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    rng: jax.Array

    @classmethod
    def create(
        cls,
        variables: Mapping[str, Any],
        tx: optax.GradientTransformation,
        rng: jax.Array,
    ) -> "TrainState":
        """A state at step 0.

        Args:
            variables: what a Linen module's `init` returns: "params" and, where the model has
                any, the collections of its own state.
            tx: the optimizer.
            rng: the key of the run, a typed key.
        """
        model_state = {name: value for name, value in variables.items() if name != "params"}
        params = variables["params"]
        return cls(jnp.zeros((), jnp.int32), params, model_state, tx.init(params), rng)


class Aux(NamedTuple):
    """What a loss function gives beside the loss.

    Attributes:
        model_state: the model's state after this batch.
        metrics: further means over the batch.
    """

    model_state: Any
    metrics: Metrics


LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[Mean, Aux]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
MetricFn = Callable[[TrainState, Batch], Metrics]
