"""Classifies the nodes of trees.

Shapes: B batch, L leaves, S steps, W nodes of a step, C children, K classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.nn import Dense, Dropout
from dlcore.nn.embedding import Embedding
from dlcore.nn.tree import TreeCell, TreeRecursion
from dlcore.types import Activations


class TreeClassifier(nn.Module):
    """An embedding, a recursive network, and one linear layer for the vectors of all nodes.

    Attributes:
        vocab_size: the number of word ids.
        embedding_features: the width of a word.
        cell: the cell of the recursive network.
        num_classes: K.
        dropout: the share of values dropped from the vectors of nodes before the linear layer.
        embedding_dropout: the share of words that is dropped, see `Embedding`.
    """

    vocab_size: int
    embedding_features: int
    cell: TreeCell
    num_classes: int
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        words: jax.Array,
        children: jax.Array,
        inner_words: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Activations]:
        """Maps trees to logits [B, L + S W, K] and the activations by name.

        Draws from the stream "dropout".

        Args:
            words: the words of the leaves, int [B, L].
            children: int [B, S, W, C], see `nn.tree.scan_tree`.
            inner_words: the words of the inner nodes, int [B, S, W]; None where they have none.
            train: whether dropout draws.
        """
        leaves = words.shape[1]
        if inner_words is not None:
            words = jnp.concatenate([words, inner_words.reshape(len(words), -1)], axis=1)
        embedding = Embedding(
            self.vocab_size,
            self.embedding_features,
            dropout=self.embedding_dropout,
            name="embedding",
        )
        x, inner = embedding(words, train), None
        if inner_words is not None:
            inner = x[:, leaves:].reshape(*inner_words.shape, -1)
            x = x[:, :leaves]
        nodes = TreeRecursion(self.cell, name="tree")(x, children, inner)
        logits = Dense(self.num_classes, name="output")(Dropout(self.dropout)(nodes, train))
        return logits, {"embedding": x, "nodes": nodes, "output": logits}
