"""Tags each token (many to many, aligned). Shapes: B batch, T time, F features, C tags."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dlcore.losses.crf import crf_log_likelihood, crf_viterbi
from dlcore.models.text.encoder import RecurrentEncoder
from dlcore.nn import Dense, Dropout
from dlcore.nn.sequences import length_mask
from dlcore.types import Activations


class Tagger(nn.Module):
    """A tagger with an encoder, dropout at the encoder's rate and a linear layer at each step.

    The linear layer computes the scores of the tags at each step, the emissions. They are the
    logits of a softmax, or the emissions of a conditional random field (Lample et al. 2016), which
    also scores pairs of neighbouring tags. The field's parameters are `transitions` (C, C), from
    the row's tag to the column's, `start` (C,) and `end` (C,), all zero at first.

        emissions, _ = tagger.apply(variables, tokens, lengths)
        tags = tagger.apply(variables, emissions, lengths, method="predict")

    Attributes:
        encoder: maps tokens to features.
        num_tags: C.
        crf: whether there is a conditional random field.
    """

    encoder: RecurrentEncoder
    num_tags: int
    crf: bool = False

    def setup(self) -> None:
        broadcast_dims = (1,) if self.encoder.variational else ()
        self.dropout = Dropout(self.encoder.dropout, broadcast_dims=broadcast_dims)
        self.output = Dense(self.num_tags)
        if self.crf:
            zeros, tags = nn.initializers.zeros_init(), self.num_tags
            self.scores = {
                "transitions": self.param("transitions", zeros, (tags, tags)),
                "start": self.param("start", zeros, (tags,)),
                "end": self.param("end", zeros, (tags,)),
            }

    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to emissions [B, T, C] and the activations.

        Raises:
            InputError: as for `RecurrentEncoder`.
        """
        x, activations = self.encoder(tokens, lengths, train)
        emissions = self.output(self.dropout(x, train))
        return emissions, activations | {"output": emissions}

    def losses(
        self, emissions: jax.Array, tags: jax.Array, lengths: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the negative log-likelihoods of the tags and their weights, for `Mean.of`.

        Args:
            emissions: [B, T, C].
            tags: int [B, T].
            lengths: int [B].
            weight: the weight of each row, float [B].

        Returns:
            Losses and weights: with a softmax [B, T] each, the weights 0 past the lengths; with a
            conditional random field [B] each, one loss for a whole sequence.
        """
        if self.crf:
            scores = self.scores_as(emissions)
            return -crf_log_likelihood(emissions, tags, lengths, **scores), weight
        mask = length_mask(lengths, tags.shape[1])
        losses = optax.softmax_cross_entropy_with_integer_labels(emissions, tags)
        return losses, jnp.where(mask, weight[:, None], 0)

    def predict(self, emissions: jax.Array, lengths: jax.Array) -> jax.Array:
        """Returns the likeliest tags or tag sequences, int32 [B, T], 0 past the lengths."""
        if self.crf:
            return crf_viterbi(emissions, lengths, **self.scores_as(emissions))[0]
        mask = length_mask(lengths, emissions.shape[1])
        return jnp.where(mask, emissions.argmax(-1), 0).astype(jnp.int32)

    def scores_as(self, emissions: jax.Array) -> dict[str, jax.Array]:
        """Returns the scores of the field in the type of the emissions, which may be wider."""
        return {name: score.astype(emissions.dtype) for name, score in self.scores.items()}
