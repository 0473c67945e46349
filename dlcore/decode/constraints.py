"""Constraints on the tokens that a search may take. Shapes: R rows, T steps, V vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError


@dataclasses.dataclass(frozen=True)
class Constraints:
    """Limits on the length and the repetitions of a sequence.

    Attributes:
        end: the token that ends a sequence.
        steps: T, the largest number of tokens in a sequence, including the end token.
        min_length: the smallest number of tokens, including the end token.
        no_repeat: the n of the n-grams that may not occur twice; None allows all.

    Raises:
        InputError: for steps or no_repeat below 1, or min_length outside 0..steps.
    """

    end: int
    steps: int
    min_length: int = 0
    no_repeat: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                f"{self.steps} decoding steps leave no room for a token; give 1 or more"
            )
        if not 0 <= self.min_length <= self.steps:
            raise InputError(
                f"minimum length {self.min_length} is not possible in {self.steps} decoding steps; "
                f"give 0 to {self.steps}, or more steps"
            )
        if self.no_repeat is not None and self.no_repeat < 1:
            raise InputError(
                f"blocked n-grams of size {self.no_repeat} do not exist; give 1 or more"
            )

    def forbid(self, log_probs: jax.Array, tokens: jax.Array, t: jax.Array) -> jax.Array:
        """Sets log P [R, V] of forbidden tokens to -inf, without renormalising the rest.

        Args:
            log_probs: log P of token t, [R, V].
            tokens: the sequences so far, int [R, T], with their first t tokens filled in.
            t: int scalar, from 0.

        Raises:
            ValueError: when the end token is not in 0..V-1.

        >>> constraints = Constraints(end=0, steps=4, no_repeat=1)
        >>> tokens = jnp.array([[2, 0, 0, 0]])
        >>> constraints.forbid(jnp.zeros((1, 3)), tokens, jnp.array(1)).tolist()
        [[0.0, 0.0, -inf]]
        """
        size = log_probs.shape[-1]
        if not 0 <= self.end < size:
            raise ValueError(f"the end token {self.end} is not one of the {size} tokens")
        ends = jnp.arange(size) == self.end
        allowed = jnp.where(ends, t + 1 >= self.min_length, t + 1 < self.steps)
        log_probs = jnp.where(allowed[None], log_probs, -jnp.inf)
        if self.no_repeat is None or self.no_repeat >= self.steps:
            return log_probs
        n = self.no_repeat
        starts = np.arange(self.steps - n + 1)
        grams = tokens[:, starts[:, None] + np.arange(n)]
        last = jax.lax.dynamic_slice_in_dim(tokens, t - n + 1, n - 1, axis=1)
        # True for the n-grams before t that begin like the n-gram that token t would complete.
        same = (grams[..., :-1] == last[:, None]).all(-1) & (starts + n <= t)[None]
        rows = np.arange(len(tokens))[:, None]
        return log_probs.at[rows, grams[..., -1]].min(jnp.where(same, -jnp.inf, jnp.inf))
