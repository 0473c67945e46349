"""N-gram language models, which are counted with NumPy instead of trained.

Every smoothing here is one recursion over the order m = 1..n,

    p_m(w | h) = own(h w) + back_off(h) p_{m-1}(w | h'),    p_0(w) = 1 / V,

where h is the m - 1 tokens before w and h' is h without its first token. For a history that was
never counted, own is 0 and the back-off 1. With count c, discount d and c(h) = sum_w c(h w):

    own(h w) = (c(h w) - d(c(h w))) / (c(h) + k V)
    back_off(h) = (sum_w d(c(h w)) + k V) / (c(h) + k V)

The smoothings, by name:
    mle: d = 0, k = 0. Words that never followed a counted history have no probability.
    add_k: d = 0, and the back-off goes to p_0 at every order: p = (c(h w) + k) / (c(h) + k V).
    kneser_ney: below the highest order c(h w) counts the distinct tokens before h w (Kneser &
        Ney 1995), interpolated, with one discount per order (Chen & Goodman 1998).
    modified_kneser_ney: the same with three discounts, for counts 1, 2 and more (ibid.).
    katz: counts up to 5 are discounted after Good and Turing, and only words that never followed h
        get the freed probability, in proportion to p_{m-1} (Katz 1987). Here own is the discounted
        share minus the recursion's second term, so it may be negative.

The text is one stream. A token with fewer than n - 1 tokens before it has the probability of the
order that its history allows.

Shapes: N tokens, n order, V vocabulary size, G distinct m-grams, B rows.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dlcore import errors
from dlcore.errors import InputError

SMOOTHINGS = ("mle", "add_k", "kneser_ney", "modified_kneser_ney", "katz")
NO_TOKEN = -1


class Order(NamedTuple):
    """The table of the m-grams of one order m, which are numbered by their index in `keys`.

    Attributes:
        keys: for each m-gram the index of the (m-1)-gram that it starts with, times V, plus its
            last token; ascending, int64 [G].
        own: own(h w) of each m-gram, float64 [G + 1]; the last is 0, so that index -1 means an
            m-gram that was never seen.
        back_off: back_off(h) of each (m-1)-gram, then 1 for one that was never seen; float64.
    """

    keys: np.ndarray
    own: np.ndarray
    back_off: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Returns the indices of the m-grams with some keys, -1 for those never seen."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


@dataclasses.dataclass(frozen=True, eq=False)
class NGram:
    """An n-gram model; `NGram.count` makes one from a text.

    >>> model = NGram.count([0, 1, 0, 1, 0], order=2, vocab_size=2, smoothing="add_k", k=1.0)
    >>> model.distribution([0]).round(2).tolist()
    [0.25, 0.75]


    Attributes:
        vocab_size: V.
        smoothing: the name of the smoothing.
        orders: the tables of the orders 1..n.
    """

    vocab_size: int
    smoothing: str
    orders: tuple[Order, ...]

    @classmethod
    def count(
        cls,
        tokens: ArrayLike,
        *,
        order: int,
        vocab_size: int,
        smoothing: str = "kneser_ney",
        k: float = 1.0,
    ) -> "NGram":
        """Counts the n-grams of a stream.

        Args:
            tokens: integers [N] in 0..V-1, at least n of them.
            order: n, at least 1; n - 1 tokens predict the next.
            vocab_size: V.
            smoothing: a name from the module's list.
            k: the number that add_k adds to each count, above 0; other smoothings ignore it.

        Raises:
            InputError: for an unknown smoothing, n below 1, k not above 0, or fewer than n tokens.
            ValueError: for tokens that are not integers [N] in 0..V-1.
        """
        if smoothing not in SMOOTHINGS:
            raise errors.choose("smoothing", smoothing, SMOOTHINGS)
        if order < 1:
            raise InputError(f"n-gram order {order} is below 1; 5 is usual")
        if smoothing == "add_k" and not 0 < k < np.inf:
            raise InputError(f"add_k needs k above 0, given {k}; 0.01 to 1 is usual")
        tokens = _checked(tokens, vocab_size)
        if len(tokens) < order:
            raise InputError(
                f"{len(tokens)} tokens are too few for n-grams of order {order}; "
                "give a longer text or a lower order"
            )
        keys, counts = _counts(tokens, order, vocab_size, "kneser_ney" in smoothing)
        added = k * vocab_size if smoothing == "add_k" else 0.0
        shorter = [1, *map(len, keys[:-1])]
        orders: list[Order] = []
        grams = np.zeros((1, 0), np.int64)
        for level in zip(keys, shorter, counts, strict=True):
            if smoothing == "katz":
                contexts, words = np.divmod(level[0], vocab_size)
                grams = np.column_stack([grams[contexts], words])
                below = probabilities(orders, grams[:, 1:], vocab_size)
                orders.append(_back_off_only(*level, vocab_size, below))
            else:
                orders.append(_weigh(*level, vocab_size, _discounts(level[2], smoothing), added))
        return cls(vocab_size, smoothing, tuple(orders))

    def log_probs(self, tokens: ArrayLike, *, context: ArrayLike | None = None) -> np.ndarray:
        """Returns the natural logarithm of the probability of each token after those before it.

        Args:
            tokens: integers [N] in 0..V-1.
            context: the tokens before `tokens`; only the last n - 1 count. None when the stream
                starts here.

        Returns:
            float64 [N]; -inf only with mle.

        Raises:
            ValueError: for tokens that are not integers [N] in 0..V-1.
        """
        before = self._history([] if context is None else context)
        stream = np.concatenate([before, _checked(tokens, self.vocab_size)])
        probability = np.full(len(stream), 1 / self.vocab_size)
        places = np.zeros(len(stream) + 1, np.int64)
        for m, order in enumerate(self.orders):
            # Keep the m-grams that start at each position and are followed by a token.
            places = places[: max(0, len(stream) - m)]
            back_off = order.back_off[places] * self._lower(probability[m:])
            places = order.find(places * self.vocab_size + stream[m:])
            probability[m:] = order.own[places] + back_off
        with np.errstate(divide="ignore"):
            return np.log(probability[len(before) :])

    def distribution(self, history: ArrayLike) -> np.ndarray:
        """Returns the probabilities of all tokens after a history; they always sum to 1.

        Args:
            history: integers in 0..V-1, any number of them; only the last n - 1 count.

        Returns:
            float64 [V].

        Raises:
            ValueError: for tokens that are not integers in 0..V-1.
        """
        known = self._history(history)
        probability = np.full(self.vocab_size, 1 / self.vocab_size)
        places = np.zeros(len(known) + 1, np.int64)
        for m, order in enumerate(self.orders[: len(known) + 1]):
            # The last place is that of the m-gram at the end of the history; the m-grams that
            # continue it lie side by side.
            probability = order.back_off[places[-1]] * self._lower(probability)
            first = places[-1] * self.vocab_size
            start, stop = np.searchsorted(order.keys, [first, first + self.vocab_size])
            probability[order.keys[start:stop] - first] += order.own[start:stop]
            places = order.find(places[:-1] * self.vocab_size + known[m:])
        return probability

    def initial_carry(self, batch: int, length: int | None = None) -> jax.Array:
        """Returns the carry of `next_token` before the first token, int32 [B, n - 1].

        Args:
            batch: B.
            length: the number of tokens that will be read, which is ignored.
        """
        del length
        return jnp.full((batch, len(self.orders) - 1), NO_TOKEN, jnp.int32)

    def next_token(self, carry: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps the carry and a token to the next carry and log P; under jit it calls the host.

        Args:
            carry: the last n - 1 tokens before `token`, int32 [B, n - 1]; NO_TOKEN before the
                start of the stream.
            token: int32 [B].

        Returns:
            The carry with `token`, and log P of the token after it, float32 [B, V].
        """
        seen = jnp.concatenate([carry, token[:, None]], axis=1)[:, 1:]
        logits = jax.ShapeDtypeStruct((len(token), self.vocab_size), np.float32)
        return seen, jax.pure_callback(self._logits, logits, seen)

    def _logits(self, histories: jax.Array) -> np.ndarray:
        rows = [self.distribution(row[row != NO_TOKEN]) for row in np.asarray(histories)]
        with np.errstate(divide="ignore"):
            return np.log(rows).astype(np.float32)

    def _lower(self, probability: np.ndarray) -> np.ndarray:
        """Returns the probabilities that an order backs off to, given those of the order below."""
        if self.smoothing == "add_k":
            return np.full(len(probability), 1 / self.vocab_size)
        return probability

    def _history(self, tokens: ArrayLike) -> np.ndarray:
        """Returns the tokens that count as history, the last n - 1."""
        known = _checked(tokens, self.vocab_size)
        return known[max(0, len(known) - len(self.orders) + 1) :]


def probabilities(orders: Sequence[Order], grams: np.ndarray, vocab_size: int) -> np.ndarray:
    """Returns the probability of the last token of each row after the others.

    Args:
        orders: the tables of the orders 1.., at least as many as the rows have tokens.
        grams: int64 [G, m].
        vocab_size: V.

    Returns:
        float64 [G]; 1 / V where the rows are empty.
    """
    probability = np.full(len(grams), 1 / vocab_size)
    length = grams.shape[1]
    for m, order in enumerate(orders[:length]):
        places = np.zeros(len(grams), np.int64)
        for shorter, column in zip(orders, range(length - 1 - m, length - 1), strict=False):
            places = shorter.find(places * vocab_size + grams[:, column])
        found = order.find(places * vocab_size + grams[:, -1])
        probability = order.own[found] + order.back_off[places] * probability
    return probability


def _checked(tokens: ArrayLike, vocab_size: int) -> np.ndarray:
    """Returns the tokens as int64 [N]; raises ValueError for anything else."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
        raise ValueError(f"tokens must be integers [N], given {tokens.dtype} {tokens.shape}")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise ValueError(
            f"tokens must be in 0..{vocab_size - 1}, given {tokens.min()}..{tokens.max()}"
        )
    return tokens.astype(np.int64)


def _counts(
    tokens: np.ndarray, order: int, vocab_size: int, continuation: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the keys of the m-grams of orders 1..n and their counts, each int64 [G].

    With `continuation` the m-grams below the highest order count the distinct tokens before them.
    """
    keys: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    places = np.zeros(len(tokens) + 1, np.int64)
    for m in range(order):
        distinct, first, longer, count = np.unique(
            places[: len(tokens) - m] * vocab_size + tokens[m:],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        if continuation and m:
            # Each distinct m-gram is one more token before an (m-1)-gram, which starts a position
            # later.
            counts[-1] = np.bincount(places[first + 1], minlength=len(keys[-1]))
        keys.append(distinct)
        counts.append(count)
        places = longer
    return keys, counts


def _discounts(counts: np.ndarray, smoothing: str) -> np.ndarray:
    """Returns the discounts of counts 0, 1, 2 and more, float64 [4] (Chen & Goodman 1998).

    With n_j the number of m-grams counted j times, d_j = j - (j + 1) Y n_{j+1} / n_j and
    Y = n_1 / (n_1 + 2 n_2); the single discount Y is d_1. Where this is not above 0, because the
    text is too small or too even, d_j is j / 2: without a discount unseen words would have
    probability 0.
    """
    if "kneser_ney" not in smoothing:
        return np.zeros(4)
    n = np.bincount(np.minimum(counts, 5), minlength=5).astype(float)
    discounts = np.zeros(4)
    for j in (1, 2, 3):
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
        estimate = j - (j + 1) * y * n[j + 1] / n[j] if n[j] and y else 0.0
        discounts[j] = estimate if estimate > 0 else j / 2
    if smoothing == "kneser_ney":
        discounts[1:] = discounts[1]
    return discounts


def _weigh(
    keys: np.ndarray,
    contexts: int,
    counts: np.ndarray,
    vocab_size: int,
    discounts: np.ndarray,
    added: float,
) -> Order:
    """Makes the table of one order from its counts.

    Args:
        keys: the keys of the m-grams [G].
        contexts: the number of (m-1)-grams.
        counts: the counts of the m-grams [G].
        vocab_size: V.
        discounts: see `_discounts`.
        added: k V.
    """
    context = keys // vocab_size
    discount = discounts[np.minimum(counts, 3)]
    total = np.bincount(context, counts, contexts) + added
    kept = np.bincount(context, discount, contexts) + added
    # A history that only ends the text has no successors and is treated as never seen.
    empty = total == 0
    total[empty] = kept[empty] = 1
    own = (counts - discount) / total[context]
    return Order(keys, np.append(own, 0.0), np.append(kept / total, 1.0))


def _back_off_only(
    keys: np.ndarray, contexts: int, counts: np.ndarray, vocab_size: int, below: np.ndarray
) -> Order:
    """Makes the table of one order with Katz's smoothing.

    With r* = (r + 1) n_{r+1} / n_r a count r of at most K = 5 becomes d_r r, where

        d_r = (r* / r - (K + 1) n_{K+1} / n_1) / (1 - (K + 1) n_{K+1} / n_1)

    (Katz 1987, eq. 14 and 15). Where the text is too small or too even for a d_r in (0, 1) the
    count stays whole. A history without any discount, although some words never followed it, keeps
    one count for those words; a history that all words have followed has its relative frequencies.

    Args:
        keys: the keys of the m-grams [G].
        contexts: the number of (m-1)-grams.
        counts: the counts of the m-grams [G].
        vocab_size: V.
        below: the probabilities of the m-grams under the order below, [G].
    """
    context = keys // vocab_size
    n = np.bincount(np.minimum(counts, 7), minlength=8).astype(float)
    factors = np.ones(7)
    beyond = 6 * n[6] / n[1] if n[1] else 1.0
    for r in range(1, 6):
        share = (r + 1) * n[r + 1] / (r * n[r]) if n[r] else 1.0
        factor = (share - beyond) / (1 - beyond) if beyond < 1 else 1.0
        factors[r] = factor if 0 < factor < 1 else 1.0
    full = np.bincount(context, minlength=contexts) == vocab_size
    kept_counts = np.where(full[context], 1.0, factors[np.minimum(counts, 6)]) * counts
    total = np.bincount(context, counts, contexts)
    freed = np.bincount(context, counts - kept_counts, contexts)
    whole = ~full & (freed <= 0)
    total, freed = total + whole, freed + whole
    share = kept_counts / total[context]
    # What the order below gives to the words that are missing here: never 0, but where none is.
    missing = 1 - np.bincount(context, below, contexts)
    missing[full] = 1.0
    back_off = freed / total / missing
    return Order(keys, np.append(share - back_off[context] * below, 0.0), np.append(back_off, 1.0))
