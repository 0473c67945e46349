"""The next-token function, the interface of all decoders. Shapes: R rows, V vocabulary."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.types import PyTree

Carry = TypeVar("Carry")
# Maps a model's carry and tokens int [R] to the next carry and the logits or log-probabilities
# [R, V] of the tokens after them. The function is pure, so that it can be scanned. Every leaf of
# the carry has leading axis R, because beam search gathers its rows.
NextToken = Callable[[Carry, jax.Array], tuple[Carry, jax.Array]]


def log_softmax(logits: jax.Array) -> jax.Array:
    """Turns the logits [..., V] of a model into log P in float32, as all decoders do."""
    return jax.nn.log_softmax(logits.astype(jnp.float32))


def ensemble(next_tokens: Sequence[NextToken[PyTree]]) -> NextToken[tuple[PyTree, ...]]:
    """Combines several models into one by the arithmetic mean of their probabilities.

    The carry of the ensemble is the tuple of the models' carries. The ensemble returns log P, or
    for a single model its logits. The models must share one vocabulary.

    Args:
        next_tokens: the models' next-token functions, at least one.

    Raises:
        InputError: without a model.

    >>> def constant(*probabilities):
    ...     return lambda carry, token: (carry, jnp.log(jnp.array([probabilities])))
    >>> mean = ensemble([constant(0.25, 0.75), constant(0.75, 0.25)])
    >>> _, log_probs = mean(((), ()), jnp.array([0]))
    >>> jnp.exp(log_probs).round(3).tolist()
    [[0.5, 0.5]]
    """
    if not next_tokens:
        raise InputError("an ensemble of 0 models predicts nothing; give 1 or more")

    def next_token(
        carries: tuple[PyTree, ...], token: jax.Array
    ) -> tuple[tuple[PyTree, ...], jax.Array]:
        steps = [f(carry, token) for f, carry in zip(next_tokens, carries, strict=True)]
        if len(steps) == 1:
            ((carry, logits),) = steps
            return (carry,), logits
        log_probs = jnp.stack([log_softmax(logits) for _, logits in steps])
        mean = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(steps))
        return tuple(carry for carry, _ in steps), mean

    return next_token
