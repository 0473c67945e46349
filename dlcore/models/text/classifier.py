"""Classifies texts (many to one). Shapes: B batch, T time, F features, K classes."""

import flax.linen as nn
import jax

from dlcore.models.text.encoder import RecurrentEncoder
from dlcore.models.text.pooling import pooled
from dlcore.nn import Dense, Dropout
from dlcore.types import Activations


class TextClassifier(nn.Module):
    """A classifier with an encoder, one vector pooled from all steps, dropout and a linear layer.

    It uses the encoder's dropout rate.

    Attributes:
        encoder: maps tokens to features.
        num_classes: K.
        pooling: one of `POOLINGS`; "last" is the final output of each direction.
    """

    encoder: RecurrentEncoder
    num_classes: int
    pooling: str = "last"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to logits [B, K] and the activations by name.

        "attention", where there is one, holds the weights of the steps [B, T]. A text of length 0
        has the logits of a pooled vector of zeros.

        Raises:
            InputError: as for `pooled` and `RecurrentEncoder`.
        """
        x, activations = self.encoder(tokens, lengths, train)
        directions = self.encoder.merge if self.encoder.bidirectional else None
        x, of_pooling = pooled(self.pooling, x, lengths, directions=directions)
        activations |= of_pooling
        x = Dropout(self.encoder.dropout)(x, train)
        activations["output"] = logits = Dense(self.num_classes, name="output")(x)
        return logits, activations
