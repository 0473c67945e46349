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
        carry: what each row of a batch hands to the same row of the next one, such as the state of
            a recurrent net that reads a long text in windows: a tree whose leaves have the leading
            axis of the batch. None where the rows of different batches have nothing in common.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    rng: jax.Array
    carry: Any = None

    @classmethod
    def create(
        cls,
        variables: Mapping[str, Any],
        tx: optax.GradientTransformation,
        rng: jax.Array,
        carry: Any = None,
    ) -> "TrainState":
        """A state at step 0.

        Args:
            variables: what a Linen module's `init` returns: "params" and, where the model has
                any, the collections of its own state.
            tx: the optimizer.
            rng: the key of the run, a typed key.
            carry: what the first batch starts from, if the rows of the batches go on.
        """
        model_state = {name: value for name, value in variables.items() if name != "params"}
        params = variables["params"]
        return cls(jnp.zeros((), jnp.int32), params, model_state, tx.init(params), rng, carry)


class Aux(NamedTuple):
    """What a loss function gives beside the loss.

    Attributes:
        model_state: the model's state after this batch.
        metrics: further means over the batch.
        carry: what each row hands to the next batch.
    """

    model_state: Any
    metrics: Metrics
    carry: Any = None


# Takes (params, model_state, batch, rng); where the state has a carry, it is batch["carry"].
LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[Mean, Aux]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# An evaluation changes nothing but the carry, which it gives beside the metrics.
MetricFn = Callable[[TrainState, Batch], tuple[Metrics, Any]]
