"""Translation by recurrent nets: an encoder, a decoder and a bridge between them.

Shapes: B batch, S source steps, T target steps, W hypotheses of each sentence, R = B W rows, E
embedding features, M features of the encoder's states, F of the decoder's, V target vocabulary.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.errors import InputError
from dlcore.losses.output import Readout
from dlcore.models.text.prediction import Copy, Prediction, log_probs
from dlcore.nn import Dense, Dropout
from dlcore.nn.attention.decoder import Decoder
from dlcore.nn.attention.scores import Attended, Attention
from dlcore.nn.embedding import Embedding
from dlcore.nn.recurrent.cell import Cell
from dlcore.nn.recurrent.layers import RecurrentStack
from dlcore.nn.recurrent.normalised import reverse_by_length
from dlcore.nn.sequences import length_mask
from dlcore.types import Activations, Carry

# How a decoder starts: at zero, with the encoder's state, or with a dense layer of it.
BRIDGES = ("zero", "copy", "dense")


class EncodedSource(NamedTuple):
    """The output of the encoder, from which the decoder starts and to which it attends.

    Attributes:
        layers: the initial carries of the decoder's layers, each leaf [B, ...].
        attended: the encoder's states to attend to; None without attention.
        source: the source ids, int [B, S].
        columns: the transposed kernel of the output layer [F, V], see `log_probs`.
    """

    layers: Carry
    attended: Attended | None
    source: jax.Array
    columns: jax.Array


class RecurrentTranslator(nn.Module):
    """A sequence-to-sequence model (Sutskever et al. 2014; Cho et al. 2014; Bahdanau et al. 2015).

        prediction, activations = model.apply(variables, source, source_length, inputs)
        nats_of_targets = nats(prediction, targets)

        memory = model.apply(variables, source, source_length, method="encode")
        carry = model.initial_carry(memory, length)
        carry, log_p = model.apply(variables, carry, token, memory, method="next_token")

    Attention follows the recurrent layers (Luong's placement), see `nn.attention.decoder`. Inputs
    past the end of a target change nothing before it.

    Attributes:
        source_vocab_size: the number of source ids.
        target_vocab_size: V.
        embedding_features: E.
        encoder_cells: the cell of each layer of the encoder, from the lowest up.
        decoder_cells: the same for the decoder; cells without running statistics.
        attention: see `nn.attention.registry`; None for none.
        bidirectional: whether each layer of the encoder runs in both directions.
        reverse_source: whether the encoder reads from the last word to the first, so that the first
            words of both sides are close (Sutskever et al. 2014, section 3.3).
        bridge: the initial carries of the decoder's layers. "zero": the initial carries of their
            cells; "copy": the last carries of the encoder's layers, which must fit; "dense": each
            part of a layer's carry is tanh of a linear map of the last carry of the encoder's layer
            at the same height, or of its highest layer.
        input_feeding: whether the attentional vector is fed to the next step (Luong et al. 2015,
            section 3.3).
        copying: whether words are also copied from the source by the attention, as in a
            pointer-generator (See et al. 2017, eqs. 8-9). Both sides share one vocabulary, and
            there are no words outside of it.
        shared: whether both sides have one vocabulary and one table of embeddings.
        tie: whether the output layer's kernel is the target embedding's table (Press & Wolf 2017).
            Where F is not E, a linear map connects the two.
        dropout: the share of values dropped before each layer and before the output.
        embedding_dropout: the share of words dropped whole, see `Embedding`.
    """

    source_vocab_size: int
    target_vocab_size: int
    embedding_features: int
    encoder_cells: tuple[Cell, ...]
    decoder_cells: tuple[Cell, ...]
    attention: Attention | None = None
    bidirectional: bool = False
    reverse_source: bool = False
    bridge: str = "dense"
    input_feeding: bool = False
    copying: bool = False
    shared: bool = False
    tie: bool = False
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def setup(self) -> None:
        self._require_that_options_fit()
        size, decoder = self.embedding_features, self._decoder
        rate = self.embedding_dropout
        self.source_embedding = Embedding(self.source_vocab_size, size, rate)
        self.target_embedding = (
            self.source_embedding if self.shared else Embedding(self.target_vocab_size, size, rate)
        )
        self.drop = Dropout(self.dropout)
        self.encoder = RecurrentStack(
            self.encoder_cells, bidirectional=self.bidirectional, dropout=self.dropout
        )
        self.decoder = self.param("decoder", lambda key: decoder.init(key, size))
        if self.bridge == "dense":
            layers = jax.eval_shape(lambda: decoder.initial_carry(1))["layers"]
            self.start = jax.tree.map(lambda part: Dense(part.shape[-1]), layers)
        if self.copying:
            self.gate = Dense(1)
        if not self.tie:
            init = nn.initializers.variance_scaling(1.0, "fan_out", "normal", out_axis=1)
            shape = (self.target_vocab_size, decoder.features)
            self.output_kernel = self.param("output_kernel", init, shape)
        elif decoder.features != size:
            self.projection = Dense(size, use_bias=False)
        self.output_bias = self.param(
            "output_bias", nn.initializers.zeros, (self.target_vocab_size,)
        )

    def __call__(
        self,
        source: jax.Array,
        source_length: jax.Array,
        inputs: jax.Array,
        train: bool = False,
    ) -> tuple[Prediction, Activations]:
        """Encodes sources and predicts each target from the true tokens before it: teacher forcing.

        Raises:
            InputError: for options that do not fit together, see the attributes.
        """
        return self.decode(self.encode(source, source_length, train), inputs, train=train)

    def encode(
        self, source: jax.Array, source_length: jax.Array, train: bool = False
    ) -> EncodedSource:
        """Reads sources int [B, S] of lengths int [B]; draws from the stream "dropout"."""

        def in_order(x: jax.Array) -> jax.Array:
            if not self.reverse_source:
                return x
            return reverse_by_length(x.swapaxes(0, 1), source_length).swapaxes(0, 1)

        x = self.drop(self.source_embedding(source, train), train)
        last, states, _ = self.encoder(in_order(x), lengths=source_length, train=train)
        attended = None
        if self.attention is not None:
            mask = length_mask(source_length, source.shape[1])
            params = self.decoder.get("attention", {})
            attended = self.attention.prepare(params, in_order(states), mask)
        layers = self._layers(last, len(source))
        return EncodedSource(layers, attended, source, self._kernel().T)

    def decode(
        self, memory: EncodedSource, inputs: jax.Array, *, train: bool = False
    ) -> tuple[Prediction, Activations]:
        """Predicts each target from the true ones before it; draws from the stream "dropout".

        Args:
            memory: the B encoded sources.
            inputs: int [B, T], the token before each target.
            train: whether there is dropout.

        Returns:
            The prediction at each step and the activations: "attention" [B, 1, T, S] and, with
            coverage, "coverage_loss" [B, T], the attention to positions that had some before, which
            is the sum over i of min(a_ti, c_ti) (See et al. 2017, eq. 12).
        """
        carry = self.initial_carry(memory, inputs.shape[1])
        _, prediction, weights = self._read(carry, inputs, memory, train)
        if weights is None:
            return prediction, {}
        activations = {"attention": weights[:, None]}
        if self.attention is not None and self.attention.coverage:
            covered = jnp.cumsum(weights, axis=1) - weights
            activations["coverage_loss"] = jnp.minimum(weights, covered).sum(-1)
        return prediction, activations

    @nn.nowrap
    def initial_carry(self, memory: EncodedSource, length: int) -> Carry:
        """Returns the carry before the first token, R = B, for any length; needs no parameters."""
        del length
        batch, places = memory.source.shape
        return self._decoder.initial_carry(batch, places) | {"layers": memory.layers}

    def next_token(
        self, carry: Carry, token: jax.Array, memory: EncodedSource
    ) -> tuple[Carry, jax.Array]:
        """Maps the carry and tokens int [R] to the next carry and log P of the next tokens [R, V].

        Row b W + w is hypothesis w of sentence b; all W hypotheses attend to one encoded source.
        """
        carry, prediction, _ = self._read(carry, token[:, None], memory, train=False)
        return carry, log_probs(prediction, memory.columns).reshape(len(token), -1)

    @nn.nowrap
    def coverage(self, carry: Carry, memory: EncodedSource) -> jax.Array:
        """Returns the attention to each source position so far [R, S], 1 at padding.

        Raises:
            InputError: for a model without attention.
        """
        if memory.attended is None:
            raise InputError("without attention there is no coverage to reward; add attention")
        mask = jnp.repeat(memory.attended.mask, len(carry["step"]) // len(memory.source), axis=0)
        return jnp.where(mask, carry["covered"], 1)

    def _read(
        self, carry: Carry, tokens: jax.Array, memory: EncodedSource, train: bool
    ) -> tuple[Carry, Prediction, jax.Array | None]:
        """Reads tokens [R, T]; returns the carry, B x (W T) predictions and the weights."""
        embedded = self.drop(self.target_embedding(tokens, train), train)
        kept: tuple[jax.Array, ...] = ()
        if train and self.dropout:
            shapes = [(*tokens.shape, cell.output_features) for cell in self.decoder_cells[:-1]]
            kept = tuple(self.drop(jnp.ones(shape), train) for shape in shapes)
        with jax.named_scope("decoder"):  # where its parameters are
            carry, steps = self._decoder.run(
                self.decoder, carry, embedded, memory.attended, kept=kept
            )
        hidden = steps.vectors
        if self.tie and hidden.shape[-1] != self.embedding_features:
            hidden = self.projection(hidden)
        hidden = self.drop(hidden, train)

        def folded(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(len(memory.source), -1, *leaf.shape[2:])

        copy = None
        if self.copying:
            assert steps.contexts is not None and steps.weights is not None
            seen = jnp.concatenate([steps.contexts, steps.states, embedded], axis=-1)
            gate = nn.sigmoid(self.gate(seen))[..., 0]
            copy = Copy(folded(gate), folded(steps.weights), memory.source)
        readout = Readout(folded(hidden), self._kernel(), self.output_bias)
        return carry, Prediction(readout, copy), steps.weights

    def _kernel(self) -> jax.Array:
        """Returns the kernel of the output layer, [V, F]."""
        kernel: jax.Array = self.target_embedding.table if self.tie else self.output_kernel
        return kernel

    def _layers(self, last: Carry, batch: int) -> Carry:
        """Computes the initial carries of the decoder's layers from the encoder's last ones."""
        zero = self._decoder.initial_carry(batch)["layers"]
        if self.bridge == "zero":
            return zero
        if self.bidirectional:
            last = {
                name: jax.tree.map(
                    lambda *ways: jnp.concatenate(ways, axis=-1),
                    layer["forward"],
                    layer["backward"],
                )
                for name, layer in last.items()
            }
        if self.bridge == "copy":
            if jax.tree.map(jnp.shape, last) != jax.tree.map(jnp.shape, zero):
                raise InputError(
                    "the encoder's last carries do not fit the decoder's layers, so they cannot be "
                    'copied; choose the bridge "dense", or cells of one kind, number and width'
                )
            return last
        layers = {}
        for i, (name, parts) in enumerate(self.start.items()):
            below = last[f"layer_{min(i, len(last) - 1)}"]
            everything = jnp.concatenate(jax.tree.leaves(below), axis=-1)
            layers[name] = {part: jnp.tanh(dense(everything)) for part, dense in parts.items()}
        return layers

    @property
    def _decoder(self) -> Decoder:
        width = self.encoder_cells[-1].output_features * (2 if self.bidirectional else 1)
        return Decoder(
            self.decoder_cells[-1].output_features,
            self.decoder_cells,
            self.attention,
            width,
            self.input_feeding,
        )

    @nn.nowrap
    def _require_that_options_fit(self) -> None:
        if self.bridge not in BRIDGES:
            raise errors.choose("bridge", self.bridge, BRIDGES)
        if self.attention is None and (self.input_feeding or self.copying):
            raise InputError("input feeding and copying need attention; choose one")
        if self.copying and not (self.shared and self.attention and self.attention.normalised):
            raise InputError(
                "copying needs one vocabulary shared by both sides and attention whose weights sum "
                "to 1, which those of local attention do not"
            )
        if self.shared and self.source_vocab_size != self.target_vocab_size:
            raise InputError(
                f"a shared vocabulary has one size, not {self.source_vocab_size} source and "
                f"{self.target_vocab_size} target ids; give both sides one vocabulary"
            )
        if any(cell.init_state() for cell in self.decoder_cells):
            raise InputError(
                "a decoder goes token by token, so it cannot have cells with statistics of each "
                "step; choose another cell, such as lstm_layer_norm"
            )
