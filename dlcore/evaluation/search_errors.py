"""Decides whether a wrong output of beam search is the fault of the search or of the model.

The model assigns a score to every sentence, and the search looks for the sentence with the greatest
score. So if the reference has a greater score than the output, the search has missed a better
sentence, and a wider beam can help. Otherwise even a perfect search would not have preferred the
reference: the model is at fault, that is, its architecture, regularisation or data.

The score is the objective of the search, including length normalisation and coverage penalty. The
rule is often stated with log P alone. But this blames the search for preferring, in accordance with
its objective, a longer output over a reference of greater P, and vice versa.

Shapes: N sentences.
"""

from typing import NamedTuple

import numpy as np

from dlcore.errors import InputError

VERDICTS = {
    "right": "",
    "search": "widen the beam",
    "model": "change the architecture or regularisation, or get more data",
}
"""The verdicts on an output: it is right, or the search or the model is at fault; what helps."""

# The reference is scored in one pass and the output step by step. A sum of some hundred float32
# logarithms that is made in two ways differs by about 1e-6 of itself; only more is a difference.
_ROUNDING = 1e-5


class SearchErrors(NamedTuple):
    """The verdict on each sentence.

    Attributes:
        verdicts: (N,) keys of `VERDICTS`, by the objective of the search.
        log_prob_verdicts: (N,) the verdicts by log P alone.
        reference_scores: (N,) the scores of the references.
        output_scores: (N,) the scores of the outputs.
    """

    verdicts: np.ndarray
    log_prob_verdicts: np.ndarray
    reference_scores: np.ndarray
    output_scores: np.ndarray

    @property
    def shares(self) -> dict[str, float]:
        """The share of the sentences by verdict; they add up to 1."""
        return {verdict: float(np.mean(self.verdicts == verdict)) for verdict in VERDICTS}

    @property
    def disagreements(self) -> int:
        """The number of sentences for which log P alone leads to another verdict."""
        return int(np.sum(self.verdicts != self.log_prob_verdicts))

    @property
    def warning(self) -> str:
        """A warning about these sentences; "" when there are none."""
        if not self.disagreements:
            return ""
        return (
            f"warning: log P alone would give another verdict on {self.disagreements} of "
            f"{len(self.verdicts)} sentences; it is not what was searched for"
        )

    def worst(self, verdict: str, most: int = 5) -> list[int]:
        """Returns the indices of the sentences of a verdict, the worst first.

        For "search" and "model" the worst are those whose two scores differ most, for "right" those
        with the lowest score.
        """
        if verdict == "right":
            badness = -self.output_scores
        else:
            # Where both scores are -inf their difference is 0, not NaN.
            differ = self.reference_scores != self.output_scores
            badness = np.zeros(len(differ))
            np.subtract(self.reference_scores, self.output_scores, out=badness, where=differ)
            badness = np.abs(badness)
        members = np.flatnonzero(self.verdicts == verdict)
        return members[np.argsort(-badness[members], kind="stable")][:most].tolist()

    def render(self) -> str:
        """Returns a table for the terminal, and the warning."""
        lines = [f"{'verdict':<8}  {'sentences':>9}  {'share':>7}  what helps"]
        for (verdict, share), remedy in zip(self.shares.items(), VERDICTS.values(), strict=True):
            count = np.sum(self.verdicts == verdict)
            lines.append(f"{verdict:<8}  {count:>9,}  {share:>7.1%}  {remedy}".rstrip())
        return "\n".join([*lines, *filter(None, [self.warning])])


def search_errors(
    reference_scores: np.ndarray,
    output_scores: np.ndarray,
    *,
    reference_log_probs: np.ndarray,
    output_log_probs: np.ndarray,
    same: np.ndarray,
) -> SearchErrors:
    """Decides for each output of beam search whether the search or the model is at fault.

    If scores are equal up to rounding, as for two spellings of one sentence, the model is at fault:
    a wider beam could find nothing better. If a reference has a greater score but is longer than
    the search may write, the search is at fault: allow longer outputs.

    Args:
        reference_scores: (N,) the model's scores of the references by the objective of the search,
            including normalisation and penalties; -inf for impossible references.
        output_scores: (N,) the scores of the outputs.
        reference_log_probs: (N,) log P of the references, in nats.
        output_log_probs: (N,) log P of the outputs, in nats.
        same: (N,) whether the output equals the reference.

    Raises:
        ValueError: when the arrays are not all (N,).
        InputError: when there are no sentences, or scores are NaN.
    """
    numbers = {
        "reference_scores": np.asarray(reference_scores, np.float64),
        "output_scores": np.asarray(output_scores, np.float64),
        "reference_log_probs": np.asarray(reference_log_probs, np.float64),
        "output_log_probs": np.asarray(output_log_probs, np.float64),
    }
    same = np.asarray(same, bool)
    for name, values in numbers.items():
        if values.shape != same.shape or same.ndim != 1:
            raise ValueError(f"{name} {values.shape} and same {same.shape} must all be (N,)")
        if np.isnan(values).any():
            raise InputError(
                f"{np.isnan(values).sum()} of {len(values)} {name} are NaN: the model has "
                "diverged; take an earlier checkpoint"
            )
    if not len(same):
        raise InputError("there are no sentences to analyse; translate at least one")
    reference_scores, output_scores, reference_log_probs, output_log_probs = numbers.values()
    return SearchErrors(
        _verdicts(reference_scores, output_scores, same),
        _verdicts(reference_log_probs, output_log_probs, same),
        reference_scores,
        output_scores,
    )


def _verdicts(reference: np.ndarray, output: np.ndarray, same: np.ndarray) -> np.ndarray:
    equal = np.isclose(reference, output, rtol=_ROUNDING, atol=_ROUNDING)
    return np.where(same, "right", np.where((reference > output) & ~equal, "search", "model"))
