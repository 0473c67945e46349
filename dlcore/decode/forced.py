"""Teacher forcing: scores of given sequences, and scheduled sampling.

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
    """Scores given sequences, such as references, by the objective of a search.

    If a reference scores higher than the hypothesis that the search returned, the search is at
    fault, else the model; comparing log P would use another objective than the search.

    Args:
        next_token: the model, see `NextToken`.
        carry: the model's carry before it reads `first`.
        first: the token before each sequence, int32 [B].
        tokens: int [B, T], each with its end token; tokens after it are ignored.
        lengths: int [B], from 1 to T, including the end token.
        objective: the objective of the search; None for log P.
        coverage: as for `beam_search`.

    Returns:
        log P and the scores, each float32 [B].

    Raises:
        InputError: for a coverage penalty without `coverage`.

    >>> def coin(carry, token):  # tokens 0 and 1 are equally likely
    ...     return carry, jnp.zeros((len(token), 2))
    >>> tokens, lengths = jnp.array([[1, 1, 0]]), jnp.array([3])
    >>> log_probs, _ = score_sequences(coin, (), jnp.array([0]), tokens, lengths)
    >>> jnp.exp(log_probs).tolist()
    [0.125]
    """
    objective = objective or Objective()
    covered = None if coverage is None else coverage(carry)

    def step(
        state: tuple[Carry, jax.Array, jax.Array | None, jax.Array],
        now: tuple[jax.Array, jax.Array],
    ) -> tuple[tuple[Carry, jax.Array, jax.Array | None, jax.Array], None]:
        carry, log_probs, covered, previous = state
        t, token = now
        carry, logits = next_token(carry, previous)
        inside = t < lengths
        added = jnp.take_along_axis(log_softmax(logits), token[:, None], axis=-1)[:, 0]
        log_probs = jnp.where(inside, log_probs + added, log_probs)
        if coverage is not None and covered is not None:
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
    """Replaces a share of the inputs by draws from the model (scheduled sampling).

    The first input stays. With probability `share`, the model draws a later input from its
    prediction after the inputs chosen so far (Bengio et al. 2015). No gradient flows through it.

    Args:
        next_token: the model, see `NextToken`.
        carry: the model's carry before it reads the first input.
        inputs: the inputs of teacher forcing, int [B, T].
        key: the key of all draws.
        share: the probability of a drawn input, in [0, 1]; 1 - epsilon of the paper.
        rows: the position of each row in the global batch, int [B]; the draws of a row depend on
            this and the key alone.

    Returns:
        The inputs, int32 [B, T].

    Raises:
        InputError: for a share outside [0, 1], unless it is traced.
    """
    if isinstance(share, int | float) and not 0 <= share <= 1:
        raise InputError(f"share {share} of drawn inputs is not a probability; give one in [0, 1]")

    def draw(row: jax.Array, t: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        coin, token = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, row), t))
        return jax.random.bernoulli(coin, share), jax.random.categorical(token, logits)

    def step(
        state: tuple[Carry, jax.Array], now: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Carry, jax.Array], jax.Array]:
        t, token = now
        carry, logits = jax.lax.stop_gradient(next_token(*state))
        replace, drawn = jax.vmap(draw, (0, None, 0))(rows, t, log_softmax(logits))
        token = jnp.where(replace, drawn.astype(jnp.int32), token)
        return (carry, token), token

    inputs = inputs.astype(jnp.int32)
    state = (jax.lax.stop_gradient(carry), inputs[:, 0])
    later = (jnp.arange(1, inputs.shape[1]), inputs[:, 1:].T)
    _, chosen = jax.lax.scan(step, state, later)
    return jnp.concatenate([inputs[:, :1], chosen.T], axis=1)
