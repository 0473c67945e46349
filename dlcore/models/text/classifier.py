"""Classifies texts (many to one). Shapes: B batch, T time, F features, K classes."""

import flax.linen as nn
import jax

from dlcore import errors
from dlcore.models.text.encoder import RecurrentEncoder
from dlcore.nn import Dense, Dropout
from dlcore.nn.sequences import AttentionPooling, last_over_time, max_over_time, mean_over_time
from dlcore.types import Activations

POOLINGS = ("last", "max", "mean", "attention")


class TextClassifier(nn.Module):
    """A classifier: recurrent layers, one vector pooled from all steps, dropout, a linear layer.

    The rate of dropout is the encoder's.

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
            InputError: for an unknown pooling, for "last" of directions that are not side by side,
                and as `RecurrentEncoder`.
        """
        x, activations = self.encoder(tokens, lengths, train)
        match self.pooling:
            case "last":
                if self.encoder.bidirectional and self.encoder.merge != "concat":
                    raise errors.InputError(
                        f"the final outputs of both directions cannot be told from their "
                        f"{self.encoder.merge}; merge them by concat, or pool by max or mean"
                    )
                x = last_over_time(x, lengths, bidirectional=self.encoder.bidirectional)
            case "max":
                x = max_over_time(x, lengths)
            case "mean":
                x = mean_over_time(x, lengths)
            case "attention":
                x, activations["attention"] = AttentionPooling(name="pooling")(x, lengths)
            case _:
                raise errors.choose("pooling", self.pooling, POOLINGS)
        activations["pooled"] = x
        x = Dropout(self.encoder.dropout)(x, train)
        activations["output"] = logits = Dense(self.num_classes, name="output")(x)
        return logits, activations
