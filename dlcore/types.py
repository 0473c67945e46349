"""The contracts that all packages share: what a batch, a loss, a step and a model are.

Shapes: B batch, T time, K classes, V vocabulary; `...` depends on the task.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
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
# Every activation of a model by name, in the order of execution while it is traced.
Activations: TypeAlias = dict[str, jax.Array]


def at_least_float32(*dtypes: jax.typing.DTypeLike) -> jnp.dtype:
    """Returns the type to sum in: float64 if one of the types is float64, else float32.

    >>> at_least_float32(jnp.bfloat16), at_least_float32(jnp.float64, jnp.float32)
    (dtype('float32'), dtype('float64'))
    """
    return jnp.dtype("float64" if any(dtype == jnp.float64 for dtype in dtypes) else "float32")


class Mean(flax.struct.PyTreeNode):
    """A weighted mean that has not been divided yet.

    The means of two parts of the data merge by addition into the mean of both, so padding (rows
    of weight 0), accumulation and the number of devices cannot change the result.

    Attributes:
        total: the sum of weight times value, a scalar; in an evaluation it may be a vector, such as
            one entry per class, see `train.evaluate`.
        weight: the sum of the weights, of the same shape.

    >>> float(Mean.of(jnp.array([1.0, 3.0])).merge(Mean.of(jnp.array([8.0]))).compute())
    4.0
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> "Mean":
        """Returns the mean of `values`, each counted by its weight (1 by default).

        Args:
            values: numbers or booleans of any shape, summed in float32 at least.
            weights: the weights, of the same shape. A value of weight 0 is ignored, even when it is
                not finite.
        """
        values = jnp.asarray(values)
        values = values.astype(at_least_float32(values.dtype))
        if weights is None:
            return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
        if values.shape != weights.shape:
            raise ValueError(f"values {values.shape} and weights {weights.shape} differ in shape")
        weights = weights.astype(values.dtype)
        return cls(jnp.where(weights == 0, 0, values * weights).sum(), weights.sum())

    def merge(self, other: "Mean") -> "Mean":
        """Returns the mean over the data of both means."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> jax.Array:
        """Returns the mean; NaN when nothing was counted."""
        return self.total / self.weight


class Rows(flax.struct.PyTreeNode):
    """Values that an evaluation keeps for each example, for metrics that are not means.

    An example is average precision, which needs the detections in all pictures together.

    Attributes:
        values: a tree of arrays with the leading axis B.
        weight: (B,), 0 for rows of padding, which are dropped.
    """

    values: PyTree
    weight: jax.Array


# Means by name.
Metrics: TypeAlias = dict[str, Mean]
# Of an evaluation, of which more than means can be kept.
Measures: TypeAlias = Mapping[str, Mean | Rows]


class TrainState(flax.struct.PyTreeNode):
    """The whole state of a run, apart from its flags: it continues bit for bit from a checkpoint.

    Attributes:
        step: how many steps were taken, an int32 scalar; also the number of the next batch.
        params: the parameters, which the optimizer changes.
        model_state: the state that the model itself changes, such as running statistics.
        opt_state: the state of the optimizer.
        rng: the key of the run; the key of a step is `fold_in(rng, step)`.
        carry: the values that each row of a batch passes to the same row of the next one, such as
            the state of a recurrent net that reads a long text in windows: a tree whose leaves have
            the leading axis of the batch. None where the rows of different batches are unrelated.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    rng: jax.Array
    carry: Any = None

    def __repr__(self) -> str:
        """Returns the count of numbers in each field, of which there may be millions."""
        parts = [f"step={self.step}"]
        for field in dataclasses.fields(self):
            leaves = jax.tree.leaves(getattr(self, field.name))
            if field.name != "step" and leaves:
                numbers = sum(int(np.size(leaf)) for leaf in leaves)
                parts.append(f"{field.name}=<{numbers:,} numbers in {len(leaves):,} arrays>")
        return f"{type(self).__name__}({', '.join(parts)})"

    @classmethod
    def create(
        cls,
        variables: Mapping[str, Any],
        tx: optax.GradientTransformation,
        rng: jax.Array,
        carry: Any = None,
    ) -> "TrainState":
        """Returns a state at step 0.

        Args:
            variables: the result of a Linen module's `init`: "params" and, where the model has
                any, the collections of its own state.
            tx: the optimizer.
            rng: the key of the run, a typed key.
            carry: the carry that the first batch starts from, for models that have one.
        """
        model_state = {name: value for name, value in variables.items() if name != "params"}
        params = variables["params"]
        return cls(jnp.zeros((), jnp.int32), params, model_state, tx.init(params), rng, carry)


class Aux(NamedTuple):
    """The results of a loss function beside the loss.

    Attributes:
        model_state: the model's state after this batch.
        metrics: further means over the batch.
        carry: the values that each row passes to the next batch.
    """

    model_state: Any
    metrics: Metrics
    carry: Any = None


# Takes (params, model_state, batch, rng); where the state has a carry, it is batch["carry"].
LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[Mean, Aux]]
# Takes one step: the next state, and means over the batch by name.
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# An evaluation changes nothing but the carry, which it gives beside the metrics.
MetricFn = Callable[[TrainState, Batch], tuple[Measures, Any]]


class Classifier(Protocol):
    """A Linen module that classifies images, or any other input in one array."""

    def __call__(self, inputs: jax.Array, /, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps inputs [B, ...] to logits [B, K] and every activation by name."""
        ...


class SequenceModel(Protocol):
    """A Linen module that reads padded token ids."""

    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to outputs [B, ...] and activations."""
        ...


class Generator(Protocol):
    """A model from which `dlcore.decode` draws or searches a sequence token by token."""

    def initial_carry(self, condition: Any, /, length: int | None = None) -> Carry:
        """Returns the carry before the first token, each leaf with leading axis B.

        Args:
            condition: B, the number of sequences, or the values that the B sequences depend on,
                such as a vector for each.
            length: the largest number of tokens that will be read, for models that need to know it.
        """
        ...

    def next_token(self, carry: Carry, token: jax.Array) -> tuple[Carry, jax.Array]:
        """Maps the carry and a token int [B] to the next carry and the next token's logits [B, V].

        Values of log P are valid logits too.
        """
        ...


class Translator(Protocol):
    """A Linen module that maps sequences to sequences.

    The encoded sources, called memory, are not part of the carry, so that the hypotheses of a beam
    search share them. With the memory bound, `next_token` is the `next_token` of a `Generator`.
    """

    def __call__(
        self,
        source: jax.Array,
        source_length: jax.Array,
        inputs: jax.Array,
        train: bool = False,
    ) -> tuple[PyTree, Activations]:
        """Maps sources int [B, S], their lengths int [B] and inputs int [B, T] to predictions."""
        ...

    def encode(self, source: jax.Array, source_length: jax.Array, train: bool = False) -> PyTree:
        """Maps sources int [B, S] and their lengths int [B] to the memory."""
        ...

    def decode(
        self, memory: Any, inputs: jax.Array, *, train: bool = False
    ) -> tuple[PyTree, Activations]:
        """Maps the memory and inputs int [B, T] to predictions and activations."""
        ...

    def initial_carry(self, memory: Any, length: int) -> Carry:
        """Returns the carry before the first of at most `length` tokens."""
        ...

    def next_token(self, carry: Carry, token: jax.Array, memory: Any) -> tuple[Carry, jax.Array]:
        """Maps the carry, tokens int [R] and the memory to the next carry and logits [R, V]."""
        ...
