"""Scores of translations, compared with human references. Shapes: N translations.

BLEU (Papineni et al. 2002) is BP * exp(mean of log p_n) over n = 1..4. p_n is the share of the
outputs' n-grams that the references contain, each counted at most as often as in a reference
(clipped), with both counts summed over the corpus before the division. BP = min(1, exp(1 - r / c))
is the brevity penalty for outputs of c tokens and references of r; without it, one sure word per
sentence would be perfect. A widespread variant, exp(mean of p_n), without the logarithm and without
clipping, is not BLEU: it lies between 1 for outputs that share nothing with the references and
e = 2.718 for perfect ones, and can never be 0.

All scores are computed by sacrebleu (Post 2018), with its defaults for plain text: mixed case,
tokens of mteval-v13a, exponential smoothing. 13a cuts words at spaces, so languages that are
written without spaces need another tokeniser, see `bleu_tokenizer`. chrF is Popović's (2015).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import regex

from dlcore.errors import InputError, choose

References = Sequence[str] | Sequence[Sequence[str]]
"""One reference for each output, or a list of references for each."""

# sacrebleu's tokenisers that need no download; those of MeCab need packages of their own.
BLEU_TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none")

_BUCKETS = 5
# By ISO 639; sacrebleu has no tokeniser of words for the last five.
_OF_LANGUAGE = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
    **dict.fromkeys(("th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod"), "char"),
}
# Japanese is told from Chinese by its kana, of which any Japanese text has some.
_OF_SCRIPT = (
    (r"[\p{Hiragana}\p{Katakana}]", 0.1, "ja-mecab"),
    (r"\p{Hangul}", 0.5, "ko-mecab"),
    (r"\p{Han}", 0.5, "zh"),
    (r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]", 0.5, "char"),
)


class TranslationScores(NamedTuple):
    """The scores of a corpus.

    Attributes:
        bleu: corpus BLEU, 0..100; 0 where no output shares a word with its references, or none
            has four tokens.
        chrf: corpus chrF2, 0..100.
        exact_match: the share of outputs that equal a reference, 0..1, ignoring white space at the
            ends.
        precisions: BLEU's p_1 to p_4, in percent.
        brevity_penalty: BLEU's BP, 0..1.
        output_tokens: the number of tokens of the outputs, by BLEU's tokeniser.
        reference_tokens: the number of tokens of the references; if an output has several
            references, the one with the closest length counts.
        bleu_signature: sacrebleu's signature, all settings on which BLEU depends.
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
        """The tokens of the outputs divided by those of the references; NaN without the latter."""
        return self.output_tokens / self.reference_tokens if self.reference_tokens else float("nan")

    def render(self) -> str:
        """Returns a text of three lines with the scores and their signatures."""
        precisions = "/".join(f"{precision:.1f}" for precision in self.precisions)
        return (
            f"BLEU {self.bleu:.2f}  {precisions}, brevity penalty {self.brevity_penalty:.3f}, "
            f"length ratio {self.length_ratio:.3f}  [{self.bleu_signature}]\n"
            f"chrF {self.chrf:.2f}  [{self.chrf_signature}]\n"
            f"exact match {self.exact_match:.2%}"
        )


class SentenceScores(NamedTuple):
    """The scores of each sentence separately.

    Attributes:
        bleu: (N,) 0..100. Orders of n-grams longer than the sentence are left out (effective
            order), and those without a match are smoothed, so the mean over sentences is not the
            BLEU of the corpus.
        chrf: (N,) 0..100.
    """

    bleu: np.ndarray
    chrf: np.ndarray


class LengthScore(NamedTuple):
    """The BLEU of the sentences in a range of lengths.

    Attributes:
        shortest: the smallest length among them.
        longest: the largest length among them.
        sentences: the number of sentences.
        bleu: their corpus BLEU; 0 where none of the outputs has four tokens.
    """

    shortest: int
    longest: int
    sentences: int
    bleu: float


def bleu_tokenizer(language: str, references: Sequence[str]) -> str:
    """Returns sacrebleu's tokeniser for a target language.

    Args:
        language: the code of the language, such as zh, zh-TW or zho_Hant. If it is not a code, the
            script of the references decides.
        references: texts in the language.

    >>> bleu_tokenizer("zh_CN", []), bleu_tokenizer("de", []), bleu_tokenizer("target", ["你好吗"])
    ('zh', '13a', 'zh')
    """
    code = regex.split("[-_]", language.lower())[0]
    if len(code) in (2, 3):
        return _OF_LANGUAGE.get(code, "13a")
    text = "".join(references)
    letters = max(1, len(regex.findall(r"\p{Letter}", text)))
    for script, share, tokenizer in _OF_SCRIPT:
        if len(regex.findall(script, text)) >= share * letters:
            return tokenizer
    return "13a"


def check_bleu_tokenizer(tokenizer: str) -> None:
    """Checks that BLEU can be computed by a tokeniser.

    Raises:
        InputError: when it is not one of `BLEU_TOKENIZERS`, or packages that it needs are missing.
    """
    from sacrebleu.metrics import BLEU

    if tokenizer not in BLEU_TOKENIZERS:
        raise choose("BLEU tokeniser", tokenizer, BLEU_TOKENIZERS)
    try:
        BLEU(tokenize=tokenizer)
    except (RuntimeError, ImportError):
        extra = tokenizer.partition("-")[0]
        raise InputError(
            f"BLEU's tokeniser {tokenizer} needs packages that are not installed; install them by "
            f"pip install 'sacrebleu[{extra}]', or choose another, such as char"
        ) from None


def translation_scores(
    outputs: Sequence[str], references: References, *, tokenizer: str = "13a", lower: bool = False
) -> TranslationScores:
    """Computes BLEU, chrF and exact match of a corpus, as the module's docstring defines them.

    Args:
        outputs: N plain texts, detokenised.
        references: the references of each output.
        tokenizer: the tokeniser that cuts texts into BLEU's tokens, one of `BLEU_TOKENIZERS`.
        lower: whether outputs and references are compared in lower case, as for a model that
            writes only lower case.

    Raises:
        InputError: when there is nothing to score, the numbers of outputs and references differ, or
            an output has no reference; and as for `check_bleu_tokenizer`.

    >>> translation_scores(["The cat sat on the mat."], ["The cat sat on the mat."]).bleu > 99.99
    True
    """
    from sacrebleu.metrics import BLEU, CHRF

    check_bleu_tokenizer(tokenizer)
    lists = _reference_lists(outputs, references)
    if lower:
        outputs = [text.lower() for text in outputs]
        lists = [[text.lower() for text in texts] for texts in lists]
    most = max(map(len, lists))
    # sacrebleu wants the i-th references of all sentences together, None where there is none.
    columns = [[texts[i] if i < len(texts) else None for texts in lists] for i in range(most)]
    bleu, chrf = BLEU(lowercase=lower, tokenize=tokenizer), CHRF(lowercase=lower)
    # sacrebleu's type hints leave out the None that its documentation allows.
    corpus = bleu.corpus_score(outputs, columns)  # type: ignore[arg-type]
    return TranslationScores(
        bleu=corpus.score,
        chrf=chrf.corpus_score(outputs, columns).score,  # type: ignore[arg-type]
        exact_match=float(np.mean(list(map(_equals_any, outputs, lists)))),
        precisions=tuple(corpus.precisions),
        brevity_penalty=corpus.bp,
        output_tokens=corpus.sys_len,
        reference_tokens=corpus.ref_len,
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )


def sentence_scores(
    outputs: Sequence[str], references: References, *, tokenizer: str = "13a", lower: bool = False
) -> SentenceScores:
    """Computes BLEU and chrF of each sentence, to sort good translations from bad ones.

    Args:
        outputs: N texts.
        references: the references of each output.
        tokenizer: as in `translation_scores`.
        lower: as in `translation_scores`.

    Raises:
        InputError: as for `translation_scores`.
    """
    from sacrebleu.metrics import BLEU, CHRF

    check_bleu_tokenizer(tokenizer)
    bleu = BLEU(lowercase=lower, tokenize=tokenizer, effective_order=True)
    chrf = CHRF(lowercase=lower)
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
    *,
    tokenizer: str = "13a",
    lower: bool = False,
) -> list[LengthScore]:
    """Computes BLEU for groups of sentences of similar length.

    Args:
        outputs: N texts.
        references: the references of each output.
        lengths: the lengths of the N sentences, usually those of the sources in tokens.
        edges: increasing lengths at which the second and each later group begins; by default they
            make five groups of about the same number of sentences.
        tokenizer: as in `translation_scores`.
        lower: as in `translation_scores`.

    Returns:
        The groups that have sentences, the shortest first.

    Raises:
        InputError: as for `translation_scores`; when the number of lengths is not N; when the edges
            do not rise.
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
        corpus = translation_scores(
            [outputs[i] for i in members],
            [lists[i] for i in members],
            tokenizer=tokenizer,
            lower=lower,
        )
        inside = lengths[members]
        scores.append(LengthScore(int(inside.min()), int(inside.max()), len(members), corpus.bleu))
    return scores


def _reference_lists(outputs: Sequence[str], references: References) -> list[list[str]]:
    """Checks the references and returns a list of them for each output."""
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
