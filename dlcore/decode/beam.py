"""Beam search.

Shapes: B sentences, W slots of the beam, G groups of them, M = W / G slots of a group, N hypotheses
returned, T steps, V vocabulary, S source steps, K = min(M, V), R = B W rows of the model: row
b W + w is slot w of sentence b.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.decode.constraints import Constraints
from dlcore.decode.next_token import Carry, NextToken, log_softmax
from dlcore.decode.objective import Objective
from dlcore.errors import InputError


class Hypotheses(NamedTuple):
    """The sequences that a search found, best first.

    Attributes:
        tokens: int32 [B, N, T], each with its end token and then zeros.
        lengths: int32 [B, N] with the end token; 0 where there is no hypothesis.
        log_probs: log P, float32 [B, N]; -inf where there is no hypothesis.
        scores: the objective, float32 [B, N]; -inf where there is no hypothesis.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probs: jax.Array
    scores: jax.Array


class _Beam(Hypotheses):
    """The W slots; length 0 marks an unfinished hypothesis, or with log P = -inf an empty slot."""

    @property
    def live(self) -> jax.Array:
        return (self.lengths == 0) & (self.log_probs > -jnp.inf)


def beam_search(
    next_token: NextToken[Carry],
    carry: Carry,
    first: jax.Array,
    *,
    end: int,
    width: int,
    steps: int,
    n_best: int = 1,
    objective: Objective | None = None,
    min_length: int = 0,
    no_repeat: int | None = None,
    coverage: Callable[[Carry], jax.Array] | None = None,
    groups: int = 1,
    diversity: float = 0.0,
) -> Hypotheses:
    """Searches for the sequences that maximise an objective, following the best W at a time.

    The beam of a sentence has W slots. A finished hypothesis keeps its slot and leaves fewer to the
    live ones, so that width 1 is greedy search under every objective. Each step fills the other
    slots with the best extensions of the live hypotheses by log P. Among equal values, the earlier
    hypothesis comes first, then its likelier token, then the lower token id. The last of T tokens
    can only be `end`, so that every hypothesis is a whole sequence with its true probability.

    A sentence stops when no hypothesis is live, or when `Objective.bound` shows that none can beat
    the N-th best finished one. Stopping early never changes the result, and a larger N never
    changes the best hypothesis.

    With G groups (diverse beam search, Vijayakumar et al. 2018, algorithm 1) the slots are cut into
    G beams of M = W / G, which are extended one after another at each step: a token counts
    `diversity` less for each hypothesis of an earlier group that got the same token at this step
    (Hamming diversity). This affects which extensions are kept, but not their log P. A sequence
    that two groups find counts as one hypothesis.

    Args:
        next_token: the model, see `NextToken`; called with R rows.
        carry: the model's carry before it reads `first`, every leaf with leading axis B.
        first: the last known token of each sentence, int32 [B].
        end: the token that ends a sequence.
        width: W, at least 1; with W >= V^T the search is exhaustive.
        steps: T, the largest number of tokens in a sequence.
        n_best: N, from 1 to W.
        objective: the objective to maximise; None for log P.
        min_length: the smallest number of tokens, including the end token.
        no_repeat: the n of the n-grams that may not occur twice in a hypothesis; None allows all.
        coverage: maps the carry after a step to the attention of each source step, summed over the
            target steps so far [R, S], 1 at padding; needed for the objective's coverage penalty.
        groups: G, a divisor of W; 1 is ordinary beam search.
        diversity: the paper's lambda, in nats, 0 or more.

    Raises:
        InputError: for a width below 1, N outside 1..W, groups that do not divide the width, a
            diversity below 0, a coverage penalty without `coverage`, or values that `Constraints`
            does not allow.
        ValueError: for a carry with a leaf whose leading axis is not B.

    >>> chances = jnp.log(jnp.array([[0.0, 0.6, 0.4], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]))
    >>> def next_token(carry, token):  # a Markov chain whose token 0 ends a sequence
    ...     return carry, chances[token]
    >>> first = jnp.array([0])
    >>> for width in 1, 3:
    ...     best = beam_search(next_token, (), first, end=0, width=width, steps=4)
    ...     best.tokens[0, 0].tolist(), round(float(jnp.exp(best.scores[0, 0])), 3)
    ([1, 0, 0, 0], 0.3)
    ([2, 0, 0, 0], 0.36)
    """
    if width < 1:
        raise InputError(f"beam width {width} is not possible; give 1 (greedy) or more")
    if not 1 <= n_best <= width:
        raise InputError(
            f"{n_best} hypotheses cannot come out of a beam of width {width}; "
            f"ask for 1 to {width}, or widen the beam"
        )
    if groups < 1 or width % groups:
        raise InputError(
            f"{groups} groups do not divide a beam of width {width}; give a divisor of it"
        )
    if not 0 <= diversity < jnp.inf:
        raise InputError(f"diversity {diversity} is not a number of nats; give 0 or more")
    constraints = Constraints(end, steps, min_length, no_repeat)
    objective = objective or Objective()
    batch = len(first)
    rows, size = batch * width, width // groups
    sentences = jnp.arange(batch)[:, None]

    def tiled(leaf: jax.Array) -> jax.Array:
        if leaf.shape[:1] != (batch,):
            raise ValueError(f"a leaf {leaf.shape} of the carry has not leading axis {batch}")
        return jnp.repeat(leaf, width, axis=0)

    def step(
        state: tuple[jax.Array, Carry, jax.Array, _Beam],
    ) -> tuple[jax.Array, Carry, jax.Array, _Beam]:
        t, carry, token, beam = state
        carry, logits = next_token(carry, token)
        allowed = constraints.forbid(log_softmax(logits), beam.tokens.reshape(rows, steps), t)
        allowed = allowed.reshape(batch, width, -1)
        taken = jnp.zeros((batch, allowed.shape[-1]))
        chosen = []
        for group in range(groups):
            slots = slice(group * size, (group + 1) * size)
            own = _Beam(*(x[:, slots] for x in beam))
            key, parent, word = _extend(own, allowed[:, slots], diversity * taken)
            chosen.append((key, parent + group * size, word))
            # Slots that do not grow have the word 0.
            taken = taken.at[sentences, word].add(jnp.isfinite(key).astype(taken.dtype))
        key, parent, word = (jnp.concatenate(parts, axis=1) for parts in zip(*chosen, strict=True))

        row = (parent + width * sentences).reshape(rows)
        carry = jax.tree.map(lambda leaf: leaf[row], carry)
        beam = _Beam(*(x[sentences, parent] for x in beam))
        grown = jnp.isfinite(key)
        tokens = beam.tokens.at[:, :, t].set(jnp.where(grown, word, 0))
        lengths = jnp.where(grown & (word == end), t + 1, beam.lengths)
        longer = beam.log_probs + allowed[sentences, parent, word]
        log_probs = jnp.where(key == jnp.inf, beam.log_probs, jnp.where(grown, longer, -jnp.inf))
        covered = None if coverage is None else coverage(carry).reshape(batch, width, -1)
        score = objective.score(log_probs, t + 1, covered)
        scores = jnp.where(lengths > beam.lengths, score, beam.scores)
        if groups > 1:
            scores = jnp.where(_found_before(tokens, lengths), -jnp.inf, scores)
        beam = _Beam(tokens, lengths, log_probs, scores)

        worst = jax.lax.top_k(scores, n_best)[0][:, -1]
        bound = jnp.where(beam.live, objective.bound(log_probs, steps), -jnp.inf).max(-1)
        stopped = (bound <= worst)[:, None] & (lengths == 0)
        beam = beam._replace(log_probs=jnp.where(stopped, -jnp.inf, log_probs))
        return t + 1, carry, word.reshape(rows), beam

    nothing = jnp.full((batch, width), -jnp.inf)
    beam = _Beam(
        jnp.zeros((batch, width, steps), jnp.int32),
        jnp.zeros((batch, width), jnp.int32),
        nothing.at[:, ::size].set(0),  # Each group starts from one hypothesis.
        nothing,
    )
    token = tiled(first.astype(jnp.int32))
    state = (jnp.zeros((), jnp.int32), jax.tree.map(tiled, carry), token, beam)
    beam = jax.lax.while_loop(lambda state: state[-1].live.any(), step, state)[-1]

    if groups > 1:
        repeated = _found_before(beam.tokens, beam.lengths)
        beam = beam._replace(lengths=jnp.where(repeated, 0, beam.lengths))
    best = jax.lax.top_k(beam.scores, n_best)[1]
    beam = _Beam(*(x[sentences, best] for x in beam))
    finished = beam.lengths > 0
    return Hypotheses(
        jnp.where(finished[..., None], beam.tokens, 0),
        beam.lengths,
        jnp.where(finished, beam.log_probs, -jnp.inf),
        beam.scores,
    )


def _extend(
    beam: _Beam, allowed: jax.Array, penalty: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Chooses the hypotheses that fill the M slots of one group after a step.

    Args:
        beam: the slots of the group.
        allowed: log P of each next token [B, M, V], -inf where the constraints forbid it.
        penalty: the amount subtracted from the tokens' log P for the choice [B, V].

    Returns:
        The value by which each new slot was chosen [B, M], +inf for a finished hypothesis that
        stays and -inf for an empty slot, its parent among the slots, and its new word, 0 where
        there is none.
    """
    batch, size, vocab = allowed.shape
    # At most M extensions of one row can be among the best M of all.
    count = min(size, vocab)
    best, words = jax.lax.top_k(allowed - penalty[:, None], count)
    # NaN is not > -inf, so it is no extension either.
    possible = beam.live[..., None] & (best > -jnp.inf)
    extended = jnp.where(possible, beam.log_probs[..., None] + best, -jnp.inf)
    # Slots precede extensions: +inf keeps finished hypotheses, in their order.
    keys = [jnp.where(beam.lengths > 0, jnp.inf, -jnp.inf), extended.reshape(batch, -1)]
    key, choice = jax.lax.top_k(jnp.concatenate(keys, axis=1), size)
    extension = jnp.maximum(choice - size, 0)
    parent = jnp.where(choice < size, choice, extension // count)
    word = jnp.take_along_axis(words.reshape(batch, -1), extension, axis=1)
    return key, parent, jnp.where(jnp.isfinite(key), word, 0)


def _found_before(tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns which finished hypotheses are in an earlier slot as well, bool [B, W]."""
    same = (tokens[:, :, None] == tokens[:, None]).all(-1) & (lengths[:, :, None] > 0)
    same &= lengths[:, :, None] == lengths[:, None]
    return jnp.tril(same, -1).any(-1)
