"""Local response normalisation. Shapes: B batch, C channels (the last axis), `...` any between."""

import jax
import jax.numpy as jnp
from jax import lax

from dlcore.types import at_least_float32


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
    """Divides each value by a power of the energy of its neighbouring channels.

    y_c = x_c / (k + alpha * sum_j x_j^2)^beta, summed over the `size` channels around c; channels
    outside 0..C-1 count as zero (Krizhevsky et al. 2012, section 3.3). The paper does not divide
    alpha by the size; PyTorch and Caffe do, so their alpha is `size` times this one: 5e-4 for the
    paper's network.

    Args:
        x: floating-point input (B, ..., C).
        size: the number of channels in the sum, odd, so that channel c is in the middle.
        alpha: the weight of the sum of squares.
        beta: the exponent.
        k: the constant added to the weighted sum.

    Returns:
        An array of the shape and type of x; the sums have single precision at least.

    Raises:
        ValueError: when the size is not odd and positive.

    >>> x = jnp.array([[1.0, 0.0, 0.0, 3.0]])
    >>> local_response_norm(x, size=3, alpha=1.0, beta=0.5, k=3.0).tolist()[0][:3]
    [0.5, 0.0, 0.0]
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"{size} channels have no middle one; choose an odd size, such as 5")
    n, reach = x.ndim, size // 2
    wide = x.astype(at_least_float32(x.dtype))
    energy = lax.reduce_window(
        wide * wide,
        0.0,
        lax.add,
        (1,) * (n - 1) + (size,),
        (1,) * n,
        ((0, 0),) * (n - 1) + ((reach, reach),),
    )
    return (wide * _inverse_power(k + alpha * energy, beta)).astype(x.dtype)


def _inverse_power(x: jax.Array, beta: float) -> jax.Array:
    """Returns x^-beta, at 3/4 by roots: a power would take longer than the rest of the layer."""
    if beta == 0.75:
        root = lax.rsqrt(x)
        return root * jnp.sqrt(root)
    return x**-beta
