"""Language models, which predict each token from those before it.

Shapes: B batch, T time, D embedding features, V vocabulary, R rows of the output layer.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.losses.output import Output, Readout
from dlcore.nn import Dense, Dropout
from dlcore.nn.embedding import Embedding
from dlcore.nn.recurrent.layers import reset_carry
from dlcore.types import Activations, Carry, Variables


class LanguageModel(nn.Module):
    """A language model: an embedding, a left-to-right body, and parameters of an output layer.

        carry = model.initial_carry(batch)
        carry, readout = model.apply(variables, inputs, reset, carry=carry, method="window")
        nats = model.output.nats(readout, targets.reshape(-1))

        carry = model.initial_carry(batch, length=T - 1 + 20)
        carry, _, _ = model.apply(variables, prompt[:, :-1], carry=carry)
        next_token = model.reader(variables, batch)
        tokens = generate(next_token, carry, prompt[:, -1], key, steps=20)

    Attributes:
        output: the output layer, which defines V.
        body: has `initial_carry(batch, length=None)` and maps (x [B, T, D], carry=, detach=,
            train=) to (carry, y [B, T, F], activations), where no y_t depends on an x after t;
            such as `nn.recurrent.RecurrentStack` and `nn.transformer.Transformer`.
        features: D.
        tie: whether the output layer's kernel is the embedding's table (Press & Wolf 2017; Inan et
            al. 2017). Where F is not D, a linear map connects the two.
        dropout: the share of values dropped before and after the body (Zaremba et al. 2014).
        embedding_dropout: the share of words dropped whole, see `Embedding`.
        scale: the factor of the embeddings; sqrt(D) where weights are tied and the body adds to the
            embeddings (Vaswani et al. 2017, section 3.4).
    """

    output: Output
    body: nn.Module
    features: int
    tie: bool = False
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        *,
        carry: Carry = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[Carry, Readout, Activations]:
        """Reads tokens, int [B, T]; draws from the stream "dropout".

        Returns:
            The carry after the last token; the readout: hidden states [B, T, F], kernel [R, F] and
            bias [R] of the output layer, where F = D if weights are tied; and the activations.

        Raises:
            InputError: when weights are tied but the rows of the output layer are not words.
        """
        output, vocab_size = self.output, len(self.output.counts)
        embed = Embedding(vocab_size, self.features, self.embedding_dropout, name="embedding")
        x = Dropout(self.dropout)(self.scale * embed(tokens, train), train)
        carry, hidden, activations = self.body(x, carry=carry, detach=detach, train=train)
        if self.tie:
            if output.rows != vocab_size:
                raise InputError(
                    "a hierarchical softmax has a row for each node of its tree, not for each "
                    "word, so it cannot be tied to the embedding; choose --notie"
                )
            kernel = embed.table
            if hidden.shape[-1] != self.features:
                hidden = Dense(self.features, use_bias=False, name="projection")(hidden)
        else:
            shape = (output.rows, hidden.shape[-1])
            init = nn.initializers.variance_scaling(1.0, "fan_out", "normal", out_axis=1)
            kernel = self.param("output_kernel", init, shape)
        bias = self.param("output_bias", lambda key: jnp.asarray(output.initial_bias))
        hidden = Dropout(self.dropout)(hidden, train)
        return carry, Readout(hidden, kernel, bias), activations

    @nn.nowrap
    def initial_carry(self, batch: int, length: int | None = None) -> Carry:
        """Returns the carry before the first token, each leaf with leading axis B.

        Args:
            batch: B.
            length: the number of tokens that will be read one by one or in pieces; None for whole
                windows, between which a transformer carries nothing (its carry is None).
        """
        return self.body.initial_carry(batch, length)

    def window(
        self,
        tokens: jax.Array,
        reset: jax.Array,
        *,
        carry: Carry,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[Carry, Readout]:
        """Reads the next window of B streams.

        Args:
            tokens: int [B, T].
            reset: bool [B], true for the streams that start here.
            carry: the carry after the window before.
            detach: the number of tokens after which the gradient through the carry is cut; None for
                never.
            train: whether there is dropout.

        Returns:
            The carry after the window, and the readout of its N = B T positions, row by row.
        """
        carry = reset_carry(carry, self.initial_carry(len(tokens)), reset)
        carry, readout, _ = self(tokens, carry=carry, detach=detach, train=train)
        hidden = readout.hidden
        return carry, readout._replace(hidden=hidden.reshape(-1, hidden.shape[-1]))

    def next_token(
        self, carry: Carry, token: jax.Array, columns: jax.Array | None = None
    ) -> tuple[Carry, jax.Array]:
        """Maps the carry and tokens int [B] to the next carry and log P of the next ones [B, V].

        Args:
            carry: the carry before the tokens.
            token: int [B].
            columns: the transposed kernel of the output layer [F, R], see `reader`.
        """
        carry, readout, _ = self(token[:, None], carry=carry)
        readout = readout._replace(hidden=readout.hidden[:, 0])
        if columns is not None:
            readout = readout._replace(kernel=columns.T)
        return carry, self.output.log_probs(readout)

    @nn.nowrap
    def reader(
        self, variables: Variables, batch: int
    ) -> Callable[[Carry, jax.Array], tuple[Carry, jax.Array]]:
        """Returns `next_token` with these variables, made for many steps of B rows in a loop.

        Products of several rows with a matrix that is read transposed, as the output layer's kernel
        is, take twice as long on a CPU; so the kernel is transposed once, before the loop.
        """
        columns = None
        if batch > 1:
            params = variables["params"]
            table = params["embedding"]["embedding"] if self.tie else params["output_kernel"]
            columns = table.T
        return lambda carry, token: self.apply(
            variables, carry, token, columns, method="next_token"
        )
