"""How good translations are, against references that people wrote. Shapes: N translations.

BLEU (Papineni et al. 2002) is BP * exp(mean of log p_n) over n = 1..4. p_n is the share of the
outputs' n-grams that the references have too, each counted at most as often as a reference has it
(clipped), summed over the corpus before it is divided. BP = min(1, exp(1 - r / c)), the brevity
penalty for outputs of c tokens where the references have r, always belongs to it: without it, one
sure word per sentence would be perfect. A form that circulates, exp(mean of p_n), without the
logarithm and without clipping, is no BLEU: it lies between 1 for outputs that share nothing with
the references and e = 2.718 for perfect ones, and can never be 0.

All numbers here are sacrebleu's at its defaults (Post 2018), for plain text as people read it:
mixed case, tokens of mteval-v13a, exponential smoothing. chrF is Popović's (2015).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlcore.errors import InputError

References = Sequence[str] | Sequence[Sequence[str]]
"""One reference for each output, or several: a list of them for each, of any lengths."""

_BUCKETS = 5


class TranslationScores(NamedTuple):
    """The scores of a corpus.

    Attributes:
        bleu: corpus BLEU, 0..100; 0 where no output shares a word with its references, or none
            has four tokens.
        chrf: corpus chrF2, 0..100.
        exact_match: the share of outputs that equal a reference, 0..1; white space at the ends
            does not count.
        precisions: BLEU's p_1 to p_4, in percent.
        brevity_penalty: BLEU's, 0..1.
        output_tokens: how many the outputs have, by BLEU's tokeniser.
        reference_tokens: how many the references have, of several the closest in length.
        bleu_signature: all that BLEU depends on, for others to compare with.
        chrf_signature: the same for chrF.
    """

    bleu: float
    chrf: float
    exact_match: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    output_tokens: int
    reference_tokens: int
    bleu_signature: str
    chrf_signature: str

    @property
    def length_ratio(self) -> float:
        """Tokens of the outputs by tokens of the references; NaN where these have none."""
        return self.output_tokens / self.reference_tokens if self.reference_tokens else float("nan")

    def render(self) -> str:
        """The scores in three lines, each beside its signature."""
        precisions = "/".join(f"{precision:.1f}" for precision in self.precisions)
        return (
            f"BLEU {self.bleu:.2f}  {precisions}, brevity penalty {self.brevity_penalty:.3f}, "
            f"length ratio {self.length_ratio:.3f}  [{self.bleu_signature}]\n"
            f"chrF {self.chrf:.2f}  [{self.chrf_signature}]\n"
            f"exact match {self.exact_match:.2%}"
        )


class SentenceScores(NamedTuple):
    """The scores of each sentence alone.

    Attributes:
        bleu: (N,) 0..100. Orders of n-grams that the sentence is too short for are left out
            (effective order), and those without a match are smoothed; so the mean over sentences
            is not the BLEU of the corpus.
        chrf: (N,) 0..100.
    """

    bleu: np.ndarray
    chrf: np.ndarray


class LengthScore(NamedTuple):
    """The BLEU of the sentences of some lengths.

    Attributes:
        shortest: the least length among them.
        longest: the greatest.
        sentences: how many they are.
        bleu: of these as a corpus of their own; 0 where none of the outputs has four tokens.
    """

    shortest: int
    longest: int
    sentences: int
    bleu: float


def translation_scores(outputs: Sequence[str], references: References) -> TranslationScores:
    """BLEU, chrF and exact match of a corpus, see the module.

    Args:
        outputs: N texts as people read them: words joined again, nothing lower-cased.
        references: of each output.

    Raises:
        InputError: when there is nothing to score, the numbers of outputs and references differ, or
            an output has no reference.

    >>> translation_scores(["The cat sat on the mat."], ["The cat sat on the mat."]).bleu > 99.99
    True
    """
    from sacrebleu.metrics import BLEU, CHRF

    lists = _reference_lists(outputs, references)
    most = max(map(len, lists))
    # sacrebleu wants the i-th references of all sentences together, None where there is none.
    columns = [[texts[i] if i < len(texts) else None for texts in lists] for i in range(most)]
    bleu, chrf = BLEU(), CHRF()
    # Its type hints leave out the None that its documentation allows.
    found = bleu.corpus_score(outputs, columns)  # type: ignore[arg-type]
    return TranslationScores(
        bleu=found.score,
        chrf=chrf.corpus_score(outputs, columns).score,  # type: ignore[arg-type]
        exact_match=float(np.mean(list(map(_equals_any, outputs, lists)))),
        precisions=tuple(found.precisions),
        brevity_penalty=found.bp,
        output_tokens=found.sys_len,
        reference_tokens=found.ref_len,
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )


def sentence_scores(outputs: Sequence[str], references: References) -> SentenceScores:
    """BLEU and chrF of each sentence, to find good and bad ones with.

    Args:
        outputs: N texts.
        references: of each output.

    Raises:
        InputError: as `translation_scores`.
    """
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(effective_order=True), CHRF()
    lists = _reference_lists(outputs, references)
    scores = [
        [metric.sentence_score(*pair).score for pair in zip(outputs, lists, strict=True)]
        for metric in (bleu, chrf)
    ]
    return SentenceScores(*np.asarray(scores))


def bleu_by_length(
    outputs: Sequence[str],
    references: References,
    lengths: Sequence[int] | np.ndarray,
    edges: Sequence[int] | None = None,
) -> list[LengthScore]:
    """BLEU of the short sentences, of the longer ones, and so on to the longest.

    Args:
        outputs: N texts.
        references: of each output.
        lengths: of the N sentences, usually those of the sources in tokens.
        edges: the lengths at which the second and each later group begins, rising; by default such
            that five groups have about the same number of sentences.

    Returns:
        The groups that have sentences, the shortest first.

    Raises:
        InputError: as `translation_scores`; when the number of lengths is not N; when the edges do
            not rise.
    """
    lists = _reference_lists(outputs, references)
    lengths = np.asarray(lengths)
    if lengths.shape != (len(outputs),):
        raise InputError(
            f"{len(outputs)} translations have {lengths.size} lengths; give one length for each"
        )
    if edges is None:
        quantiles = np.quantile(lengths, np.arange(1, _BUCKETS) / _BUCKETS)
        edges = np.unique(np.ceil(quantiles)).astype(int).tolist()
    if any(left >= right for left, right in zip(edges, edges[1:], strict=False)):
        raise InputError(f"length edges {list(edges)} do not rise; give them in order, each once")
    groups = np.digitize(lengths, edges)
    scores = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group).tolist()
        found = translation_scores([outputs[i] for i in members], [lists[i] for i in members])
        inside = lengths[members]
        scores.append(LengthScore(int(inside.min()), int(inside.max()), len(members), found.bleu))
    return scores


def _reference_lists(outputs: Sequence[str], references: References) -> list[list[str]]:
    """The references of each output, checked."""
    if len(outputs) != len(references):
        raise InputError(
            f"{len(outputs)} translations have {len(references)} references; give one for each, or "
            "a list of several for each"
        )
    if not len(outputs):
        raise InputError("there are no translations to score; give at least one, with a reference")
    lists = [[texts] if isinstance(texts, str) else list(texts) for texts in references]
    if not all(lists):
        raise InputError(
            f"translation {lists.index([]) + 1} of {len(lists)} has no reference; give at least one"
        )
    return lists


def _equals_any(output: str, references: list[str]) -> bool:
    return output.strip() in (reference.strip() for reference in references)
