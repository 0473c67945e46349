"""The predictions of translators: the probability of each target token at each step.

Shapes: B batch, T target steps, S source steps, F features, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.losses.output import Readout
from dlcore.losses.softmax import full_scores, nats_and_log_z, z_loss


class Copy(NamedTuple):
    """The copying of a pointer network: its share, and the weights of the source (See et al. 2017).

    Attributes:
        gate: p_gen [B, T], the probability that a token is generated and not copied (eq. 8).
        weights: the attention [B, T, S], 0 at padding.
        source: the ids of the source int [B, S], of the same vocabulary as the targets.
    """

    gate: jax.Array
    weights: jax.Array
    source: jax.Array


class Prediction(NamedTuple):
    """The distribution of the next token at each of B x T positions.

    Attributes:
        readout: hidden states [B, T, F], kernel [V, F] and bias [V] of a softmax.
        copy: the copying that is mixed into it, or None.
    """

    readout: Readout
    copy: Copy | None = None


def log_probs(prediction: Prediction, columns: jax.Array | None = None) -> jax.Array:
    """Returns log P of every token, [B, T, V], float32 or wider.

    Args:
        prediction: the prediction.
        columns: the transposed kernel [F, V], if it was made before a loop over steps: each step
            has too few rows to make up for reading the kernel transposed.
    """
    readout, copy = prediction
    batch, steps, features = readout.hidden.shape
    kernel = readout.kernel if columns is None else columns.T
    scores = full_scores(readout.hidden.reshape(-1, features), kernel, readout.bias)
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
    return _of_softmax(readout, targets)[0]


def training_losses(
    prediction: Prediction, targets: jax.Array, *, smoothing: float = 0.0, z_weight: float = 0.0
) -> jax.Array:
    """Returns the cross-entropy with label smoothing and the z-loss, [B, T].

    Args:
        prediction: the prediction of the targets.
        targets: int [B, T].
        smoothing: the share of the target that is spread evenly over V (Szegedy et al. 2016,
            section 7): the cross-entropy is (1 - smoothing) times -log P(target) plus smoothing
            times the mean of -log P over all tokens.
        z_weight: the weight of `losses.softmax.z_loss`, whose Z is the softmax's, before copying is
            mixed in.
    """
    losses = _smoothed(prediction, targets, smoothing)
    if not z_weight:
        return losses
    return losses + z_loss(_of_softmax(prediction.readout, targets)[1], z_weight)


def _smoothed(prediction: Prediction, targets: jax.Array, share: float) -> jax.Array:
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


def _of_softmax(readout: Readout, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns -log P(target) and log Z of the softmax, [B, T] each."""
    hidden = readout.hidden.reshape(-1, readout.hidden.shape[-1])
    found = nats_and_log_z(hidden, readout.kernel, readout.bias, targets.reshape(-1))
    nats, log_z = (terms.reshape(targets.shape) for terms in found)
    return nats, log_z
