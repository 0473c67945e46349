"""Encodes tokens as features at each step, for models that read a whole text.

Shapes: B batch, T time, D embedding features, F features of the highest layer.
"""

import flax.linen as nn
import jax

from dlcore.nn import Dropout
from dlcore.nn.embedding import Embedding
from dlcore.nn.recurrent.cell import Cell
from dlcore.nn.recurrent.layers import RecurrentStack
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.types import Activations


class RecurrentEncoder(nn.Module):
    """An embedding and recurrent layers.

    Attributes:
        vocab_size: the number of token ids.
        embedding_features: D.
        cells: the cell of each layer, from the lowest up.
        bidirectional: whether each layer runs in both directions.
        merge: the merge of the outputs of both directions, one of `MERGES`.
        residual: whether each layer except the lowest adds its input to its output.
        dropout: the share of values that is dropped before each layer.
        variational: whether dropout drops the same features at all steps (Gal & Ghahramani 2016).
        embedding_dropout: the share of words that is dropped, see `Embedding`.
        state_dropout: see `Recurrent`.
        candidate_dropout: see `Recurrent`.
    """

    vocab_size: int
    embedding_features: int
    cells: tuple[Cell, ...]
    bidirectional: bool = False
    merge: str = "concat"
    residual: bool = False
    dropout: float = 0.0
    variational: bool = False
    embedding_dropout: float = 0.0
    state_dropout: float = 0.0
    candidate_dropout: float = 0.0

    @nn.compact
    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to features; draws from the stream "dropout".

        Returns:
            The features [B, T, F], 0 past the lengths, and the activations by name: "embedding",
            "layer_0", ...

        Raises:
            InputError: when a rate of dropout is outside [0, 1], or for an unknown merge.
            ValueError: when residual layers differ in width.
        """
        embedding = Embedding(
            self.vocab_size,
            self.embedding_features,
            dropout=self.embedding_dropout,
            name="embedding",
        )
        stack = RecurrentStack(
            self.cells,
            bidirectional=self.bidirectional,
            merge=self.merge,
            residual=self.residual,
            dropout=self.dropout,
            variational=self.variational,
            state_dropout=self.state_dropout,
            candidate_dropout=self.candidate_dropout,
            name="stack",
        )
        embedded = embedding(tokens, train)
        broadcast_dims = (1,) if self.variational else ()
        x = Dropout(self.dropout, broadcast_dims=broadcast_dims)(embedded, train)
        _, y, activations = stack(x, lengths=lengths, train=train)
        return y, {"embedding": embedded, **activations}


class TransformerEncoder(nn.Module):
    """An embedding and a transformer in which each step sees the whole text.

    Attributes:
        vocab_size: the number of token ids.
        config: the options of the blocks; their width is also the width of the embedding.
        dropout: the share of values dropped from the embeddings; `config` has the rate of the
            blocks.
        embedding_dropout: the share of words that is dropped, see `Embedding`.
    """

    vocab_size: int
    config: TransformerConfig
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    @nn.compact
    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to features, as `RecurrentEncoder` does.

        Past the lengths the features [B, T, F] belong to padding, which no other step sees.
        """
        features = self.config.features
        embedding = Embedding(
            self.vocab_size, features, dropout=self.embedding_dropout, name="embedding"
        )
        # As in `TransformerTranslator`.
        embedded = features**0.5 * embedding(tokens, train)
        x = Dropout(self.dropout)(embedded, train)
        blocks = Transformer(self.config, causal=False, name="stack")
        _, y, activations = blocks(x, lengths=lengths, train=train)
        return y, {"embedding": embedded, **activations}
