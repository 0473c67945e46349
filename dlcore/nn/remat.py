"""Rematerialisation: the backward pass recomputes activations instead of keeping them in memory.

The results stay the same (Griewank & Walther 2000; for deep nets Chen et al. 2016).
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import flax.linen as nn
import jax

from dlcore.errors import pick

P = ParamSpec("P")
R = TypeVar("R")

# The intermediate values that each policy keeps, by JAX's names (`jax.checkpoint_policies`).
POLICIES: dict[str, Callable[..., bool]] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_with_no_batch_dims": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def remat(function: Callable[P, R], policy: str, *, looped: bool = False) -> Callable[P, R]:
    """Makes the gradient of a pure function recompute the values that a policy does not keep.

    Args:
        function: a pure function of arrays; its arguments are always kept.
        policy: one of `POLICIES`: "none" recomputes nothing, "full" recomputes everything, "dots"
            keeps the results of matrix products and convolutions, "dots_with_no_batch_dims" those
            of products without batch dimensions, such as dense layers but not attention scores.
        looped: whether the function is the body of a `jax.lax.scan`, which by itself keeps XLA
            from merging both computations.

    Raises:
        InputError: for an unknown policy.

    >>> cube = remat(lambda x: x**3, "full")
    >>> float(jax.grad(cube)(2.0))
    12.0
    """
    checkpoint_policy = pick("remat policy", policy, POLICIES)
    if policy == "none":
        return function
    return jax.checkpoint(function, policy=checkpoint_policy, prevent_cse=not looped)


def remat_module(call: Callable[P, R], policy: str) -> Callable[P, R]:
    """Does the same as `remat` for a function (Linen module, ...) -> arrays."""
    checkpoint_policy = pick("remat policy", policy, POLICIES)
    return call if policy == "none" else nn.remat(call, policy=checkpoint_policy)
