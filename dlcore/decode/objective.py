"""The objective of beam search. Shapes: `...` any axes, S source steps."""

import dataclasses

import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.errors import InputError

# How a score depends on the length of a hypothesis, see `Objective`.
NORMALISATIONS = ("none", "average", "power", "gnmt")


@dataclasses.dataclass(frozen=True)
class Objective:
    """An objective: log P(Y), divided by a function of the length |Y|, plus a coverage penalty.

    Each further token lowers log P, so that without normalisation short outputs win; the division
    corrects this bias. |Y| includes the end token.

    Attributes:
        normalise: the divisor of log P: "none" is 1, "average" |Y|, "power" |Y|^alpha, "gnmt"
            ((5 + |Y|) / 6)^alpha (Wu et al. 2016, eq. 14).
        alpha: the exponent of "power" and "gnmt", at least 0; 0.5 to 1 is usual.
        coverage: the factor beta >= 0 of sum_i log(min(sum_t a_ti, 1)), which penalises source
            steps i with little attention a over all target steps t (ibid.); 0.2 is usual.

    Raises:
        InputError: for an unknown normalisation, alpha or coverage below 0 or not finite.

    >>> float(Objective("average").score(jnp.array(-6.0), 3))
    -2.0
    """

    normalise: str = "none"
    alpha: float = 0.7
    coverage: float = 0.0

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise errors.choose("length normalisation", self.normalise, NORMALISATIONS)
        for name in ("alpha", "coverage"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} {value} of a search objective is not 0 or more; 0 is off")

    def score(
        self, log_prob: jax.Array, length: jax.Array | int, coverage: jax.Array | None = None
    ) -> jax.Array:
        """Returns the scores of finished sequences, [...].

        Args:
            log_prob: log P of the sequences with their end tokens [...].
            length: their lengths |Y| >= 1, [...] or one for all.
            coverage: the attention of each source step summed over all target steps [..., S], 1 at
                padding; needed if the factor `self.coverage` is above 0.

        Raises:
            InputError: when the coverage is needed and missing.
        """
        score = log_prob / self._normaliser(length)
        if self.coverage == 0:
            return score
        if coverage is None:
            raise InputError(
                f"a coverage penalty of {self.coverage} needs the attention of the model, but this "
                "one has none; choose a coverage of 0 or a model with attention"
            )
        # Instead of -inf, a source step without any attention costs a large finite number, which
        # keeps scores comparable.
        covered = jnp.clip(coverage, jnp.finfo(coverage.dtype).tiny, 1)
        return score + self.coverage * jnp.log(covered).sum(-1)

    def bound(self, log_prob: jax.Array, longest: int) -> jax.Array:
        """Returns an upper bound on the scores of all continuations of sequences, [...].

        Args:
            log_prob: log P of the unfinished sequences so far [...].
            longest: the greatest |Y| that a continuation can reach.
        """
        # Let Y continue a sequence of log P = L, and n(.) be the normaliser. Factors of P are at
        # most 1, so log P(Y) <= L <= 0. As alpha >= 0, n grows with the length, so that
        # 0 < n(|Y|) <= n(longest). Hence log P(Y) / n(|Y|) <= L / n(|Y|) <= L / n(longest), and the
        # penalty, a sum of logarithms of numbers up to 1 times beta >= 0, adds at most 0.
        return log_prob / self._normaliser(longest)

    def _normaliser(self, length: jax.Array | int) -> jax.Array:
        length = jnp.asarray(length, jnp.float32)
        match self.normalise:
            case "average":
                return length
            case "power":
                return length**self.alpha
            case "gnmt":
                return ((5 + length) / 6) ** self.alpha
        return jnp.ones_like(length)
