"""The feed-forward net of a transformer block. Shapes: B batch, T steps, C channels, F hidden."""

import flax.linen as nn
import jax

from dlcore.nn.activations import ACTIVATIONS, LEARNED, activation
from dlcore.nn.dense import Dense

# Feed-forward nets whose first layer is gated by a second one (Shazeer 2020).
GATED = {"glu": "sigmoid", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}
FEED_FORWARDS = (*ACTIVATIONS, *LEARNED, *GATED)


class FeedForward(nn.Module):
    """Two dense layers, applied to each step separately: C -> F -> C (Vaswani et al. 2017, eq. 2).

    Parameters: kernels `up` (C, F), `down` (F, C) and, with a gated activation, `gate` (C, F);
    their biases if `bias`; `activation/negative_slope` (F,) with the activation "prelu".

    Attributes:
        hidden: F.
        activation: one of `ACTIVATIONS` or `LEARNED`, or of `GATED`:
            activation(x W_gate) * (x W_up).
        bias: whether the layers have biases.
    """

    hidden: int
    activation: str
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, C] to [B, T, C]."""
        up = Dense(self.hidden, use_bias=self.bias, name="up")(x)
        if self.activation in GATED:
            gate = Dense(self.hidden, use_bias=self.bias, name="gate")(x)
            hidden = activation(GATED[self.activation])(gate) * up
        else:
            hidden = activation(self.activation, layer="activation")(up)
        # Branches that start as 0 make the whole net start as the identity, which trains at any
        # depth (Bachlechner et al. 2021).
        zeros = nn.initializers.zeros_init()
        return Dense(x.shape[-1], use_bias=self.bias, kernel_init=zeros, name="down")(hidden)
