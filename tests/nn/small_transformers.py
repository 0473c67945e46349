"""Small transformers for tests, with parameters none of which is 0.

Shapes: B batch, T steps, S steps of a memory, C channels, H heads.
"""

import dataclasses
import functools

import jax
import numpy as np

from dlcore.nn.transformer import Transformer, TransformerConfig

B, T, S, C, H = 3, 6, 5, 16, 4
LENGTHS = np.array([5, 3, 1])
BASE = TransformerConfig(C, 2, H, hidden=20)
PAPER = TransformerConfig(
    C,
    2,
    H,
    hidden=20,
    norm="layer",
    norm_first=False,
    activation="relu",
    position="sinusoidal",
    bias=True,
)
MODERN = dataclasses.replace(BASE, groups=2, qk_norm=True, activation="swiglu")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, MEMORY = normal(0, B, T, C), normal(1, B, S, C)
MASK = (np.arange(S)[None] < LENGTHS[:, None])[:, None, None]


def with_position(config, position):
    context = T if position == "learned" else None
    return dataclasses.replace(config, position=position, context=context)


def drawn(shapes):
    """Draws parameters of these shapes, none of which is 0."""
    leaves, structure = jax.tree.flatten(shapes)
    return structure.unflatten([normal(i, *leaf.shape) / 2 for i, leaf in enumerate(leaves)])


def _read(net, x, memory=None, **options):
    if memory is not None:
        options |= {"memory": net.project_keys_values(memory), "memory_mask": MASK}
    carry, y, activations = net(x, **options)
    return y, carry, activations


@functools.partial(jax.jit, static_argnames=("net", "train"))
def read(net, variables, x, memory=None, **options):
    """Returns output, carry and activations of x, with a memory [B, S, C] where MASK is true."""
    rngs = {"dropout": jax.random.key(1)}
    return net.apply(variables, x, memory, **options, method=_read, rngs=rngs)


def made(config, **options):
    """Returns a net and its variables."""
    net = Transformer(config, **options)
    memory = MEMORY if net.reads_memory else None
    init = functools.partial(net.init, method=_read)
    return net, drawn(jax.eval_shape(init, jax.random.key(0), X, memory))
