"""Attention of recurrent decoders: pure functions that score the steps of a memory.

Like a recurrent cell, an attention has no state of its own: `init` draws its parameters, `prepare`
does the work that needs no query once per memory, and the call does the rest for any number of
queries. So one step of a scan, all steps at once and the hypotheses of a beam use the same
functions.

Padding of the memory, whatever it contains, changes nothing and has weights of exactly 0.

Shapes: B batch, Q queries, S memory steps, F query features, M memory features, A attention
features.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.nn.dense import multiply_rows
from dlcore.types import at_least_float32

Params = Mapping[str, jax.Array]
Product = Callable[[str, jax.Array], jax.Array]


class Attended(NamedTuple):
    """A memory that queries attend to.

    Attributes:
        values: [B, S, M], 0 at padding.
        keys: the vectors that queries are compared with, [B, S, A or F].
        mask: bool [B, S], false at padding.
    """

    values: jax.Array
    keys: jax.Array
    mask: jax.Array


class Queries(NamedTuple):
    """The queries of a decoder.

    Attributes:
        states: the decoder's states, [B, Q, F].
        positions: the step of each query, int [B, Q], from 0.
        covered: the sum of the weights of all earlier steps, [B, Q, S]; only for coverage.
    """

    states: jax.Array
    positions: jax.Array
    covered: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
    """An attention, which weighs the steps of a memory for each query and averages its values.

    Attributes:
        matrices: the names of the parameters that multiply queries, always through a `Product`.
        coverage: whether scores depend on the attention of earlier steps.
        normalised: whether the weights of a query sum to 1.
    """

    matrices: ClassVar[tuple[str, ...]] = ()
    coverage: ClassVar[bool] = False
    normalised: ClassVar[bool] = True

    def init(self, key: jax.Array, queries: int, memory: int) -> dict[str, jax.Array]:
        """Draws the parameters for F = `queries` and M = `memory`; none by default.

        Raises:
            InputError: when the attention cannot compare the two widths.
        """
        del key, queries, memory
        return {}

    def keys(self, params: Params, memory: jax.Array) -> jax.Array:
        """Returns the keys of the memory [B, S, M]; by default the memory itself."""
        del params
        return memory

    @abc.abstractmethod
    def scores(
        self, params: Params, queries: Queries, keys: jax.Array, product: Product
    ) -> jax.Array:
        """Scores each key for each query, [B, Q, S]."""

    def weights(
        self, params: Params, queries: Queries, scores: jax.Array, mask: jax.Array, product: Product
    ) -> jax.Array:
        """Turns scores into weights [B, Q, S], by default their softmax where the mask is true."""
        del params, queries, product
        return masked_softmax(scores, mask[:, None])

    def prepare(self, params: Params, memory: jax.Array, mask: jax.Array) -> Attended:
        """Computes all that depends only on the memory [B, S, M] and its mask bool [B, S]."""
        # A weight of 0 times padding that is not finite would be NaN.
        memory = jnp.where(mask[..., None], memory, 0)
        return Attended(memory, self.keys(params, memory), mask)

    def __call__(
        self,
        params: Params,
        queries: Queries,
        attended: Attended,
        *,
        product: Product | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Attends to the memory.

        Args:
            params: the parameters.
            queries: the queries.
            attended: the result of `prepare`.
            product: a replacement for (name, x) -> x @ params[name], for the names in `matrices`.

        Returns:
            The context of each query [B, Q, M] and its weights [B, Q, S], exactly 0 at padding.
            Both are 0 for a query that may attend to no step.
        """
        product = product or (lambda name, x: x @ params[name])
        scores = self.scores(params, queries, attended.keys, product)
        weights = self.weights(params, queries, scores, attended.mask, product)
        return jnp.einsum("bqs,bsm->bqm", weights, attended.values), weights


def masked_softmax(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the softmax over the last axis where the mask is true, exactly 0 where it is false.

    Args:
        scores: of any shape; the computation is in float32 at least.
        mask: bool with as many axes; where it is false everywhere, all weights are 0.

    >>> masked_softmax(jnp.zeros(3), jnp.array([True, False, True])).tolist()
    [0.5, 0.0, 0.5]
    """
    scores = scores.astype(at_least_float32(scores.dtype))
    lowest = jnp.finfo(scores.dtype).min
    return jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, lowest)), 0)


class Dot(Attention):
    """An attention with the scores s . h, where M is F (Luong et al. 2015, section 3.1)."""

    def init(self, key: jax.Array, queries: int, memory: int) -> dict[str, jax.Array]:
        if queries != memory:
            raise errors.InputError(
                f"dot attention compares states of one width, not the decoder's {queries} with the "
                f"encoder's {memory}; make them equal or choose general or additive attention"
            )
        return {}

    def scores(
        self, params: Params, queries: Queries, keys: jax.Array, product: Product
    ) -> jax.Array:
        return jnp.einsum("bqf,bsf->bqs", queries.states, keys)


class ScaledDot(Dot):
    """An attention with the scores s . h / sqrt(F), where M is F (Vaswani et al. 2017, eq. 1)."""

    def scores(
        self, params: Params, queries: Queries, keys: jax.Array, product: Product
    ) -> jax.Array:
        scores = super().scores(params, queries, keys, product)
        return scores * queries.states.shape[-1] ** -0.5


class General(Dot):
    """An attention with the scores s W h (Luong et al. 2015, section 3.1).

    Parameter: `memory_kernel` (M, F); W h is computed once per memory.
    """

    def init(self, key: jax.Array, queries: int, memory: int) -> dict[str, jax.Array]:
        return {"memory_kernel": nn.initializers.lecun_normal()(key, (memory, queries))}

    def keys(self, params: Params, memory: jax.Array) -> jax.Array:
        return multiply_rows(memory, params["memory_kernel"])


@dataclasses.dataclass(frozen=True)
class LocalMonotonic(General):
    """A general attention to memory steps at most D from the query's own step t.

    This is local-m of Luong et al. 2015, section 3.2. Queries more than D steps past the end of the
    memory attend to nothing.

    Attributes:
        window: D, at least 1.
    """

    window: int = 10

    normalised = False

    def weights(
        self, params: Params, queries: Queries, scores: jax.Array, mask: jax.Array, product: Product
    ) -> jax.Array:
        distances = jnp.arange(mask.shape[1])[None, None] - queries.positions[..., None]
        return masked_softmax(scores, (jnp.abs(distances) <= self.window) & mask[:, None])


@dataclasses.dataclass(frozen=True)
class LocalPredictive(General):
    """A general attention to steps at most D from a predicted p = S sigmoid(v . tanh(s W)).

    This is local-p of Luong et al. 2015, section 3.2, where S is the memory's length (eq. 9). The
    weights of the window are multiplied by exp(-(s - p)^2 / (2 sigma^2)), sigma = D / 2 (eq. 10),
    and not normalised again. As in the paper, steps count from 1 here.

    Parameters: `memory_kernel`, `position_kernel` (F, F), which is W, and `position_score_kernel`
    (F,), which is v.

    Attributes:
        window: D, at least 1.
    """

    window: int = 10

    normalised = False
    matrices = ("position_kernel",)

    def init(self, key: jax.Array, queries: int, memory: int) -> dict[str, jax.Array]:
        key, kernel_key, score_key = jax.random.split(key, 3)
        draw = nn.initializers.lecun_normal()
        return super().init(key, queries, memory) | {
            "position_kernel": draw(kernel_key, (queries, queries)),
            "position_score_kernel": draw(score_key, (queries, 1))[:, 0],
        }

    def weights(
        self, params: Params, queries: Queries, scores: jax.Array, mask: jax.Array, product: Product
    ) -> jax.Array:
        hidden = jnp.tanh(product("position_kernel", queries.states))
        shares = jax.nn.sigmoid(hidden @ params["position_score_kernel"])
        centres = mask.sum(1, dtype=shares.dtype)[:, None] * shares
        places = jnp.arange(1, mask.shape[1] + 1).astype(centres.dtype)
        distances = places[None, None] - centres[..., None]
        weights = masked_softmax(scores, (jnp.abs(distances) <= self.window) & mask[:, None])
        return weights * jnp.exp(-2 * (distances / self.window) ** 2)


@dataclasses.dataclass(frozen=True)
class Additive(Attention):
    """An attention whose scores are a net with one hidden layer, v . tanh(s W + h U + b).

    The source is Bahdanau et al. 2015, appendix A.1.2. Parameters: `query_kernel` (F, A),
    `memory_kernel` (M, A), `bias` (A,), `score_kernel` (A,). h U + b is computed once per memory.

    Attributes:
        features: A.
    """

    features: int = 256

    matrices = ("query_kernel",)

    def init(self, key: jax.Array, queries: int, memory: int) -> dict[str, jax.Array]:
        draw, size = nn.initializers.lecun_normal(), self.features
        query_key, memory_key, score_key = jax.random.split(key, 3)
        return {
            "query_kernel": draw(query_key, (queries, size)),
            "memory_kernel": draw(memory_key, (memory, size)),
            "bias": jnp.zeros(size),
            "score_kernel": draw(score_key, (size, 1))[:, 0],
        }

    def keys(self, params: Params, memory: jax.Array) -> jax.Array:
        return multiply_rows(memory, params["memory_kernel"]) + params["bias"][None, None]

    def scores(
        self, params: Params, queries: Queries, keys: jax.Array, product: Product
    ) -> jax.Array:
        # The gradient recomputes the hidden layers, which for all steps would be [B, Q, S, A].
        @jax.checkpoint
        def score(projected: jax.Array, keys: jax.Array, covered: jax.Array | None) -> jax.Array:
            hidden = projected[:, :, None] + keys[:, None]
            if covered is not None:
                hidden += covered[..., None] * params["coverage_kernel"][None, None, None]
            return jnp.tanh(hidden) @ params["score_kernel"]

        covered = queries.covered if self.coverage else None
        return score(product("query_kernel", queries.states), keys, covered)


class AdditiveCoverage(Additive):
    """An additive attention with coverage: its scores depend on the attention so far, c.

    They are v . tanh(s W + h U + c w + b) (See et al. 2017, eq. 11). Parameters beside those of
    `Additive`: `coverage_kernel` (A,), which is w and starts at 0.
    """

    coverage = True

    def init(self, key: jax.Array, queries: int, memory: int) -> dict[str, jax.Array]:
        params = super().init(key, queries, memory)
        return params | {"coverage_kernel": jnp.zeros(self.features)}
