"""The function that every decoder asks for the next token. Shapes: R rows, V vocabulary."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dlcore.errors import InputError

Carry = TypeVar("Carry")
# Maps what a model carries from token to token and the tokens int [R] to the next carry and the
# logits or log-probabilities [R, V] of the tokens after them. Pure, so that it can be scanned.
# Every leaf of the carry has leading axis R, for beam search gathers its rows.
NextToken = Callable[[Carry, jax.Array], tuple[Carry, jax.Array]]


def log_softmax(logits: jax.Array) -> jax.Array:
    """What all decoders make of the logits [..., V] of a model: log P, in float32."""
    return jax.nn.log_softmax(logits.astype(jnp.float32))


def ensemble(next_tokens: Sequence[NextToken[Any]]) -> NextToken[tuple]:
    """One model out of several: the arithmetic mean of their probabilities.

    The carry of the ensemble is the tuple of their carries, and it gives log P. The models share
    one vocabulary.

    Args:
        next_tokens: of the models, at least one.

    Raises:
        InputError: without a model.
    """
    if not next_tokens:
        raise InputError("an ensemble of 0 models predicts nothing; give 1 or more")

    def next_token(carries: tuple, token: jax.Array) -> tuple[tuple, jax.Array]:
        steps = [f(carry, token) for f, carry in zip(next_tokens, carries, strict=True)]
        log_probs = jnp.stack([log_softmax(logits) for _, logits in steps])
        mean = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(steps))
        return tuple(carry for carry, _ in steps), mean

    return next_token
