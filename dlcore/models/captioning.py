"""Captions of pictures: an image classifier without its head, and three decoders.

A map of the classifier's activations has a vector for each position. Decoders attend to these
vectors, and their mean represents the whole picture.

Shapes: B batch, H W image, C channels, h w positions of the map, L = h w, D channels of the map, T
steps, W hypotheses of each picture, R = B W rows, E embedding features, F features of a decoder's
state, V vocabulary.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.losses.output import Readout
from dlcore.models.detection.body import Body
from dlcore.models.text.prediction import Prediction, log_probs
from dlcore.nn import Dense, Dropout
from dlcore.nn.attention import AttendingCell
from dlcore.nn.attention.multihead import KeyValue
from dlcore.nn.attention.scores import Additive, Attended
from dlcore.nn.embedding import Embedding
from dlcore.nn.recurrent import LSTM
from dlcore.nn.recurrent.scan import scan
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.types import Activations, Carry


class Seen(NamedTuple):
    """The picture in the form that the decoder reads.

    Attributes:
        places: the decoder's preparation of the map, with leading axis B; None where it attends to
            no map.
        start: the decoder's first carry, or the term that it adds to its inputs, with leading axis
            B.
        columns: the transposed kernel of the output layer [F, V], see `log_probs`.
    """

    places: Any
    start: Any
    columns: jax.Array


class Words(nn.Module):
    """The embedding of words and the output layer over them.

    Attributes:
        vocab_size: V.
        features: E.
        dropout: the share of values dropped from embeddings and before the output.
        embedding_dropout: the share of words dropped whole, see `Embedding`.
    """

    vocab_size: int
    features: int
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def setup(self) -> None:
        self.embedding = Embedding(self.vocab_size, self.features, self.embedding_dropout)
        init = nn.initializers.variance_scaling(1.0, "fan_out", "normal", out_axis=1)
        self.kernel = self.param("output_kernel", init, (self.vocab_size, self.features))
        zeros = nn.initializers.zeros_init()
        self.bias = self.param("output_bias", zeros, (self.vocab_size,))
        self.drop = Dropout(self.dropout)

    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        return self.drop(self.embedding(tokens, train), train)

    def predict(self, hidden: jax.Array, train: bool) -> Prediction:
        return Prediction(Readout(self.drop(hidden, train), self.kernel, self.bias))


class Captioner(nn.Module):
    """A model that writes a caption for a picture.

        prediction, activations = model.apply(variables, images, inputs)
        nats_of_targets = nats(prediction, targets)

        memory = model.apply(variables, images, method="encode")
        carry = model.apply(variables, memory, length, method="initial_carry")
        carry, log_p = model.apply(variables, carry, token, memory, method="next_token")

    Inputs past the end of a caption change nothing before it.

    Attributes:
        body: the network that outputs the map, see `dlcore.models.detection.body.make_body`.
        decoder: one of the decoders below.
    """

    body: Body
    decoder: nn.Module

    def __call__(
        self, images: jax.Array, inputs: jax.Array, train: bool = False
    ) -> tuple[Prediction, Activations]:
        """Reads images [B, H, W, C] and predicts each token from those before it, int [B, T].

        Returns:
            The prediction and the activations: those of the body and, except for `ShowAndTell`,
            "attention" [B, heads, T, L], the weights of the positions at each step.
        """
        memory, activations = self._encode(images, train)
        prediction, of_decoder = self.decoder(memory, inputs, train)
        return prediction, {**activations, **of_decoder}

    def encode(self, images: jax.Array, train: bool = False) -> Seen:
        """Reads images [B, H, W, C]."""
        return self._encode(images, train)[0]

    def initial_carry(self, memory: Seen, length: int) -> Carry:
        """Returns the carry before the first of at most `length` tokens; each leaf has B rows."""
        carry: Carry = self.decoder.initial_carry(memory, length)
        return carry

    def next_token(self, carry: Carry, token: jax.Array, memory: Seen) -> tuple[Carry, jax.Array]:
        """Maps the carry and tokens int [R] to the next carry and log P of the next tokens [R, V].

        Row b W + w is hypothesis w of picture b.
        """
        carry, prediction, _ = self.decoder.read(carry, token[:, None], memory, False)
        return carry, log_probs(prediction, memory.columns).reshape(len(token), -1)

    def _encode(self, images: jax.Array, train: bool) -> tuple[Seen, Activations]:
        (*_, seen), activations = self.body(images, train)
        places = seen.reshape(len(seen), -1, seen.shape[-1])
        return self.decoder.look(places, places.mean(1), train), activations


class ShowAndTell(nn.Module):
    """An LSTM that sees the picture once, as the input before the first word (Vinyals et al. 2015).

    The inputs are x_-1 = W_I CNN(I), and then x_t = W_e S_t (eqs. 10-12); the output is a softmax
    over words.

    Attributes:
        words: the embedding and the output layer.
        features: F.
    """

    words: Words
    features: int

    def setup(self) -> None:
        self.image = Dense(self.words.features)
        cell, inputs = LSTM(self.features), self.words.features
        self.lstm = self.param("lstm", lambda key: cell.init(key, inputs))
        self.output = Dense(self.words.features)

    def look(self, places: jax.Array, mean: jax.Array, train: bool) -> Seen:
        """Reads only the mean over the positions [B, D]."""
        del places
        cell = LSTM(self.features)
        first = self.words.drop(self.image(mean), train)
        carry, _ = cell(self.lstm, cell.initial_carry(len(first)), first)
        return Seen(None, carry, self.words.kernel.T)

    def __call__(
        self, memory: Seen, inputs: jax.Array, train: bool
    ) -> tuple[Prediction, Activations]:
        _, prediction, _ = self.read(memory.start, inputs, memory, train)
        return prediction, {}

    def initial_carry(self, memory: Seen, length: int) -> Carry:
        del length
        return memory.start

    def read(
        self, carry: Carry, tokens: jax.Array, memory: Seen, train: bool
    ) -> tuple[Carry, Prediction, jax.Array | None]:
        """Reads tokens [R, T]; returns the carry, the prediction and no attention."""
        del memory
        cell = LSTM(self.features)
        x = self.words(tokens, train).swapaxes(0, 1)
        with jax.named_scope("lstm"):  # where its parameters are
            carry, states = scan(cell, self.lstm, carry, cell.project(self.lstm, x))
        hidden = self.output(self.words.drop(states.swapaxes(0, 1), train))
        return carry, self.words.predict(hidden, train), None


class ShowAttendAndTell(nn.Module):
    """An LSTM with soft attention to the picture at each word (Xu et al. 2015).

    e_ti = f_att(a_i, h_t-1), alpha_t = softmax(e_t), z_t = beta_t sum of alpha_ti a_i (eqs. 4-5 and
    13, with the gate of section 4.2.1); the first state and cell are layers of tanh on the
    mean of all a_i (section 3.1.2); the next word has the logits L_o (E y_t-1 + L_h h_t + L_z z_t)
    (eq. 7). Beyond the paper, whose network sees a far larger region around a position, a learned
    vector of its position is added to a_i, so that words such as "left" and "below" can be learned.

    Attributes:
        words: the embedding and the output layer L_o.
        features: F.
        shape: the shape (L, D) of the map.
        gated: whether there is a gate beta.
    """

    words: Words
    features: int
    shape: tuple[int, int]
    gated: bool = True

    def setup(self) -> None:
        size = self.words.features
        self.starts = {"h": Dense(self.features), "c": Dense(self.features)}
        cell = self._cell
        self.lstm = self.param("lstm", lambda key: cell.init(key, size))
        init = nn.initializers.normal(0.02)
        self.places = self.param("place_embedding", init, self.shape)
        self.of_state = Dense(size)
        self.of_context = Dense(size, use_bias=False)

    @property
    def _cell(self) -> AttendingCell:
        cell, attention = LSTM(self.features), Additive(self.features)
        return AttendingCell(self.features, cell, attention, self.shape[1], self.gated)

    def look(self, places: jax.Array, mean: jax.Array, train: bool) -> Seen:
        """Reads the positions [B, L, D] and their mean [B, D]."""
        del train
        mask = jnp.ones(places.shape[:2], bool)
        y = places + self.places[None]
        attended = self._cell.attention.prepare(self.lstm["attention"], y, mask)
        start = {name: jnp.tanh(dense(mean)) for name, dense in self.starts.items()}
        return Seen(attended, start, self.words.kernel.T)

    def __call__(
        self, memory: Seen, inputs: jax.Array, train: bool
    ) -> tuple[Prediction, Activations]:
        _, prediction, weights = self.read(memory.start, inputs, memory, train)
        return prediction, {"attention": weights[:, None]}

    def initial_carry(self, memory: Seen, length: int) -> Carry:
        del length
        return memory.start

    def read(
        self, carry: Carry, tokens: jax.Array, memory: Seen, train: bool
    ) -> tuple[Carry, Prediction, jax.Array]:
        """Reads tokens [R, T]; returns the carry, the prediction and the weights [R, T, L]."""
        attended: Attended = memory.places
        x = self.words(tokens, train)
        with jax.named_scope("lstm"):  # where its parameters are
            carry, steps = self._cell.run(self.lstm, carry, x, attended)
        states = self.words.drop(steps.states, train)
        hidden = x + self.of_state(states) + self.of_context(steps.contexts)
        return carry, self.words.predict(hidden, train), steps.weights


class TransformerTeller(nn.Module):
    """A causal transformer that attends to the positions of the picture.

    The positions have learned encodings, and a linear map of the mean over them is added to each
    input.

    Attributes:
        words: the embedding and the output layer, E = `config.features`.
        config: the options of the blocks.
        places: L, the number of positions.
    """

    words: Words
    config: TransformerConfig
    places: int

    def setup(self) -> None:
        features = self.config.features
        self.of_place = Dense(features)
        self.of_picture = Dense(features)
        init = nn.initializers.normal(0.02)
        self.positions = self.param("place_embedding", init, (self.places, features))
        self.blocks = Transformer(self.config, reads_memory=True)

    def look(self, places: jax.Array, mean: jax.Array, train: bool) -> Seen:
        """Reads the positions [B, L, D] and their mean [B, D]."""
        del train
        y = self.of_place(places) + self.positions[None]
        keys_values = self.blocks.project_keys_values(y)
        return Seen(keys_values, self.of_picture(mean), self.words.kernel.T)

    def __call__(
        self, memory: Seen, inputs: jax.Array, train: bool
    ) -> tuple[Prediction, Activations]:
        _, prediction, weights = self.read(None, inputs, memory, train)
        return prediction, {"attention": weights}

    def initial_carry(self, memory: Seen, length: int) -> Carry:
        return self.blocks.initial_carry(len(memory.start), length)

    def read(
        self, carry: Carry, tokens: jax.Array, memory: Seen, train: bool
    ) -> tuple[Carry, Prediction, jax.Array]:
        """Reads tokens [R, T]; returns the carry, the prediction and the highest block's weights.

        The weights are [B, heads, W T, L].
        """
        keys_values: tuple[KeyValue, ...] = memory.places
        x = self.config.features**0.5 * self.words(tokens, train)
        beams = len(tokens) // len(memory.start)
        x = x + jnp.repeat(memory.start, beams, axis=0)[:, None]
        carry, y, activations = self.blocks(x, carry=carry, memory=keys_values, train=train)
        weights = activations[f"memory_{self.config.layers - 1}"]
        return carry, self.words.predict(y, train), weights
