"""Transformers: stacks of residual blocks of attention and feed-forward nets.

Shapes: B batch, T steps, S memory steps, C channels, H heads, L length of a cache, R rows that
decode: B times the beams.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import InputError, choose, pick
from dlcore.nn.attention.multihead import KeyValue, MultiHeadAttention
from dlcore.nn.attention.positions import POSITIONS, sinusoidal
from dlcore.nn.dropout import Dropout
from dlcore.nn.feed_forward import FEED_FORWARDS, FeedForward
from dlcore.nn.normalisation import LayerNorm
from dlcore.nn.remat import remat_module
from dlcore.nn.sequences import length_mask
from dlcore.types import Activations, PyTree

T = TypeVar("T")
# The updated cache, or the attention weights.
Extra = KeyValue | jax.Array | None
SelfAttention = Callable[[MultiHeadAttention, jax.Array], tuple[jax.Array, Extra]]
# A cache `KeyValue` for each layer by name, and the "position" int [R] of the next step.
TransformerCarry = dict[str, PyTree]

NORMS: dict[str, Callable[..., nn.Module]] = {"layer": LayerNorm, "rms": nn.RMSNorm}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The options of a transformer's blocks; the defaults are the usual form today.

    Vaswani et al. 2017 is norm="layer", norm_first=False, activation="relu",
    position="sinusoidal", bias=True; GPT-2 is norm="layer", activation="gelu",
    position="learned", bias=True.

    Attributes:
        features: C.
        layers: the number of blocks.
        heads: H.
        groups: the number of key and value heads, see `MultiHeadAttention`; None takes H.
        hidden: the inner width of the feed-forward nets; None takes 4 C.
        norm: one of `NORMS`: layer (Ba et al. 2016), or rms (Zhang & Sennrich 2019).
        norm_first: whether branches normalise their inputs, and a final norm ends the net (Xiong et
            al. 2020); else each sum is normalised, as in Vaswani et al. 2017.
        activation: one of `FEED_FORWARDS`.
        position: one of `POSITIONS`.
        context: the number of learned positions, for position="learned".
        qk_norm: see `MultiHeadAttention`.
        bias: whether dense layers and layer norms have biases.
        dropout: the share of values dropped from each branch's output.
        chunk: see `attention`.
        remat: the policy by which the gradient recomputes values in a block, see `dlcore.nn.remat`.
        epsilon: the constant that norms add inside the root.
    """

    features: int
    layers: int
    heads: int
    groups: int | None = None
    hidden: int | None = None
    norm: str = "rms"
    norm_first: bool = True
    activation: str = "gelu"
    position: str = "rotary"
    context: int | None = None
    qk_norm: bool = False
    bias: bool = False
    dropout: float = 0.0
    chunk: int | None = None
    remat: str = "none"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise choose("position", self.position, POSITIONS)
        if self.activation not in FEED_FORWARDS:
            raise choose("activation", self.activation, FEED_FORWARDS)
        if (self.position == "learned") != (self.context is not None):
            raise InputError(
                f"position {self.position!r} with context {self.context}: learned positions need "
                "their number as context, the others take none"
            )

    def make_norm(self) -> nn.Module:
        """Makes a new norm."""
        bias = {"use_bias": self.bias} if self.norm == "layer" else {}
        return pick("norm", self.norm, NORMS)(epsilon=self.epsilon, **bias)

    def make_attention(self, *, positions: bool) -> MultiHeadAttention:
        """Makes a new attention.

        Args:
            positions: whether it sees positions and runs in chunks; attention to a memory, which
                is short, does neither.
        """
        return MultiHeadAttention(
            self.features,
            self.heads,
            self.groups,
            rotary=positions and self.position == "rotary",
            alibi=positions and self.position == "alibi",
            qk_norm=self.qk_norm,
            bias=self.bias,
            chunk=self.chunk if positions else None,
        )


class Block(nn.Module):
    """A block of self-attention, attention to a memory if there is one, and a feed-forward net.

    Attributes:
        config: the options.
        reads_memory: whether there is a memory.
    """

    config: TransformerConfig
    reads_memory: bool = False

    def setup(self) -> None:
        config = self.config
        self.attention = config.make_attention(positions=True)
        self.attention_norm = config.make_norm()
        if self.reads_memory:
            self.cross = config.make_attention(positions=False)
            self.cross_norm = config.make_norm()
        hidden = config.hidden or 4 * config.features
        self.feed_forward = FeedForward(hidden, config.activation, config.bias)
        self.feed_forward_norm = config.make_norm()
        self.drop = Dropout(config.dropout)

    def _branch(
        self,
        x: jax.Array,
        norm: nn.Module,
        branch: Callable[[jax.Array], tuple[jax.Array, T]],
        train: bool,
    ) -> tuple[jax.Array, T]:
        """Adds the first output of a branch to x and returns it with the second one."""
        first = self.config.norm_first
        y, extra = branch(norm(x) if first else x)
        x = x + self.drop(y, train)
        return (x if first else norm(x)), extra

    def __call__(
        self,
        x: jax.Array,
        *,
        self_attention: SelfAttention,
        memory: KeyValue | None = None,
        memory_mask: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Extra, jax.Array | None]:
        """Maps x [R, T, C] to [R, T, C].

        Args:
            x: the residual stream.
            self_attention: calls the attention on the normalised x; returns its output and its
                weights or the updated cache.
            memory: the result of `project_keys_values`, with B rows.
            memory_mask: bool [B, 1, 1, S], true where the memory is real.
            train: whether to apply dropout.

        Returns:
            The residual stream, the second result of `self_attention`, and the weights on the
            memory [B, H, R / B T, S].
        """
        x, extra = self._branch(
            x, self.attention_norm, lambda y: self_attention(self.attention, y), train
        )
        weights = None
        if memory is not None:
            x, weights = self._branch(
                x, self.cross_norm, lambda y: self.cross.attend(y, memory, mask=memory_mask), train
            )
        x, _ = self._branch(
            x, self.feed_forward_norm, lambda y: (self.feed_forward(y), None), train
        )
        return x, extra, weights

    def project_keys_values(self, memory: jax.Array) -> KeyValue:
        """Returns the keys and values of a memory [B, S, C] for this block."""
        return self.cross.project_keys_values(memory)


class Transformer(nn.Module):
    """A stack of blocks: an encoder, a decoder, or the body of a language model.

    Attributes:
        config: the options of the blocks.
        causal: whether a step sees only itself and the steps before it.
        reads_memory: whether the blocks also attend to a memory.
    """

    config: TransformerConfig
    causal: bool = True
    reads_memory: bool = False

    def setup(self) -> None:
        config = self.config
        self.blocks = [
            Block(config, self.reads_memory, name=f"layer_{i}") for i in range(config.layers)
        ]
        if config.norm_first:
            self.norm = config.make_norm()
        if config.position == "learned":
            init = nn.initializers.normal(0.02)
            self.positions = self.param(
                "position_embedding", init, (config.context, config.features)
            )

    def __call__(
        self,
        x: jax.Array,
        *,
        carry: TransformerCarry | None = None,
        lengths: jax.Array | None = None,
        memory: tuple[KeyValue, ...] | None = None,
        memory_mask: jax.Array | None = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[TransformerCarry | None, jax.Array, Activations]:
        """Reads x from its start, or continues where the carry stopped.

        Args:
            x: [R, T, C].
            carry: None, or a cache, see `initial_carry`; x then holds the steps after the cached.
            lengths: the number of real steps of each row of x, int [B], where not causal; None for
                all steps.
            memory: the result of `project_keys_values`.
            memory_mask: bool [B, 1, 1, S], true where the memory is real.
            detach: ignored, as no gradient flows through a cache.
            train: whether to apply dropout.

        Returns:
            The carry after x; the features [R, T, C]; the activations "layer_0", ..., with the
            attention weights "attention_0", ... [R, H, T, T] and, with a memory, "memory_0", ...
            [B, H, R / B T, S].

        Raises:
            InputError: when x goes beyond the learned positions.
        """
        del detach
        rows, steps = x.shape[:2]
        positions = jnp.arange(steps)
        if carry is not None:
            positions = positions[None] + carry["position"][:, None]
        x = self._add_positions(x, positions)
        mask = None if lengths is None else length_mask(lengths, steps)[:, None, None]
        after: TransformerCarry = {}
        activations: Activations = {}
        for i, block in enumerate(self.blocks):
            name = f"layer_{i}"

            def self_attention(
                layer: MultiHeadAttention, y: jax.Array, name: str = name
            ) -> tuple[jax.Array, Extra]:
                if carry is not None:
                    return layer.attend_cached(y, carry[name], positions)
                return layer(y, positions=positions, mask=mask, causal=self.causal)

            def call(
                block: Block,
                x: jax.Array,
                memory: KeyValue | None,
                self_attention: SelfAttention = self_attention,
            ) -> tuple[jax.Array, Extra, jax.Array | None]:
                return block(
                    x,
                    self_attention=self_attention,
                    memory=memory,
                    memory_mask=memory_mask,
                    train=train,
                )

            policy = self.config.remat if carry is None else "none"
            x, extra, weights = remat_module(call, policy)(
                block, x, None if memory is None else memory[i]
            )
            activations[name] = x
            if isinstance(extra, KeyValue):
                after[name] = extra
            elif extra is not None:
                activations[f"attention_{i}"] = extra
            if weights is not None:
                activations[f"memory_{i}"] = weights
        if self.config.norm_first:
            x = self.norm(x)
        if carry is None:
            return None, x, activations
        return {**after, "position": carry["position"] + steps}, x, activations

    def _add_positions(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Adds the encodings of positions int [T] or [R, T] to x, where the config has any."""
        position = self.config.position
        if position == "sinusoidal":
            added = sinusoidal(positions, x.shape[-1])
        elif position == "learned":
            if x.shape[1] > len(self.positions):
                raise InputError(
                    f"a text of {x.shape[1]} tokens is longer than the {len(self.positions)} "
                    "positions that the model has learned; give a shorter one"
                )
            added = jnp.take(self.positions, positions, axis=0, mode="fill")
        else:
            return x
        return x + jnp.broadcast_to(added.reshape(-1, *x.shape[1:]), x.shape)

    def project_keys_values(self, memory: jax.Array) -> tuple[KeyValue, ...]:
        """Returns the keys and values of a memory [B, S, C] for each block."""
        return tuple(block.project_keys_values(memory) for block in self.blocks)

    @nn.nowrap
    def initial_carry(self, batch: int, length: int | None = None) -> TransformerCarry | None:
        """Returns the carry before the first step: an empty cache; needs no parameters.

        Args:
            batch: R.
            length: L, the number of steps that will come, one or more at a time; None where whole
                texts are read at once, which need no carry.

        Raises:
            InputError: when the length goes beyond the learned positions.
        """
        if length is None:
            return None
        config = self.config
        if config.context is not None and length > config.context:
            raise InputError(
                f"{length} tokens are more than the {config.context} positions that the model has "
                "learned; ask for fewer"
            )
        heads, features = config.groups or config.heads, config.features // config.heads
        zeros = jnp.zeros((batch, heads, length, features))
        caches = {f"layer_{i}": KeyValue(zeros, zeros) for i in range(config.layers)}
        return {**caches, "position": jnp.zeros(batch, jnp.int32)}
