"""Rematerialisation: what the backward pass computes again, instead of keeping it in memory.

Griewank & Walther 2000; for deep nets Chen et al. 2016. The results are the same.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from dlcore.errors import pick

Function = Callable[..., Any]

# By JAX's names (`jax.checkpoint_policies`): what is kept of the insides of a block.
POLICIES: dict[str, Callable[..., bool]] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def remat(function: Function, policy: str, *, looped: bool = False) -> Function:
    """A pure function that keeps for its gradient, beside its arguments, what a policy says.

    Args:
        function: of arrays.
        policy: one of `POLICIES`: "none" keeps all and computes nothing again, "full" keeps
            nothing, "dots" the results of matrix products and convolutions,
            "dots_with_no_batch_dims" those of products without batch dimensions: of dense layers,
            not the scores of attention.
        looped: whether it is the body of a `jax.lax.scan`, which keeps both computations apart by
            itself.
    """
    keep = pick("remat policy", policy, POLICIES)
    if policy == "none":
        return function
    return jax.checkpoint(function, policy=keep, prevent_cse=not looped)


def remat_module(call: Function, policy: str) -> Function:
    """The same for a function of a Linen module and arrays, (module, ...) -> arrays."""
    keep = pick("remat policy", policy, POLICIES)
    return call if policy == "none" else nn.remat(call, policy=keep)
