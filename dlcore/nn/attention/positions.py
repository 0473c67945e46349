"""How a transformer knows where a token stands.

Shapes: B batch, T time, H heads, D features of a head, F features.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError

POSITIONS = ("none", "learned", "sinusoidal", "rotary", "alibi")


def sinusoidal(positions: jax.Array, features: int) -> jax.Array:
    """sin and cos of each position at F / 2 wavelengths from 2 pi to 10,000 * 2 pi, [..., F].

    Feature 2i is the sine and 2i + 1 the cosine of position / 10,000^(2i / F) (Vaswani et al. 2017,
    section 3.5). Float32.

    Args:
        positions: int [T] or [B, T].
        features: F.

    Raises:
        InputError: when F is odd.
    """
    angles = _angles(positions, features, 10_000.0)
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(*positions.shape, features)


def rotate(x: jax.Array, positions: jax.Array, *, base: float = 10_000.0) -> jax.Array:
    """Rotates pairs of features by angles that grow with the position, [B, T, H, D].

    The product of a rotated query and a rotated key depends on their distance alone (Su et al.
    2021, eq. 34). Feature i makes a pair with i + D / 2, as in most of today's models, and turns by
    position / base^(2i / D). The paper pairs 2i with 2i + 1: its features 0, 2, 4, ... are the
    first half here and 1, 3, 5, ... the second, a permutation that leaves all products as they are.

    Args:
        x: [B, T, H, D].
        positions: int [T] or [B, T].
        base: the longest wavelength is about 2 pi times this.

    Raises:
        InputError: when D is odd.
    """
    features = x.shape[-1]
    angles = _angles(positions.reshape(-1, positions.shape[-1]), features, base)[:, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _angles(positions: jax.Array, features: int, base: float) -> jax.Array:
    """position / base^(2i / F) for i < F / 2, float32 [..., F / 2]."""
    if features % 2:
        raise InputError(
            f"{features} features cannot be paired for positions; choose an even number"
        )
    rates = base ** -(np.arange(0, features, 2) / features)
    return positions[..., None].astype(jnp.float32) * jnp.asarray(
        rates.reshape([1] * positions.ndim + [-1]), jnp.float32
    )


def alibi_slopes(heads: int) -> np.ndarray:
    """How fast each head forgets with distance, float32 [H] (Press et al. 2022, section 3).

    For n heads, a power of two, the geometric sequence 2^(-8/n), 2^(-16/n), ..., 2^-8. For other
    numbers that of the power of two below, then every second one of that of twice as many heads,
    as the authors' code has it.

    Raises:
        InputError: when there is no head.
    """
    if heads < 1:
        raise InputError(f"{heads} heads of attention; choose at least 1")
    below = 1 << heads.bit_length() - 1
    known = np.arange(1, below + 1) / below
    between = np.arange(1, 2 * below + 1, 2)[: heads - below] / (2 * below)
    return 2.0 ** (-8 * np.concatenate([known, between])).astype(np.float32)
