"""Evaluates word vectors by analogies and by word pairs whose similarity people have judged.

The vectors answer the analogies, and the ranks of the cosines of word pairs are compared with the
judgements; `dlcore.evaluation.word_questions` reads both from files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dlcore.errors import InputError, choose
from dlcore.evaluation.statistics import fisher_interval, spearman
from dlcore.evaluation.word_questions import Analogy
from dlcore.metrics.intervals import wilson_interval

UNKNOWN = {
    "skip": "are left out",
    "wrong": "count as wrong (a similarity as 0)",
}
"""The rules for questions and pairs that have words without a vector."""

_SYNTACTIC = "gram"  # the start of the names of syntactic sections


class Space(Protocol):
    """The interface of word vectors needed here, as in `models.embedding.WordSpace`."""

    def __contains__(self, word: str) -> bool: ...

    def same(self, first: str, second: str) -> bool: ...

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray: ...

    def analogies(
        self,
        questions: Sequence[tuple[str, str, str]],
        *,
        method: str = ...,
        exclude: Sequence[int] = ...,
    ) -> Sequence[Sequence[tuple[str, float]]]: ...


class Accuracy(NamedTuple):
    """The right answers to the questions of a section.

    Attributes:
        name: the name of the section.
        right: the number of questions that were answered as expected.
        counted: the number of questions that count: the known ones, or all.
        known: the number of questions whose words all have a vector.
        total: the number of all questions.
    """

    name: str
    right: int
    counted: int
    known: int
    total: int

    @property
    def accuracy(self) -> float:
        """The share of right answers; NaN when nothing counts."""
        return self.right / self.counted if self.counted else math.nan

    @property
    def coverage(self) -> float:
        """The share of the questions whose words are known."""
        return self.known / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson 1927)."""
        return wilson_interval(self.right, self.counted)


class AnalogyScores(NamedTuple):
    """The accuracy on analogies.

    Attributes:
        sections: the accuracy of each section, in the order of the file.
        method: the method of answering, see `evaluate_analogies`.
        unknown: one of `UNKNOWN`.
        exclude: the indices of the words in a question that were excluded from its answers.
    """

    sections: tuple[Accuracy, ...]
    method: str
    unknown: str
    exclude: tuple[int, ...]

    @property
    def semantic(self) -> Accuracy:
        """The accuracy on all sections whose name does not begin with "gram"."""
        return self._sum("semantic", [s for s in self.sections if not _is_syntactic(s.name)])

    @property
    def syntactic(self) -> Accuracy:
        """The accuracy on all sections whose name begins with "gram"."""
        return self._sum("syntactic", [s for s in self.sections if _is_syntactic(s.name)])

    @property
    def total(self) -> Accuracy:
        """The accuracy on all questions."""
        return self._sum("total", self.sections)

    @property
    def rule(self) -> str:
        """The rule of counting, in a line."""
        places = ", ".join("abc"[place] for place in self.exclude) or "no word"
        return (
            f"a : b :: c : ? by {self.method}, {places} of a question excluded from its answers; "
            f"questions with words without a vector {UNKNOWN[self.unknown]}"
        )

    def rows(self) -> list[list[str]]:
        """Returns a header and the cells of a table: each section and the totals."""
        header = ["section", "right", "counted", "accuracy", "95 % interval", "coverage"]
        scores = [*self.sections, self.semantic, self.syntactic, self.total]
        return [header, *map(_cells, scores)]

    def describe(self) -> str:
        """Returns the table for the terminal, and the rule of counting."""
        return "\n".join([*_aligned(self.rows()), self.rule])

    def _sum(self, name: str, sections: Sequence[Accuracy]) -> Accuracy:
        counts = np.array([section[1:] for section in sections], int).reshape(-1, 4).sum(axis=0)
        return Accuracy(name, *counts.tolist())


class SimilarityScore(NamedTuple):
    """The agreement of cosines with people in ranking pairs of words.

    Attributes:
        spearman: the rank correlation; NaN when it is not defined.
        counted: the number of pairs that were ranked.
        known: the number of pairs whose words both have a vector.
        total: the number of all pairs.
        unknown: one of `UNKNOWN`.
    """

    spearman: float
    counted: int
    known: int
    total: int
    unknown: str

    @property
    def coverage(self) -> float:
        """The share of the pairs whose words are known."""
        return self.known / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the correlation, see `fisher_interval`."""
        return fisher_interval(self.spearman, self.counted)

    @property
    def rule(self) -> str:
        """The rule of counting, in a line."""
        return f"pairs with words without a vector {UNKNOWN[self.unknown]}"

    def row(self) -> list[str]:
        """Returns the correlation, its interval, the counted pairs and the coverage as text."""
        interval = " to ".join(f"{end:.3f}" for end in self.interval)
        value = "undefined" if math.isnan(self.spearman) else f"{self.spearman:.4f}"
        return [value, interval, f"{self.counted:,}", f"{self.coverage:.1%}"]

    def describe(self) -> str:
        """Returns the score in a line for the terminal."""
        value, interval, counted, coverage = self.row()
        return (
            f"Spearman {value} (95 % interval {interval}) of {counted} pairs, coverage {coverage}; "
            f"{self.rule}"
        )


def evaluate_analogies(
    space: Space,
    questions: Mapping[str, Sequence[Analogy]],
    *,
    method: str = "3cosadd",
    unknown: str = "skip",
    exclude: Sequence[int] = (0, 1, 2),
) -> AnalogyScores:
    """Measures the accuracy of word vectors on analogies, by section.

    Args:
        space: the vectors, restricted to the words that may occur in questions and answers.
        questions: (a, b, c, d) by section, where d is the answer to a : b :: c : ?.
        method: "3cosadd" or "3cosmul".
        unknown: one of `UNKNOWN`.
        exclude: the indices of the words in a question that are not answers to it.

    Raises:
        InputError: for an unknown method or rule, or an index that is not 0, 1 or 2.
    """
    _require_rule(unknown)
    known = {
        name: [question for question in section if all(word in space for word in question)]
        for name, section in questions.items()
    }
    asked = [question for section in known.values() for question in section]
    answers = space.analogies([q[:3] for q in asked], method=method, exclude=exclude)
    right = iter(
        [
            bool(candidates) and space.same(candidates[0][0], question[3])
            for question, candidates in zip(asked, answers, strict=True)
        ]
    )
    sections = []
    for name, section in known.items():
        total = len(questions[name])
        counted = total if unknown == "wrong" else len(section)
        hits = sum(next(right) for _ in section)
        sections.append(Accuracy(name, hits, counted, len(section), total))
    return AnalogyScores(tuple(sections), method, unknown, tuple(exclude))


def evaluate_similarities(
    space: Space, pairs: Sequence[tuple[str, str, float]], *, unknown: str = "skip"
) -> SimilarityScore:
    """Correlates the cosines of pairs of words with the judgements of people, by rank.

    Args:
        space: the vectors.
        pairs: two words and the similarity that people gave them.
        unknown: one of `UNKNOWN`.

    Raises:
        InputError: for an unknown rule, or when there are no pairs.
    """
    _require_rule(unknown)
    if not pairs:
        raise InputError("there are no pairs of words to compare; give at least one")
    is_known = np.array([first in space and second in space for first, second, _ in pairs])
    cosines = np.zeros(len(pairs))
    known = [(first, second) for first, second, _ in pairs if first in space and second in space]
    cosines[is_known] = space.similarities(known)
    judged = np.array([number for _, _, number in pairs], np.float64)
    counted = is_known if unknown == "skip" else np.ones_like(is_known)
    correlation = spearman(judged[counted], cosines[counted])
    return SimilarityScore(correlation, int(counted.sum()), len(known), len(pairs), unknown)


def _require_rule(unknown: str) -> None:
    if unknown not in UNKNOWN:
        raise choose("rule for unknown words", unknown, UNKNOWN)


def _is_syntactic(name: str) -> bool:
    return name.startswith(_SYNTACTIC)


def _cells(score: Accuracy) -> list[str]:
    """Returns the cells of a row; a share of nothing is a dash."""
    low, high = score.interval
    shares = [f"{score.accuracy:.1%}", f"{low:.1%} to {high:.1%}"] if score.counted else ["-", "-"]
    coverage = f"{score.coverage:.1%}" if score.total else "-"
    return [score.name, f"{score.right:,}", f"{score.counted:,}", *shares, coverage]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns rows of text in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
