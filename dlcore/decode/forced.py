"""A model led along given sequences: their scores, and scheduled sampling.

Shapes: B rows, T steps, S source steps, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlcore.decode.next_token import Carry, NextToken, log_softmax
from dlcore.decode.objective import Objective
from dlcore.errors import InputError


def score_sequences(
    next_token: NextToken[Carry],
    carry: Carry,
    first: jax.Array,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    objective: Objective | None = None,
    coverage: Callable[[Carry], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What a search by the same objective would have given these sequences, such as references.

    Where a reference scores above what the search found, the search is at fault, else the model;
    log P alone would judge another objective than the one that was searched.

    Args:
        next_token: the model, see `NextToken`.
        carry: what the model carries when it comes to `first`.
        first: the token before each sequence, int32 [B].
        tokens: int [B, T], each with its end token; what follows it is ignored.
        lengths: int [B], from 1 to T, with the end token.
        objective: of the search; None for log P.
        coverage: as for `beam_search`.

    Returns:
        log P and the scores, each float32 [B].

    Raises:
        InputError: for a coverage penalty without the attention.
    """
    objective = objective or Objective()
    covered = None if coverage is None else coverage(carry)

    def step(state: tuple, given: tuple) -> tuple[tuple, None]:
        carry, log_probs, covered, previous = state
        t, token = given
        carry, logits = next_token(carry, previous)
        inside = t < lengths
        added = jnp.take_along_axis(log_softmax(logits), token[:, None], axis=-1)[:, 0]
        log_probs = jnp.where(inside, log_probs + added, log_probs)
        if coverage is not None:
            covered = jnp.where(inside[:, None], coverage(carry), covered)
        return (carry, log_probs, covered, token), None

    tokens = tokens.astype(jnp.int32)
    state = (carry, jnp.zeros(len(tokens)), covered, first.astype(jnp.int32))
    times = jnp.arange(tokens.shape[1])
    (_, log_probs, covered, _), _ = jax.lax.scan(step, state, (times, tokens.T))
    return log_probs, objective.score(log_probs, lengths, covered)


def scheduled_inputs(
    next_token: NextToken[Carry],
    carry: Carry,
    inputs: jax.Array,
    key: jax.Array,
    *,
    share: float | jax.Array,
    rows: jax.Array,
) -> jax.Array:
    """Inputs of which the model draws a share itself: scheduled sampling (Bengio et al. 2015).

    The first input stays. Each later one is, with probability `share`, drawn from what the model
    predicts after the inputs chosen so far, else the given one. No gradient flows through it.

    Args:
        next_token: the model, see `NextToken`.
        carry: what the model carries when it comes to the first input.
        inputs: of teacher forcing, int [B, T].
        key: of all draws.
        share: the probability of a drawn input, in [0, 1]; 1 - epsilon of the paper.
        rows: the position of each row in the global batch, int [B]; its draws depend on it and the
            key alone.

    Returns:
        int32 [B, T].

    Raises:
        InputError: for a share, not traced, outside [0, 1].
    """
    if isinstance(share, int | float) and not 0 <= share <= 1:
        raise InputError(f"share {share} of drawn inputs is not a probability; give one in [0, 1]")

    def draw(row: jax.Array, t: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        coin, token = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, row), t))
        return jax.random.bernoulli(coin, share), jax.random.categorical(token, logits)

    def step(state: tuple, given: tuple) -> tuple[tuple, jax.Array]:
        t, token = given
        carry, logits = jax.lax.stop_gradient(next_token(*state))
        drawn, own = jax.vmap(draw, (0, None, 0))(rows, t, log_softmax(logits))
        token = jnp.where(drawn, own.astype(jnp.int32), token)
        return (carry, token), token

    inputs = inputs.astype(jnp.int32)
    state = (jax.lax.stop_gradient(carry), inputs[:, 0])
    later = (jnp.arange(1, inputs.shape[1]), inputs[:, 1:].T)
    _, chosen = jax.lax.scan(step, state, later)
    return jnp.concatenate([inputs[:, :1], chosen.T], axis=1)
