"""The linear-chain conditional random field over tag sequences.

The score of the tags y of a sequence of length n is start[y_1] + sum_t emissions[t, y_t] +
sum_t transitions[y_t, y_t+1] + end[y_n]; its probability is exp(score) divided by the sum over all
C^n sequences (Lafferty et al. 2001; with these parameters, Lample et al. 2016). Values past a
sequence's length, even NaN, change neither results nor gradients. A sequence of length 0 has one
tagging, the empty one, with score 0. To forbid a transition, set its score to a large negative
value such as -1e4: with -inf the gradient is undefined where no path is left.

Shapes: B batch, T time, C tags.
"""

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32


def crf_log_likelihood(
    emissions: jax.Array,
    tags: jax.Array,
    lengths: jax.Array,
    *,
    transitions: jax.Array,
    start: jax.Array,
    end: jax.Array,
) -> jax.Array:
    """Returns log P(tags | emissions) in nats, [B]; its negative is the loss.

    Args:
        emissions: [B, T, C].
        tags: int [B, T].
        lengths: int [B], in 0..T.
        transitions: [C, C], from the row's tag to the column's.
        start: [C], the score of the first tag.
        end: [C], the score of the last tag.

    Raises:
        ValueError: when the shapes do not fit.

    >>> zeros = {"transitions": jnp.zeros((2, 2)), "start": jnp.zeros(2), "end": jnp.zeros(2)}
    >>> tags, lengths = jnp.array([[0, 1, 1]]), jnp.array([3])
    >>> log_p = crf_log_likelihood(jnp.zeros((1, 3, 2)), tags, lengths, **zeros)
    >>> jnp.exp(-log_p).round().tolist()  # one of 2^3 sequences
    [8.0]
    """
    log_partition = crf_log_partition(
        emissions, lengths, transitions=transitions, start=start, end=end
    )
    if tags.shape != emissions.shape[:2]:
        raise ValueError(f"tags {tags.shape} for emissions {emissions.shape}")
    emissions, mask = _masked(emissions, lengths)
    tags = jnp.where(mask, tags, 0)
    steps = jnp.take_along_axis(emissions, tags[..., None], axis=-1)[..., 0]
    steps = steps.at[:, 1:].add(jnp.where(mask[:, 1:], transitions[tags[:, :-1], tags[:, 1:]], 0))
    last = jnp.take_along_axis(tags, jnp.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
    ends = jnp.where(lengths > 0, start[tags[:, 0]] + end[last], 0)
    # A scan adds one term at a time: a reduction groups its terms by T, so that padding would
    # change the last bit.
    score, _ = jax.lax.scan(lambda total, step: (total + step, None), ends, steps.T)
    return score - log_partition


def crf_log_partition(
    emissions: jax.Array,
    lengths: jax.Array,
    *,
    transitions: jax.Array,
    start: jax.Array,
    end: jax.Array,
) -> jax.Array:
    """Returns log of the sum of exp(score) over all tag sequences, [B], by the forward algorithm.

    The gradient with respect to the emissions is the marginal probability of each tag at each step.

    Args:
        emissions: [B, T, C].
        lengths: int [B], in 0..T.
        transitions: [C, C], from the row's tag to the column's.
        start: [C], the score of the first tag.
        end: [C], the score of the last tag.

    Raises:
        ValueError: when the shapes do not fit.
    """
    _check(emissions, lengths, transitions, start, end)
    emissions, mask = _masked(emissions, lengths)

    def step(alpha: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        emission, real = now
        scores = alpha[:, :, None] + transitions[None]
        return jnp.where(real, jax.nn.logsumexp(scores, axis=1) + emission, alpha), None

    alpha, _ = jax.lax.scan(step, emissions[:, 0] + start[None], _steps(emissions, mask))
    return jnp.where(lengths > 0, jax.nn.logsumexp(alpha + end[None], axis=-1), 0)


def crf_viterbi(
    emissions: jax.Array,
    lengths: jax.Array,
    *,
    transitions: jax.Array,
    start: jax.Array,
    end: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Finds the tag sequence of the highest score by the Viterbi algorithm.

    Args:
        emissions: [B, T, C].
        lengths: int [B], in 0..T.
        transitions: [C, C], from the row's tag to the column's.
        start: [C], the score of the first tag.
        end: [C], the score of the last tag.

    Returns:
        The tags, int32 [B, T], 0 past the length, and the scores, [B].

    Raises:
        ValueError: when the shapes do not fit.

    >>> emissions = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
    >>> stay = jnp.array([[0.0, -9.0], [-9.0, 0.0]])
    >>> tags, scores = crf_viterbi(
    ...     emissions, jnp.array([2]), transitions=stay, start=jnp.zeros(2), end=jnp.zeros(2)
    ... )
    >>> tags.tolist(), scores.tolist()
    ([[1, 1]], [2.0])
    """
    _check(emissions, lengths, transitions, start, end)
    emissions, mask = _masked(emissions, lengths)
    stay = jnp.arange(len(start), dtype=jnp.int32)[None]

    def step(best: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        emission, real = now
        scores = best[:, :, None] + transitions[None]
        back_pointers = jnp.where(real, scores.argmax(1).astype(jnp.int32), stay)
        return jnp.where(real, scores.max(1) + emission, best), back_pointers

    def back(tag: jax.Array, back_pointers: jax.Array) -> tuple[jax.Array, jax.Array]:
        before = jnp.take_along_axis(back_pointers, tag[:, None], axis=1)[:, 0]
        return before, before

    best, back_pointers = jax.lax.scan(step, emissions[:, 0] + start[None], _steps(emissions, mask))
    final = best + end[None]
    last = final.argmax(-1).astype(jnp.int32)
    _, before = jax.lax.scan(back, last, back_pointers, reverse=True)
    tags = jnp.concatenate([before, last[None]]).T
    return jnp.where(mask, tags, 0), jnp.where(lengths > 0, final.max(-1), 0)


def _masked(emissions: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns emissions, float32 at least, 0 past the lengths, and their mask bool [B, T]."""
    mask = jnp.arange(emissions.shape[1])[None] < lengths[:, None]
    emissions = emissions.astype(at_least_float32(emissions.dtype))
    return jnp.where(mask[..., None], emissions, 0), mask


def _steps(emissions: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the steps after the first for a scan: [T - 1, B, C] and [T - 1, B, 1]."""
    return emissions[:, 1:].swapaxes(0, 1), mask[:, 1:, None].swapaxes(0, 1)


def _check(
    emissions: jax.Array,
    lengths: jax.Array,
    transitions: jax.Array,
    start: jax.Array,
    end: jax.Array,
) -> None:
    b, t, c = emissions.shape
    if (
        t < 1
        or lengths.shape != (b,)
        or transitions.shape != (c, c)
        or start.shape != (c,)
        or end.shape != (c,)
    ):
        raise ValueError(
            f"emissions {emissions.shape}, lengths {lengths.shape}, transitions "
            f"{transitions.shape}, start {start.shape} and end {end.shape} are not (B, T, C), "
            "(B,), (C, C), (C,) and (C,) with T >= 1"
        )
