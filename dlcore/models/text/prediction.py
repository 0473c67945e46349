"""The predictions of translators: the probability of each target token at each step.

Shapes: B batch, T target steps, S source steps, F features, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.losses.output import Readout
from dlcore.losses.softmax import full_scores, full_softmax


class Copy(NamedTuple):
    """The copying of a pointer network: how much of the source, and from where (See et al. 2017).

    Attributes:
        gate: p_gen [B, T], the probability that a token is generated and not copied (eq. 8).
        weights: the attention [B, T, S], 0 at padding.
        source: the ids of the source int [B, S], of the same vocabulary as the targets.
    """

    gate: jax.Array
    weights: jax.Array
    source: jax.Array


class Prediction(NamedTuple):
    """The distribution of the next token at each of B x T places.

    Attributes:
        readout: hidden states [B, T, F], kernel [V, F] and bias [V] of a softmax.
        copy: the copying that is mixed into it, or None.
    """

    readout: Readout
    copy: Copy | None = None


def log_probs(prediction: Prediction) -> jax.Array:
    """Returns log P of every token, [B, T, V], float32 or wider."""
    readout, copy = prediction
    batch, steps, features = readout.hidden.shape
    scores = full_scores(readout.hidden.reshape(-1, features), readout.kernel, readout.bias)
    logs = jax.nn.log_softmax(scores).reshape(batch, steps, -1)
    if copy is None:
        return logs
    rows = jnp.arange(batch)[:, None]
    copied = jnp.zeros((batch, logs.shape[-1], steps), logs.dtype)
    # A word that occurs twice in a source collects the attention of both places (eq. 9).
    copied = copied.at[rows, copy.source].add(copy.weights.swapaxes(1, 2).astype(logs.dtype))
    gate = copy.gate[..., None].astype(logs.dtype)
    mixed = gate * jnp.exp(logs) + (1 - gate) * copied.swapaxes(1, 2)
    return jnp.log(jnp.maximum(mixed, jnp.finfo(logs.dtype).tiny))


def nats(prediction: Prediction, targets: jax.Array) -> jax.Array:
    """Returns -log P(target), [B, T], for targets int [B, T]."""
    readout, copy = prediction
    if copy is not None:
        at_target = jnp.take_along_axis(log_probs(prediction), targets[..., None], axis=-1)
        return -at_target[..., 0]
    hidden = readout.hidden.reshape(-1, readout.hidden.shape[-1])
    return full_softmax(hidden, readout.kernel, readout.bias, targets.reshape(-1)).reshape(
        targets.shape
    )


def smoothed(prediction: Prediction, targets: jax.Array, share: float) -> jax.Array:
    """Returns the cross-entropy with label smoothing, [B, T].

    The target spreads `share` evenly over V (Szegedy et al. 2016, section 7), so the loss is
    (1 - share) times -log P(target) plus share times the mean of -log P over all tokens.
    """
    plain = nats(prediction, targets)
    if share == 0:
        return plain
    readout, copy = prediction
    if copy is not None:
        return (1 - share) * plain - share * log_probs(prediction).mean(-1)
    # -log P(v) is a normaliser less the score of v, so the mean over v needs only the mean score,
    # which is the score of the mean word.
    word = readout.kernel[targets] - readout.kernel.mean(0)[None, None]
    score = (readout.hidden * word).sum(-1) + readout.bias[targets] - readout.bias.mean()
    return plain + share * score
