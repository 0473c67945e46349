"""The contracts that every room names: what a batch, a loss, a step and a model are.

Shapes: B batch, T time, K classes, V vocabulary; `...` is whatever the task has.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import optax

# A tree of arrays, as JAX has it: nested dicts, lists, tuples and dataclasses.
PyTree: TypeAlias = Any
# The parameters of a model, by path.
Params: TypeAlias = PyTree
# What a Linen module's `init` returns and its `apply` takes: {"params": ..., COLLECTION: ...}.
Variables: TypeAlias = Mapping[str, PyTree]
# What the rows of a batch hand to the same rows of the next one; leaves have the leading axis B.
Carry: TypeAlias = PyTree
# Arrays of one leading axis B; "weight", where it is there, marks rows of padding by 0.
Batch: TypeAlias = Mapping[str, Any]
Activations: TypeAlias = dict[str, jax.Array]


class Mean(flax.struct.PyTreeNode):
    """A weighted mean that has not been divided yet.

    Two means of parts of the data merge by addition into the mean of all of it, so padding (rows
    of weight 0), accumulation and the number of devices cannot change the result.

    Attributes:
        total: the sum of weight times value, a scalar.
        weight: the sum of the weights, a scalar.

    >>> float(Mean.of(jnp.array([1.0, 3.0])).merge(Mean.of(jnp.array([8.0]))).compute())
    4.0
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> "Mean":
        """The mean of `values`, each counted by its weight (1 by default).

        Args:
            values: numbers of any shape.
            weights: of the same shape. A value of weight 0 is ignored, even when it is not finite.
        """
        values = jnp.asarray(values)
        if weights is None:
            return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
        if values.shape != weights.shape:
            raise ValueError(f"values {values.shape} and weights {weights.shape} differ in shape")
        return cls(jnp.where(weights == 0, 0, values * weights).sum(), weights.sum())

    def merge(self, other: "Mean") -> "Mean":
        """The mean over the data of both."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> jax.Array:
        """The mean; NaN when nothing was counted."""
        return self.total / self.weight


Metrics: TypeAlias = dict[str, Mean]


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


class Classifier(Protocol):
    """A Linen module of images, or of anything else in one array."""

    def __call__(self, inputs: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps inputs [B, ...] to logits [B, K] and every activation by name."""
        ...


class SequenceModel(Protocol):
    """A Linen module of token ids that are padded."""

    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to outputs [B, ...] and activations."""
        ...


class Generator(Protocol):
    """A Linen module that draws or searches a sequence token by token."""

    def initial_carry(self, batch: int, length: int | None = None) -> Carry:
        """Returns the carry before the first token of B rows, for up to `length` tokens."""
        ...

    def next_token(self, carry: Carry, token: jax.Array) -> tuple[Carry, jax.Array]:
        """Maps the carry and a token int [B] to the next carry and log P of the token after it."""
        ...
