"""Translation by a transformer (Vaswani et al. 2017).

Shapes: B batch, S source steps, T target steps, C channels, H heads, V target vocabulary, R rows
that decode: B times the beams.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.losses.output import Readout
from dlcore.losses.softmax import full_scores
from dlcore.models.text.prediction import Prediction
from dlcore.nn import Dropout
from dlcore.nn.attention.multihead import KeyValue
from dlcore.nn.embedding import Embedding
from dlcore.nn.sequences import length_mask
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.types import Activations, Carry


class EncodedSource(NamedTuple):
    """The output of the encoder for B sources, in the form that the decoder attends to.

    Attributes:
        keys_values: the keys and values for each block of the decoder, [B, groups, S, features of a
            head].
        mask: bool [B, S], true where the source is real.
        columns: the transposed kernel of the output layer [C, V]. A step of decoding has too few
            rows to make up for reading the kernel transposed, so it is transposed once.
    """

    keys_values: tuple[KeyValue, ...]
    mask: jax.Array
    columns: jax.Array


class TransformerTranslator(nn.Module):
    """A transformer with an encoder that sees the whole source and a causal decoder.

    The output layer's kernel is the table of the target embeddings (Press & Wolf 2017), and with
    `shared` vocabularies there is one table for all three.

    Attributes:
        config: the configuration of encoder and decoder.
        source_vocab_size: the number of source ids.
        target_vocab_size: V.
        shared: whether both sides have one vocabulary.
        dropout: the share of values dropped from the embeddings; `config` has the rate of the
            blocks.
        embedding_dropout: the share of words dropped whole, see `Embedding`.
    """

    config: TransformerConfig
    source_vocab_size: int
    target_vocab_size: int
    shared: bool = False
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def setup(self) -> None:
        features, rate = self.config.features, self.embedding_dropout
        self.target_embedding = Embedding(self.target_vocab_size, features, rate)
        if not self.shared:
            self.source_embedding = Embedding(self.source_vocab_size, features, rate)
        self.encoder = Transformer(self.config, causal=False)
        self.decoder = Transformer(self.config, reads_memory=True)
        zeros = nn.initializers.zeros_init()
        self.bias = self.param("output_bias", zeros, (self.target_vocab_size,))
        self.drop = Dropout(self.dropout)

    def encode(
        self, source: jax.Array, source_length: jax.Array, train: bool = False
    ) -> EncodedSource:
        """Reads sources int [B, S] of lengths int [B]; draws from the stream "dropout"."""
        table = self.target_embedding if self.shared else self.source_embedding
        _, y, _ = self.encoder(
            self._embedded(table, source, train), lengths=source_length, train=train
        )
        keys_values = self.decoder.project_keys_values(y)
        mask = length_mask(source_length, source.shape[1])
        return EncodedSource(keys_values, mask, self.target_embedding.table.T)

    def decode(
        self, memory: EncodedSource, inputs: jax.Array, *, train: bool = False
    ) -> tuple[Prediction, Activations]:
        """Predicts each target token from those before it.

        Args:
            memory: the encoded sources.
            inputs: int [B, T], the token before each that is predicted, the first <eos>.
            train: whether there is dropout.

        Returns:
            The prediction and the activations: those of `Transformer` and "attention", the weights
            of the highest block on the source [B, H, T, S].
        """
        _, prediction, activations = self._read(None, inputs, memory, train)
        return prediction, activations

    def __call__(
        self, source: jax.Array, source_length: jax.Array, inputs: jax.Array, train: bool = False
    ) -> tuple[Prediction, Activations]:
        """Encodes sources and predicts each target from the true tokens before it."""
        return self.decode(self.encode(source, source_length, train), inputs, train=train)

    def initial_carry(self, memory: EncodedSource, length: int) -> Carry:
        """Returns the carry before the first of at most `length` tokens; each leaf has B rows."""
        rows, steps = memory.mask.shape
        return {
            "decoder": self.decoder.initial_carry(rows, length),
            "coverage": jnp.zeros((rows, steps)),
        }

    def next_token(
        self, carry: Carry, token: jax.Array, memory: EncodedSource
    ) -> tuple[Carry, jax.Array]:
        """Maps the carry and tokens int [R] to the next carry and logits of the next tokens [R, V].

        The memory has B rows, each for R / B rows of tokens; see `MultiHeadAttention.attend`.
        """
        decoder, prediction, activations = self._read(
            carry["decoder"], token[:, None], memory, False
        )
        attended = activations["attention"].mean(1).reshape(len(token), -1)
        carry = {"decoder": decoder, "coverage": carry["coverage"] + attended}
        return carry, full_scores(prediction.readout.hidden[:, 0], memory.columns.T, self.bias)

    def coverage(self, carry: Carry, memory: EncodedSource) -> jax.Array:
        """Returns the attention to each source step so far, [R, S]; 1 at padding.

        It is the mean over the heads of the highest block.
        """
        sums = carry["coverage"]
        beams = len(sums) // len(memory.mask)
        return jnp.where(jnp.repeat(memory.mask, beams, axis=0), sums, 1.0)

    def _embedded(self, table: Embedding, tokens: jax.Array, train: bool) -> jax.Array:
        # Section 3.4: rows of length 1 are scaled to the length of what the blocks add to them.
        return self.drop(self.config.features**0.5 * table(tokens, train), train)

    def _read(
        self, carry: Carry, tokens: jax.Array, memory: EncodedSource, train: bool
    ) -> tuple[Carry, Prediction, Activations]:
        carry, y, activations = self.decoder(
            self._embedded(self.target_embedding, tokens, train),
            carry=carry,
            memory=memory.keys_values,
            memory_mask=memory.mask[:, None, None],
            train=train,
        )
        attention = activations[f"memory_{self.config.layers - 1}"]
        readout = Readout(y, self.target_embedding.table, self.bias)
        return carry, Prediction(readout), {**activations, "attention": attention}
