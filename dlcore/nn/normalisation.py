"""Normalisation layers. Shapes: B batch, C channels (the last axis), `...` any axes between."""

import flax.linen as nn
import jax
from flax.typing import Initializer

from dlcore import parallel


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, for each channel.

    Training uses the mean and (biased) variance of the whole batch, which under pmap lies on all
    devices; under gradient accumulation it uses those of the micro-batch. Evaluation uses the
    running statistics in the collection `batch_stats`, which training updates by
    running = momentum * running + (1 - momentum) * batch. (PyTorch calls 1 - momentum the
    momentum.) The layer learns `scale` and `bias`, the paper's gamma and beta
    (Ioffe & Szegedy 2015).

    Attributes:
        momentum: the share of the old running statistics that is kept.
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
        # Flax computes statistics of float32 for narrower numbers too, by implicit promotions.
        with jax.numpy_dtype_promotion("standard"):
            return self._normalised(norm, x, train)

    def _normalised(self, norm: nn.BatchNorm, x: jax.Array, train: bool) -> jax.Array:
        if not train:
            return norm(x)
        # A CPU reduces over the first of two axes twice as fast as over all but the last of many.
        return norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)
