"""Generates a sequence of tokens from a vector (one to many).

The other arrangements of recurrent nets are elsewhere:

- One to one: any recurrent model at T = 1, which is then a feed-forward net.
- Many to one: `dlcore.models.text.classifier.TextClassifier`.
- Many to many, aligned: `dlcore.models.text.tagger.Tagger`, and language models.
- The same input at each step: `dlcore.nn.recurrent.layers.repeat_input` before a layer.

Shapes: B batch, T time, D features of the vector, V vocabulary.
"""

import flax.linen as nn
import jax

from dlcore.nn import Dense
from dlcore.nn.embedding import Embedding
from dlcore.nn.recurrent.cell import Carry, Cell
from dlcore.nn.recurrent.layers import Recurrent


class VectorToSequence(nn.Module):
    """A model of a sequence given a vector; each token depends on all tokens before it.

    One linear layer for each part of the carry maps the vector to the cell's initial carry, as in
    Xu et al. 2015. In training the inputs are the true tokens (teacher forcing); a decoder feeds
    back its own tokens:

        carry = model.apply(variables, vector, method="initial_carry")
        next_token = functools.partial(model.apply, variables, method="next_token")
        tokens = generate(next_token, carry, first, key, steps=20)

    Attributes:
        cell: the recurrent cell.
        vocab_size: V.
        embedding_features: the width of the embedded tokens.
    """

    cell: Cell
    vocab_size: int
    embedding_features: int

    def setup(self) -> None:
        shapes = jax.eval_shape(lambda: self.cell.initial_carry(1))
        self.carry = {name: Dense(leaf.shape[-1]) for name, leaf in shapes.items()}
        self.embedding = Embedding(self.vocab_size, self.embedding_features)
        self.recurrent = Recurrent(self.cell)
        self.output = Dense(self.vocab_size)

    def initial_carry(self, vector: jax.Array, length: int | None = None) -> Carry:
        """Maps a vector [B, D] to the carry before the first of any number of tokens."""
        del length
        return {name: dense(vector) for name, dense in self.carry.items()}

    def __call__(self, vector: jax.Array, tokens: jax.Array) -> jax.Array:
        """Maps vectors [B, D] and true tokens int [B, T] to the logits of the next [B, T, V].

        The net reads forwards, so tokens past the end of a sequence change nothing before it.
        """
        _, y = self.recurrent(self.embedding(tokens), carry=self.initial_carry(vector))
        return self.output(y)

    def next_token(self, carry: Carry, token: jax.Array) -> tuple[Carry, jax.Array]:
        """Maps the carry and tokens int [B] to the next carry and the next logits [B, V]."""
        carry, y = self.recurrent(self.embedding(token[:, None]), carry=carry)
        return carry, self.output(y[:, 0])
