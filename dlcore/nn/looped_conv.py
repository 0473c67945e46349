"""A convolution whose gradient stays fast inside a loop on a CPU.

XLA's CPU compiler finds its fast kernels for any convolution of the main program, but inside a loop
(`jax.lax.scan`) only for those whose axes lie as in a forward pass; any other runs up to a hundred
times slower (jax-ml/jax#12868). The gradients that JAX derives lie otherwise, so here they are
written as forward convolutions of transposed arrays. Only on a CPU: elsewhere JAX's own forms are
those that the compilers know. Shapes: B batch, H W image, C channels, K filters, F an odd window.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

AXES = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def same_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) by a kernel (F, F, C, K) to (B, H, W, K): stride 1, zeros around x.

    Its gradient exists in reverse mode only.
    """
    return _convolve(x, kernel, kernel.shape[0])


def looped_conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **_: Any
) -> jax.Array:
    """`same_convolution` in the form that Flax's `Conv` calls.

    Raises:
        ValueError: for any convolution but one of stride 1 with an odd window and F // 2 zeros on
            each side.
    """
    window = kernel.shape[0]
    pads = [(window // 2, window // 2)] * 2
    same = tuple(strides) == (1, 1) and list(map(tuple, padding)) == pads
    if not same or kernel.shape[1] != window or window % 2 == 0:
        raise ValueError(f"not a convolution that keeps the image's size: {kernel.shape}, {pads}")
    return same_convolution(x, kernel)


def _convolve(x: jax.Array, kernel: jax.Array, window: int) -> jax.Array:
    """Correlates with `window` // 2 zeros around x."""
    pad = (window // 2, window // 2)
    return lax.conv_general_dilated(x, kernel, (1, 1), (pad, pad), dimension_numbers=AXES)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return same_convolution(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(*saved, g, cpu=_as_forward, default=_as_derived)


def _as_forward(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    window = kernel.shape[0]
    # To x: the mirrored kernels, from filters to channels.
    to_x = _convolve(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), window)
    # To the kernel: the image correlated with the gradient, examples in the place of channels.
    to_kernel = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), window)
    return to_x, to_kernel.transpose(1, 2, 0, 3)


def _as_derived(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    _, pull_back = jax.vjp(lambda x, kernel: _convolve(x, kernel, kernel.shape[0]), x, kernel)
    return pull_back(g)


same_convolution.defvjp(_forward, _backward)
