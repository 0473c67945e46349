"""The shapes of recurrent nets, on any cell.

- One to one: any of these at T = 1, which is a feed-forward net.
- One to many, a sequence from a vector: `VectorToSequence`, here.
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
    """A sequence of tokens from a vector, each token drawn after all those before it.

    The vector, through one linear layer for each part of the carry, is where the cell starts, as
    in Xu et al. 2015. In training the inputs are the true tokens (teacher forcing); a decoder
    feeds back its own:

        carry = model.apply(variables, vector, method="start")
        next_token = functools.partial(model.apply, variables, method="next_token")
        tokens = generate(next_token, carry, first, key, steps=20)

    Attributes:
        cell: the cell.
        vocab_size: V.
        embedding_features: the width of the embedded tokens.
    """

    cell: Cell
    vocab_size: int
    embedding_features: int

    def setup(self) -> None:
        parts = jax.eval_shape(lambda: self.cell.initial_carry(1))
        self.carry = {name: Dense(part.shape[-1]) for name, part in parts.items()}
        self.embedding = Embedding(self.vocab_size, self.embedding_features)
        self.recurrent = Recurrent(self.cell)
        self.output = Dense(self.vocab_size)

    def start(self, vector: jax.Array) -> Carry:
        """The carry that a vector [B, D] starts from."""
        return {name: dense(vector) for name, dense in self.carry.items()}

    def __call__(self, vector: jax.Array, tokens: jax.Array) -> jax.Array:
        """Maps vectors [B, D] and true tokens int [B, T] to the logits of the next [B, T, V].

        The net reads forwards, so tokens past the end of a sequence change nothing before it.
        """
        _, y = self.recurrent(self.embedding(tokens), carry=self.start(vector))
        return self.output(y)

    def next_token(self, carry: Carry, token: jax.Array) -> tuple[Carry, jax.Array]:
        """One step: a token int [B] gives the next carry and the logits [B, V] after it."""
        carry, y = self.recurrent(self.embedding(token[:, None]), carry=carry)
        return carry, self.output(y[:, 0])
