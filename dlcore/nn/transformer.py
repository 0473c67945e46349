"""Transformers: blocks of attention and feed-forward nets around a stream of features.

Shapes: B batch, T steps, S steps of a memory, C channels, H heads, L length of a cache, R rows that
decode: B times the beams.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import InputError, choose, pick
from dlcore.nn.attention.multihead import KeyValue, MultiHeadAttention
from dlcore.nn.attention.positions import POSITIONS, sinusoidal
from dlcore.nn.dropout import Dropout
from dlcore.nn.feed_forward import FEED_FORWARDS, FeedForward
from dlcore.nn.remat import remat_module
from dlcore.nn.sequences import length_mask

NORMS: dict[str, Callable[..., nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """What the blocks of a transformer are like; the defaults are today's usual form.

    Vaswani et al. 2017 is norm="layer", norm_first=False, activation="relu",
    position="sinusoidal", bias=True; GPT-2 is norm="layer", activation="gelu",
    position="learned", bias=True.

    Attributes:
        features: C.
        layers: how many blocks.
        heads: H.
        groups: key and value heads, see `MultiHeadAttention`; None for H.
        hidden: the inner width of the feed-forward nets; None for 4 C.
        norm: one of `NORMS`: layer (Ba et al. 2016), or rms (Zhang & Sennrich 2019).
        norm_first: whether a branch normalises what it reads, and a last norm ends the net
            (Xiong et al. 2020); else each sum is normalised, as in the paper.
        activation: one of `FEED_FORWARDS`.
        position: one of `POSITIONS`.
        context: how many positions are learned, for position="learned".
        qk_norm: see `MultiHeadAttention`.
        bias: whether dense layers and layer norms have biases.
        dropout: the share of values dropped from each branch's output.
        chunk: see `attention`.
        remat: what of the blocks' insides the gradient computes again, see `dlcore.nn.remat`.
        epsilon: added to what norms divide by, inside the root.
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
        """A fresh norm."""
        bias = {"use_bias": self.bias} if self.norm == "layer" else {}
        return pick("norm", self.norm, NORMS)(epsilon=self.epsilon, **bias)

    def make_attention(self, *, positions: bool) -> MultiHeadAttention:
        """A fresh attention; one to another sequence, a short one, knows no positions."""
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
    """Self-attention, attention to a memory if there is one, and a feed-forward net.

    Attributes:
        config: of the transformer.
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
        self, x: jax.Array, norm: nn.Module, branch: Callable[[jax.Array], Any], train: bool
    ) -> tuple[jax.Array, Any]:
        """x with a branch's output added, and what else the branch gives."""
        first = self.config.norm_first
        y, more = branch(norm(x) if first else x)
        x = x + self.drop(y, train)
        return (x if first else norm(x)), more

    def __call__(
        self,
        x: jax.Array,
        *,
        attend: Callable[[MultiHeadAttention, jax.Array], tuple[jax.Array, Any]],
        memory: KeyValue | None = None,
        memory_mask: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Any, jax.Array | None]:
        """Maps x [R, T, C] to [R, T, C].

        Args:
            x: the stream.
            attend: how the self-attention is called: gives its output and something more.
            memory: what `meet` gives, of B rows.
            memory_mask: bool [B, 1, 1, S], true where the memory is real.
            train: whether there is dropout.

        Returns:
            The stream, what more `attend` gave, the weights on the memory [B, H, R / B T, S].
        """
        x, more = self._branch(x, self.attention_norm, lambda y: attend(self.attention, y), train)
        weights = None
        if memory is not None:
            x, weights = self._branch(
                x, self.cross_norm, lambda y: self.cross.ask(y, memory, mask=memory_mask), train
            )
        x, _ = self._branch(
            x, self.feed_forward_norm, lambda y: (self.feed_forward(y), None), train
        )
        return x, more, weights

    def meet(self, memory: jax.Array) -> KeyValue:
        """What this block's attention to a memory [B, S, C] looks at."""
        return self.cross.meet(memory)


class Transformer(nn.Module):
    """A stack of blocks: an encoder, a decoder, or the body of a language model.

    Attributes:
        config: what the blocks are like.
        causal: whether a step sees those before it and itself alone.
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
        carry: Any = None,
        lengths: jax.Array | None = None,
        memory: tuple[KeyValue, ...] | None = None,
        memory_mask: jax.Array | None = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
        """Reads x from its start, or on from where the carry stopped.

        Args:
            x: [R, T, C].
            carry: None or that of `initial_carry`: of a cache, x are the steps after those in it.
            lengths: int [B], how many steps of x are real, where not causal; None for all.
            memory: of `meet`.
            memory_mask: bool [B, 1, 1, S], true where the memory is real.
            detach: nothing to cut: no gradient flows through a cache.
            train: whether there is dropout.

        Returns:
            The carry after x; the features [R, T, C]; the activations "layer_0", ..., with the
            attention weights "attention_0", ... [R, H, T, T] and, of a memory, "memory_0", ...
            [B, H, R / B T, S].

        Raises:
            InputError: when x goes beyond the learned positions.
        """
        del detach
        rows, steps = x.shape[:2]
        cached = carry is not None
        positions = jnp.arange(steps)
        if cached:
            positions = positions[None] + carry["position"][:, None]
        x = self._placed(x, positions)
        mask = None if lengths is None else length_mask(lengths, steps)[:, None, None]
        caches, activations = {}, {}
        for i, block in enumerate(self.blocks):
            name = f"layer_{i}"

            def attend(layer: MultiHeadAttention, y: jax.Array, name: str = name) -> Any:
                if cached:
                    return layer.continued(y, carry[name], positions)
                return layer(y, positions=positions, mask=mask, causal=self.causal)

            def call(block: Block, x: jax.Array, memory: Any, attend: Any = attend) -> Any:
                return block(x, attend=attend, memory=memory, memory_mask=memory_mask, train=train)

            call = remat_module(call, "none" if cached else self.config.remat)
            x, more, weights = call(block, x, None if memory is None else memory[i])
            activations[name] = x
            if cached:
                caches[name] = more
            elif more is not None:
                activations[f"attention_{i}"] = more
            if weights is not None:
                activations[f"memory_{i}"] = weights
        if self.config.norm_first:
            x = self.norm(x)
        if cached:
            carry = {**caches, "position": carry["position"] + steps}
        return carry, x, activations

    def _placed(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """x with what the positions int [T] or [R, T] add to it."""
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

    def meet(self, memory: jax.Array) -> tuple[KeyValue, ...]:
        """What each block's attention to a memory [B, S, C] looks at."""
        return tuple(block.meet(memory) for block in self.blocks)

    @nn.nowrap
    def initial_carry(self, batch: int, length: int | None = None) -> dict[str, Any] | None:
        """What the first step starts from; needs no parameters.

        Args:
            batch: R.
            length: L, how many steps will come, one or more at a time; None where whole texts
                are read at once: these hand nothing on.
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
