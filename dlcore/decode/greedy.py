"""Greedy decoding. Shapes: B sentences, T steps, V vocabulary."""

import jax
import jax.numpy as jnp

from dlcore.decode.constraints import Constraints
from dlcore.decode.next_token import Carry, NextToken, log_softmax


def greedy(
    next_token: NextToken[Carry],
    carry: Carry,
    first: jax.Array,
    *,
    end: int,
    steps: int,
    min_length: int = 0,
    no_repeat: int | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Continues each row by its likeliest next token, up to the end token.

    Among equally likely tokens it takes the lowest id.

    Args:
        next_token: the model, see `NextToken`.
        carry: the model's carry before it reads `first`.
        first: the last known token of each row, int32 [B].
        end: the token that ends a sequence.
        steps: T, the largest number of tokens; the last of them can only be `end`.
        min_length: the smallest number of tokens, including the end token.
        no_repeat: the n of the n-grams that may not occur twice in a sequence; None allows all.

    Returns:
        The tokens int32 [B, T], with `end` and then zeros; their lengths int32 [B], including the
        end token; log P of the sequences float32 [B]. A row in which the constraints leave no token
        has length 0 and log P = -inf.

    Raises:
        InputError: see `Constraints`.

    >>> def countdown(carry, token):  # the likeliest next token is one less
    ...     return carry, jnp.eye(4)[token - 1]
    >>> tokens, lengths, _ = greedy(countdown, (), jnp.array([3]), end=0, steps=5)
    >>> tokens.tolist(), lengths.tolist()
    ([[2, 1, 0, 0, 0]], [3])
    """
    constraints = Constraints(end, steps, min_length, no_repeat)

    def unfinished(lengths: jax.Array, log_probs: jax.Array) -> jax.Array:
        return (lengths == 0) & (log_probs > -jnp.inf)

    def step(state: tuple) -> tuple:
        t, carry, token, tokens, lengths, log_probs = state
        carry, logits = next_token(carry, token)
        live = unfinished(lengths, log_probs)
        best, token = jax.lax.top_k(constraints.forbid(log_softmax(logits), tokens, t), 1)
        best, token = best[:, 0], token[:, 0]
        tokens = tokens.at[:, t].set(jnp.where(live, token, 0))
        log_probs = jnp.where(live, log_probs + best, log_probs)
        lengths = jnp.where(live & (token == end) & (best > -jnp.inf), t + 1, lengths)
        return t + 1, carry, token, tokens, lengths, log_probs

    batch = len(first)
    state = (
        jnp.zeros((), jnp.int32),
        carry,
        first.astype(jnp.int32),
        jnp.zeros((batch, steps), jnp.int32),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch),
    )
    state = jax.lax.while_loop(lambda state: unfinished(*state[-2:]).any(), step, state)
    _, _, _, tokens, lengths, log_probs = state
    finished = lengths > 0
    return (
        jnp.where(finished[:, None], tokens, 0),
        lengths,
        jnp.where(finished, log_probs, -jnp.inf),
    )
