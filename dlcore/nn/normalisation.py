"""Normalisation layers. Shapes: B batch, C channels (the last axis), `...` any axes between."""

import flax.linen as nn
import jax
from flax.typing import Initializer

from dlcore import parallel


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, for each channel.

    In training, mean and (biased) variance are those of the whole batch, under pmap of the batch
    on all devices; under gradient accumulation they are those of the micro-batch. In evaluation
    they are the running ones in the collection `batch_stats`, which follow the batch's in training:
    running = momentum * running + (1 - momentum) * batch. The other convention calls 1 - momentum
    the momentum. `scale` and `bias`, the paper's gamma and beta, are learned
    (Ioffe & Szegedy 2015).

    Attributes:
        momentum: the share of the old running statistics that stays.
        epsilon: added to the variance.
        scale_init: draws the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, ..., C) to (B, ..., C)."""
        norm = nn.BatchNorm(
            use_running_average=not train,
            axis_name=parallel.axis_name(),
            momentum=self.momentum,
            epsilon=self.epsilon,
            scale_init=self.scale_init,
        )
        nn.share_scope(self, norm)
        if not train:
            return norm(x)
        # Over the first of two axes a CPU reduces twice as fast as over all but the last of many.
        return norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)
