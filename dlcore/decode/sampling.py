"""Temperature, top-k, nucleus and min-p sampling.

Shapes: B rows, V vocabulary.
"""

import jax
import jax.numpy as jnp

from dlcore.decode.next_token import Carry, NextToken
from dlcore.errors import InputError
from dlcore.types import at_least_float32


def filter_logits(
    logits: jax.Array,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> jax.Array:
    """Returns the logits of the distribution that `sample` draws from, -inf for dropped tokens.

    This divides the logits by the temperature and keeps the k likeliest tokens. It renormalises
    them and keeps their nucleus, and of the nucleus the tokens that are not too far below the
    likeliest one. Among equal logits the lower token id counts as likelier.

    Args:
        logits: (B, V); the computation is in float32 at least.
        temperature: below 1 sharpens, above 1 flattens; 0 keeps the likeliest token only.
        top_k: the number of tokens to keep, at least 1; None keeps all.
        top_p: keeps the smallest set of the likeliest tokens whose probability reaches this share
            (Holtzman et al. 2020), in (0, 1]; None or 1 keeps all. Without top_k all V are sorted.
        min_p: keeps the tokens that have at least this share of the likeliest one's probability
            (Nguyen et al. 2024), in (0, 1]; None keeps all.

    Raises:
        InputError: for values outside these ranges.

    >>> filter_logits(jnp.array([[2.0, 0.0, 1.0]]), top_k=2).tolist()
    [[0.0, -inf, -1.0]]
    """
    _require(temperature, top_k, top_p, min_p)
    if temperature == 0:
        temperature, top_k = 1.0, 1
    logits = logits.astype(at_least_float32(logits.dtype))
    # Subtracting the maximum first, because the quotient could overflow.
    logits = (logits - logits.max(-1, keepdims=True)) / temperature
    if top_p == 1:
        top_p = None
    if top_k is not None or top_p is not None:
        size = logits.shape[-1]
        kept, tokens = jax.lax.top_k(logits, size if top_k is None else min(top_k, size))
        if top_p is not None:
            mass = jnp.cumsum(jax.nn.softmax(kept), axis=-1)
            before = jnp.pad(mass[:, :-1], ((0, 0), (1, 0)))
            kept = jnp.where(before < top_p, kept, -jnp.inf)
        nothing = jnp.full_like(logits, -jnp.inf)
        logits = jnp.put_along_axis(nothing, tokens, kept, axis=-1, inplace=False)
    if min_p is not None:
        # The likeliest token has the logit 0, whatever was dropped.
        logits = jnp.where(logits >= jnp.log(min_p), logits, -jnp.inf)
    return logits


def _require(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """Raises InputError for options outside the ranges that `filter_logits` lists."""
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature {temperature} is not possible; give 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k {top_k} keeps no token; give 1 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p {top_p} is not a share; give one in (0, 1]")
    if min_p is not None and not 0 < min_p <= 1:
        raise InputError(f"min_p {min_p} is not a share; give one in (0, 1]")


def sample(
    key: jax.Array,
    logits: jax.Array,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> jax.Array:
    """Draws a token for each row, independently of the other rows.

    Args:
        key: the key of the draw; row b uses `fold_in(key, b)`.
        logits: (B, V).
        temperature: see `filter_logits`; 0 is greedy, the lowest of the likeliest tokens.
        top_k: see there.
        top_p: see there.
        min_p: see there.

    Returns:
        The tokens, int32 (B,).

    Raises:
        InputError: as `filter_logits`.

    >>> sample(jax.random.key(0), jnp.array([[0.0, 2.0, 1.0]]), temperature=0).tolist()
    [1]
    """
    if temperature == 0:
        _require(temperature, top_k, top_p, min_p)
        return logits.argmax(-1).astype(jnp.int32)
    logits = filter_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(logits)))
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def generate(
    next_token: NextToken[Carry],
    carry: Carry,
    first: jax.Array,
    key: jax.Array,
    *,
    steps: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> jax.Array:
    """Continues each row by `steps` tokens, each drawn after all those before it.

    Args:
        next_token: the model, see `NextToken`.
        carry: the model's carry before it reads `first`: its initial carry, or the carry after the
            other tokens of a prompt.
        first: the last known token of each row, int32 (B,).
        key: the key of all draws; step t uses `fold_in(key, t)`.
        steps: the number of tokens to draw.
        temperature: see `filter_logits`.
        top_k: see there.
        top_p: see there.
        min_p: see there.

    Returns:
        The drawn tokens without `first`, int32 (B, steps).

    Raises:
        InputError: as `filter_logits`.
    """

    def step(
        state: tuple[Carry, jax.Array], t: jax.Array
    ) -> tuple[tuple[Carry, jax.Array], jax.Array]:
        carry, logits = next_token(*state)
        token = sample(
            jax.random.fold_in(key, t),
            logits,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
        )
        return (carry, token), token

    start = (carry, first.astype(jnp.int32))
    return jax.lax.scan(step, start, jnp.arange(steps))[1].swapaxes(0, 1)
