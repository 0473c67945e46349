"""Encodings of the positions of tokens for transformers.

Shapes: B batch, T time, H heads, D features of a head, F features.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.types import at_least_float32

# How a transformer knows the places of its inputs.
POSITIONS = ("none", "learned", "sinusoidal", "rotary", "alibi")


def sinusoidal(positions: jax.Array, features: int) -> jax.Array:
    """Returns sine and cosine of each position at F / 2 wavelengths from 2 pi to 10,000 * 2 pi.

    Feature 2i is the sine and 2i + 1 the cosine of position / 10,000^(2i / F) (Vaswani et al. 2017,
    section 3.5). The result is float32 [T, F] or [B, T, F].

    Args:
        positions: int [T] or [B, T].
        features: F.

    Raises:
        InputError: when F is odd.

    >>> sinusoidal(jnp.array([0]), 4).tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    """
    angles = _angles(positions, features, 10_000.0)
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*positions.shape, features)


def rotate(x: jax.Array, positions: jax.Array, *, base: float = 10_000.0) -> jax.Array:
    """Rotates pairs of features by angles that grow with the position, [B, T, H, D].

    The positions enter the product of a rotated query and key by their distance alone (Su et al.
    2021, eq. 34). Feature i forms a pair with i + D / 2, as in most of today's models, and turns by
    position / base^(2i / D). The paper pairs 2i with 2i + 1: its features 0, 2, 4, ... are the
    first half here and 1, 3, 5, ... the second, a permutation that changes no product.

    Args:
        x: [B, T, H, D].
        positions: int [T] or [B, T].
        base: the longest wavelength is about 2 pi times this.

    Raises:
        InputError: when D is odd.
    """
    features = x.shape[-1]
    angles = _angles(positions.reshape(-1, positions.shape[-1]), features, base)[:, :, None]
    dtype = at_least_float32(x.dtype)
    cos, sin = jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)
    a, b = jnp.split(x.astype(dtype), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _angles(positions: jax.Array, features: int, base: float) -> jax.Array:
    """Returns position / base^(2i / F) for i < F / 2, float32 [..., F / 2]."""
    if features % 2:
        raise InputError(
            f"{features} features cannot be paired for positions; choose an even number"
        )
    rates = base ** -(np.arange(0, features, 2) / features)
    return positions[..., None].astype(jnp.float32) * jnp.asarray(
        rates.reshape([1] * positions.ndim + [-1]), jnp.float32
    )


def alibi_slopes(heads: int) -> np.ndarray:
    """Returns the factors of ALiBi's distances, float32 [H] (Press et al. 2022, section 3).

    For n heads, a power of two, they are the geometric sequence 2^(-8/n), 2^(-16/n), ..., 2^-8. For
    other numbers of heads they are the sequence of the next lower power of two, followed by every
    second element of the sequence of twice that power, as in the authors' code.

    Raises:
        InputError: when there is no head.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    if heads < 1:
        raise InputError(f"{heads} heads of attention are impossible; choose at least 1")
    below = 1 << heads.bit_length() - 1
    known = np.arange(1, below + 1) / below
    between = np.arange(1, 2 * below + 1, 2)[: heads - below] / (2 * below)
    return 2.0 ** (-8 * np.concatenate([known, between])).astype(np.float32)
