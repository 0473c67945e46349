"""Triplet losses, and the mining of triplets in a whole batch.

A triplet is an anchor, a positive of its identity and a negative of another identity. All shapes
are fixed, so that mining runs within the compiled step. Shapes: A local anchors, N examples of the
global batch, T triplets of one anchor.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.errors import choose
from dlcore.losses.pairs import Pairs, PerAnchor, mean_where

# The loss of d(anchor, positive) - d(anchor, negative).
Penalty = Callable[[jax.Array], jax.Array]
# Which negatives a triplet loss takes, see `miner`.
MINING = ("all", "hard", "semi_hard", "distance_weighted")
# Anchors that are mined together: "all" makes an array (_TOGETHER, N, N).
_TOGETHER = 16
# Of Wu et al.'s program: the distance below which negatives are drawn no more often, which is their
# cap lambda, and the one from which they are not drawn.
_NEAR, _FAR = 0.5, 1.4


class Triplets(NamedTuple):
    """The triplets of one anchor.

    Attributes:
        positive: (T,), the distances of the anchor to the positives.
        negative: (T,), the distances of the anchor to the negatives.
        real: (T,), false for entries that are not triplets.
    """

    positive: jax.Array
    negative: jax.Array
    real: jax.Array


# Maps the distances of an anchor (N,), which of them are of positives and of negatives (N,), and
# the key of the anchor to its triplets.
Miner = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Triplets]


def margin_penalty(margin: float) -> Penalty:
    """Returns max(d_p - d_n + margin, 0) as a function of d_p - d_n (Schroff et al. 2015, eq. 2).

    In the paper, the distances are squared L2 distances on the unit sphere and the margin is 0.2.

    >>> margin_penalty(0.5)(jnp.array([-1.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    return lambda difference: jnp.maximum(difference + margin, 0)


def soft_penalty(difference: jax.Array) -> jax.Array:
    """Returns log(1 + exp(d_p - d_n)), the soft margin (Hermans et al. 2017, section 2)."""
    return jax.nn.softplus(difference)


def triplet(
    pairs: Pairs, penalty: Penalty, *, mine: Miner, key: jax.Array | None = None
) -> PerAnchor:
    """Returns the mean penalty of each anchor's triplets; the weights are their numbers.

    The gradient of the distances that were not chosen is 0.

    Args:
        pairs: the pairs of a batch.
        penalty: `margin_penalty(alpha)` or `soft_penalty`.
        mine: the mining, from `miner`.
        key: the key of the step, for mining that draws. Each anchor draws by its position in the
            global batch, so that the layout changes nothing.

    >>> pairs = Pairs(jnp.array([[0.0, 2.0, 2.5]]), jnp.array([[False, True, False]]),
    ...               jnp.array([[False, False, True]]), jnp.array([0]))
    >>> triplet(pairs, margin_penalty(1.0), mine=miner("hard")).losses.tolist()
    [0.5]
    """
    key = jax.random.key(0) if key is None else key

    def of_anchor(anchor: Pairs) -> PerAnchor:
        own = jax.random.fold_in(key, anchor.positions)
        found = mine(anchor.distances, anchor.positive, anchor.negative, own)
        losses = penalty(found.positive - found.negative)
        return PerAnchor(mean_where(losses, found.real), found.real.sum().astype(losses.dtype))

    # The gradient finds the triplets of a few anchors again, instead of keeping those of all.
    mined: PerAnchor = jax.lax.map(jax.checkpoint(of_anchor), pairs, batch_size=_TOGETHER)
    return mined


def miner(name: str, *, dimensions: int | None = None) -> Miner:
    """Returns the named mining.

    - "all": each positive with each negative (Hermans et al.'s "batch all").
    - "hard": the farthest positive with the nearest negative ("batch hard").
    - "semi_hard": each positive with the nearest negative that is farther than it (Schroff et al.,
      section 3.2); where none is, with the farthest negative.
    - "distance_weighted": each positive with a negative drawn as if all distances were equally
      frequent (Wu et al. 2017, section 4.1). The distances must be L2 on the unit sphere. Negatives
      farther than 1.4 are drawn only where there are no others.

    Args:
        name: one of `MINING`.
        dimensions: the dimensions of an embedding, at least 2, for "distance_weighted".

    Raises:
        InputError: for an unknown name.
    """
    if name == "distance_weighted":
        if dimensions is None or dimensions < 2:
            raise ValueError(f"distance_weighted mining in {dimensions} dimensions; give 2 or more")
        return functools.partial(_distance_weighted, dimensions=dimensions)
    table: dict[str, Miner] = {"all": _all, "hard": _hard, "semi_hard": _semi_hard}
    if name not in table:
        raise choose("mining", name, MINING)
    return table[name]


def _all(
    distances: jax.Array, positive: jax.Array, negative: jax.Array, key: jax.Array
) -> Triplets:
    count = len(distances)
    return Triplets(
        jnp.repeat(distances, count),
        jnp.tile(distances, count),
        (positive[:, None] & negative[None]).ravel(),
    )


def _hard(
    distances: jax.Array, positive: jax.Array, negative: jax.Array, key: jax.Array
) -> Triplets:
    farthest = jnp.where(positive, distances, -jnp.inf).argmax()
    nearest = jnp.where(negative, distances, jnp.inf).argmin()
    real = positive.any() & negative.any()
    return Triplets(distances[farthest][None], distances[nearest][None], real[None])


def _semi_hard(
    distances: jax.Array, positive: jax.Array, negative: jax.Array, key: jax.Array
) -> Triplets:
    found = jax.lax.stop_gradient(distances)
    farthest = jnp.where(negative, found, -jnp.inf).argmax()

    def choose(rank: jax.Array, place: jax.Array) -> jax.Array:
        farther = negative & (found > found[place])
        nearest = jnp.where(farther, found, jnp.inf).argmin()
        return jnp.where(farther.any(), nearest, farthest)

    chosen = _for_each_positive(choose, positive)
    return Triplets(distances, distances[chosen], positive & negative.any())


def _distance_weighted(
    distances: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    key: jax.Array,
    *,
    dimensions: int,
) -> Triplets:
    chances = jnp.where(
        negative & (distances < _FAR), log_inverse_density(distances, dimensions), -jnp.inf
    )
    # Where all negatives are far, each is as likely as the others.
    far = jnp.where(negative, jnp.zeros_like(chances), -jnp.inf)
    chances = jnp.where(jnp.isfinite(chances).any(), chances, far)
    chances = jnp.where(negative.any(), chances, jnp.zeros_like(chances))
    drawn = _for_each_positive(
        lambda rank, place: jax.random.categorical(jax.random.fold_in(key, rank), chances), positive
    )
    return Triplets(distances, distances[drawn], positive & negative.any())


def _for_each_positive(
    choose: Callable[[jax.Array, jax.Array], jax.Array], positive: jax.Array
) -> jax.Array:
    """Returns the index of the chosen negative for each positive of an anchor, (N,).

    Positives are few among the N examples, so they are looked at one after the other instead of as
    all pairs at once.

    Args:
        choose: (the number of positives before a positive, its index) -> the index of the
            negative, without a gradient.
        positive: (N,).
    """
    ranks, count = jnp.cumsum(positive) - 1, positive.sum()

    def more(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[0] < count

    def one(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rank, chosen = state
        place = (positive & (ranks == rank)).argmax()
        return rank + 1, chosen.at[place].set(choose(rank, place).astype(chosen.dtype))

    start = jnp.zeros_like(count), jnp.zeros(len(positive), jnp.int32)
    return jax.lax.while_loop(more, one, start)[1]


def log_inverse_density(distances: jax.Array, dimensions: int) -> jax.Array:
    """Returns -log q(d) up to a constant, with q the density of distances on the unit sphere.

    q(d) = d^(n - 2) (1 - d^2 / 4)^((n - 3) / 2) (Wu et al. 2017, eq. 2), for d of 0.5 at least.

    Args:
        distances: distances from 0 to 2, of any shape.
        dimensions: n.
    """
    d = jax.lax.stop_gradient(jnp.clip(distances, _NEAR, 1.99))
    return -(dimensions - 2) * jnp.log(d) - (dimensions - 3) / 2 * jnp.log1p(-(d**2) / 4)
