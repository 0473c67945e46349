"""Multi-head attention: `attention` between projections, with a cache for decoding.

Shapes: B batch, T steps, S steps of a memory, C channels, H heads, G groups that share a key and a
value head, D = C / H features of a head, L length of a cache, R rows: B times the beams.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from dlcore.errors import InputError
from dlcore.nn.attention.functions import attention, attention_weights
from dlcore.nn.attention.positions import alibi_slopes, rotate
from dlcore.nn.dense import Dense


class KeyValue(NamedTuple):
    """Keys and values, [B, G, S, D] each, in the order that `attention` reads fastest."""

    key: jax.Array
    value: jax.Array


class MultiHeadAttention(nn.Module):
    """Attention with H heads (Vaswani et al. 2017, section 3.2.2).

    Parameters: kernels `query` (C, C), `key` and `value` (C, G D), and `output` (C, C); their
    biases if `bias`; and the scales (D,) of `query_norm` and `key_norm` if `qk_norm`. The columns
    of each kernel are ordered by head, so that devices can share the heads.

    Attributes:
        features: C.
        heads: H, which divides C.
        groups: G, which divides H: each key and value head serves H / G query heads (Ainslie et
            al. 2023); 1 is multi-query attention (Shazeer 2019), None takes H.
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
        if self.rotary and self._head_features % 2:
            raise InputError(
                f"heads of {self._head_features} features cannot be rotated in pairs; give an even "
                "width"
            )
        self.query = Dense(self.features, use_bias=self.bias)
        self.key = Dense(self._groups * self._head_features, use_bias=self.bias)
        self.value = Dense(self._groups * self._head_features, use_bias=self.bias)
        self.output = Dense(self.features, use_bias=self.bias, kernel_init=self.output_init)
        if self.qk_norm:
            self.query_norm, self.key_norm = nn.RMSNorm(), nn.RMSNorm()

    @property
    def _groups(self) -> int:
        return self.heads if self.groups is None else self.groups

    @property
    def _head_features(self) -> int:
        return self.features // self.heads

    def _rotate(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if not self.rotary:
            return x
        if positions is None:
            raise ValueError("rotary attention was given no positions; it needs those of each step")
        return rotate(x, positions)

    def project_keys_values(self, x: jax.Array, positions: jax.Array | None = None) -> KeyValue:
        """Returns the keys and values of x [B, S, C] at positions int [S] or [B, S]."""
        shape = *x.shape[:-1], self._groups, self._head_features
        key, value = self.key(x).reshape(shape), self.value(x).reshape(shape)
        key = self.key_norm(key) if self.qk_norm else key
        key = self._rotate(key, positions)
        return KeyValue(key.swapaxes(1, 2), value.swapaxes(1, 2))

    def attend(
        self,
        x: jax.Array,
        keys_values: KeyValue,
        *,
        positions: jax.Array | None = None,
        key_positions: jax.Array | None = None,
        mask: jax.Array | None = None,
        causal: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends from x to keys and values.

        Args:
            x: [R, T, C], where R is B times a number of beams. The beams of a row of the memory,
                which are neighbours in x, become further queries on that row.
            keys_values: the result of `project_keys_values`, with B rows.
            positions: the positions of x for `rotary`, int [T] or [R, T].
            key_positions: the index of each query among the keys, int [T] or, where R is B, [B, T];
                None where the queries are the last keys.
            mask: bool [B, 1, T or 1, S], true where a query may attend.
            causal: whether a query sees only the keys up to its own index.

        Returns:
            The output [R, T, C] and the weights [B, H, R / B T, S], which cost nothing under jit
            unless they are used; None where the attention runs in chunks.
        """
        query = self.query(x).reshape(*x.shape[:-1], self.heads, self._head_features)
        query = self.query_norm(query) if self.qk_norm else query
        query = self._rotate(query, positions)
        query = query.reshape(len(keys_values.key), -1, self.heads, self._head_features)
        slopes = alibi_slopes(self.heads) if self.alibi else None
        key, value = (leaf.swapaxes(1, 2) for leaf in keys_values)
        y = attention(
            query,
            key,
            value,
            mask=mask,
            slopes=slopes,
            positions=key_positions,
            causal=causal,
            chunk=self.chunk,
        )
        weights = None
        if not self.chunk:
            weights = attention_weights(
                query, key, mask=mask, slopes=slopes, positions=key_positions, causal=causal
            )
        return self.output(y.reshape(*x.shape[:-1], self.features)), weights

    def __call__(
        self,
        x: jax.Array,
        *,
        positions: jax.Array | None = None,
        mask: jax.Array | None = None,
        causal: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends from x [B, T, C] to itself; see `attend`."""
        keys_values = self.project_keys_values(x, positions)
        return self.attend(x, keys_values, positions=positions, mask=mask, causal=causal)

    def attend_cached(
        self, x: jax.Array, cache: KeyValue, positions: jax.Array
    ) -> tuple[jax.Array, KeyValue]:
        """Attends causally from the next steps to themselves and to the cached steps.

        Args:
            x: the next T steps, [R, T, C].
            cache: the keys and values of the steps before, [R, G, L, D].
            positions: the positions of x, int [R, T]. A step past L does not fit into the cache,
                and no query sees it.

        Returns:
            The output [R, T, C], and the cache with the T steps added.
        """
        rows, heads = jnp.arange(len(x))[:, None, None], jnp.arange(self._groups)[None, :, None]
        index = (rows, heads, positions[:, None])
        cache = KeyValue(
            *(
                old.at[index].set(new.astype(old.dtype), mode="drop")
                for old, new in zip(cache, self.project_keys_values(x, positions), strict=True)
            )
        )
        y, _ = self.attend(x, cache, positions=positions, key_positions=positions, causal=True)
        return y, cache
