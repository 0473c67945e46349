"""Multi-head attention: projections around `attention`, with a cache for decoding.

Shapes: B batch, T steps, S steps of a memory, C channels, H heads, G groups that share a key and a
value head, D = C / H features of a head, L length of a cache, R rows: B times the beams.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from dlcore.errors import InputError
from dlcore.nn.attention.functions import attention, attention_weights
from dlcore.nn.attention.positions import alibi_slopes, rotate


class KeyValue(NamedTuple):
    """What queries meet: the keys and the values, [B, G, S, D] each.

    This is the order in which products read them at each step of decoding; see `attention`.
    """

    key: jax.Array
    value: jax.Array


class MultiHeadAttention(nn.Module):
    """Attention with H heads (Vaswani et al. 2017, section 3.2.2).

    Parameters: kernels `query` (C, C), `key` and `value` (C, G D), and `output` (C, C), their
    biases with `bias`, and the scales of `query_norm` and `key_norm` (D,) with `qk_norm`. The
    columns of each kernel stand head by head, so that devices can share the heads.

    Attributes:
        features: C.
        heads: H, which divides C.
        groups: G, which divides H: each key and value head serves H / G queries (Ainslie et al.
            2023); 1 is multi-query attention (Shazeer 2019). None for H.
        rotary: whether queries and keys are rotated by their positions (Su et al. 2021).
        alibi: whether scores fall linearly with the distance (Press et al. 2022).
        qk_norm: whether queries and keys are divided by their root mean square, so that scores
            stay bounded (Dehghani et al. 2023, with the norm of Henry et al. 2020).
        bias: whether the projections have biases.
        chunk: see `attention`; None computes all scores at once.
        output_init: draws the kernel `output`.
    """

    features: int
    heads: int
    groups: int | None = None
    rotary: bool = False
    alibi: bool = False
    qk_norm: bool = False
    bias: bool = False
    chunk: int | None = None
    output_init: Initializer = nn.initializers.zeros_init()

    def setup(self) -> None:
        if self.heads < 1 or self.features % self.heads:
            raise InputError(
                f"{self.heads} heads cannot share {self.features} features; give a divisor"
            )
        if self._groups < 1 or self.heads % self._groups:
            raise InputError(
                f"{self._groups} key and value heads cannot serve {self.heads} heads; give a "
                "divisor of these"
            )
        if self.rotary and self._head % 2:
            raise InputError(
                f"heads of {self._head} features cannot be rotated in pairs; give an even width"
            )
        self.query = nn.Dense(self.features, use_bias=self.bias)
        self.key = nn.Dense(self._groups * self._head, use_bias=self.bias)
        self.value = nn.Dense(self._groups * self._head, use_bias=self.bias)
        self.output = nn.Dense(self.features, use_bias=self.bias, kernel_init=self.output_init)
        if self.qk_norm:
            self.query_norm, self.key_norm = nn.RMSNorm(), nn.RMSNorm()

    @property
    def _groups(self) -> int:
        return self.heads if self.groups is None else self.groups

    @property
    def _head(self) -> int:
        return self.features // self.heads

    def _rotated(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if not self.rotary:
            return x
        if positions is None:
            raise ValueError("rotary attention was given no positions; it needs those of each step")
        return rotate(x, positions)

    def meet(self, x: jax.Array, positions: jax.Array | None = None) -> KeyValue:
        """The keys and values of x [B, S, C] at positions int [S] or [B, S]."""
        shape = *x.shape[:-1], self._groups, self._head
        key, value = self.key(x).reshape(shape), self.value(x).reshape(shape)
        key = self.key_norm(key) if self.qk_norm else key
        key = self._rotated(key, positions)
        return KeyValue(key.swapaxes(1, 2), value.swapaxes(1, 2))

    def ask(
        self,
        x: jax.Array,
        met: KeyValue,
        *,
        positions: jax.Array | None = None,
        places: jax.Array | None = None,
        mask: jax.Array | None = None,
        causal: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends from x to what `meet` gave.

        Args:
            x: [R, T, C], where R is B times a number of beams: those of one row of the memory,
                which are neighbours, are further queries on it.
            met: of B rows.
            positions: int [T] or [R, T] of x.
            places: the place of each query among the keys, int [T] or [B, T] where R is B; None
                where the queries are the last keys.
            mask: bool [B, 1, T or 1, S], true where a query may look.
            causal: whether a query sees only the keys up to its own place.

        Returns:
            [R, T, C], and the weights [B, H, R / B T, S], which cost nothing under jit unless they
            are used; None where they are computed in chunks.
        """
        query = self.query(x).reshape(*x.shape[:-1], self.heads, self._head)
        query = self.query_norm(query) if self.qk_norm else query
        query = self._rotated(query, positions)
        query = query.reshape(len(met.key), -1, self.heads, self._head)
        how: dict[str, Any] = {"mask": mask, "positions": places, "causal": causal}
        if self.alibi:
            how["slopes"] = alibi_slopes(self.heads)
        key, value = (leaf.swapaxes(1, 2) for leaf in met)
        y = attention(query, key, value, **how, chunk=self.chunk)
        weights = None if self.chunk else attention_weights(query, key, **how)
        return self.output(y.reshape(*x.shape[:-1], self.features)), weights

    def __call__(
        self,
        x: jax.Array,
        *,
        positions: jax.Array | None = None,
        mask: jax.Array | None = None,
        causal: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Self-attention: what `ask` gives for x [B, T, C] and its own keys and values."""
        met = self.meet(x, positions)
        return self.ask(x, met, positions=positions, mask=mask, causal=causal)

    def continued(
        self, x: jax.Array, cached: KeyValue, positions: jax.Array
    ) -> tuple[jax.Array, KeyValue]:
        """Causal self-attention of the next steps alone.

        Args:
            x: [R, T, C], the next T steps.
            cached: the keys and values of the steps before, [R, G, L, D].
            positions: int [R, T] of x. A step past L finds no room, and is not seen.

        Returns:
            [R, T, C], and the cache with the T steps.
        """
        rows, heads = jnp.arange(len(x))[:, None, None], jnp.arange(self._groups)[None, :, None]
        place = (rows, heads, positions[:, None])
        met = KeyValue(
            *(
                cache.at[place].set(new.astype(cache.dtype), mode="drop")
                for cache, new in zip(cached, self.meet(x, positions), strict=True)
            )
        )
        y, _ = self.ask(x, met, positions=positions, places=positions, causal=True)
        return y, met
