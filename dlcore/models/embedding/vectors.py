"""The space of word vectors, which finds neighbours of words and answers analogies.

Shapes: n words, D features, Q queries, P words of a query, U different words of some queries,
C candidates for an answer.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from dlcore.errors import InputError, choose, pick

# The functions that are applied to words before they are compared.
CASES: dict[str, Callable[[str], str]] = {"exact": str, "ignored": str.upper}

_QUERIES, _CANDIDATES = 512, 4096  # scored at once: 8 MB, whatever n and Q are
_EPSILON = 0.001  # avoids a division by zero in 3CosMul
_MOST_SPELLINGS = 50_000  # the number of words among which similar spellings are searched

# Takes the units of U words [U, D] and of C candidates [C, D] and, for the words of each query,
# their places among the U words, int [Q, P]; returns the scores of the candidates, [Q, C].
_Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Answer(NamedTuple):
    """An answer and its score."""

    word: str
    score: float


def _cosine(units: np.ndarray, candidates: np.ndarray, places: np.ndarray) -> np.ndarray:
    return (units @ candidates.T)[places[:, 0]]


def _cos_add(units: np.ndarray, candidates: np.ndarray, places: np.ndarray) -> np.ndarray:
    # The product with a sum, a third of the work of the sum of the products.
    a, b, c = places.T
    return (units[b] - units[a] + units[c]) @ candidates.T


def _cos_mul(units: np.ndarray, candidates: np.ndarray, places: np.ndarray) -> np.ndarray:
    a, b, c = places.T
    shifted = (units @ candidates.T + 1) / 2
    scores = shifted[b]
    scores *= shifted[c]
    shifted += np.float32(_EPSILON)
    scores /= shifted[a]
    return scores


# The methods of answering analogies, see `WordSpace.analogies`.
ANALOGIES: dict[str, _Scores] = {"3cosadd": _cos_add, "3cosmul": _cos_mul}


class WordSpace:
    """Words and their vectors, compared by the cosine.

    If a word has several vectors, only the first counts, and the others are never an answer. A
    vector of zeros has the cosine 0 with every vector, including itself. Answers with equal scores
    keep the order of the words.

    When case is ignored, words are compared in upper case, so that "Paris" finds "paris". Of words
    that differ only in case, the first (in most files the most frequent) represents all in a query.
    All of them can be answers, and a rule that excludes one of them excludes all.

    Attributes:
        words: n words, usually the most frequent first.
        matrix: the vectors, float32 [n, D].
        units: the rows of the matrix divided by their lengths, float32 [n, D].
        case: one of `CASES`.
    """

    def __init__(self, words: Sequence[str], matrix: np.ndarray, *, case: str = "exact") -> None:
        """Makes a space of words and their vectors, in the form of `Vectors` of a file.

        Raises:
            InputError: when there are no words, a vector is not finite, or for an unknown case.
            ValueError: when the matrix does not have a row for each word.
        """
        self._fold = pick("case", case, CASES)
        self.case, self.words = case, list(words)
        self.matrix = np.asarray(matrix, np.float32)
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.words):
            raise ValueError(f"a matrix {self.matrix.shape} has not {len(self.words)} word vectors")
        if not self.matrix.size:
            raise InputError(f"there are no word vectors in {self.matrix.shape}; give some")
        # Sums of squares of float32 can overflow; of float64 they cannot.
        lengths = np.sqrt(np.einsum("nd,nd->n", self.matrix, self.matrix, dtype=np.float64))
        if not np.isfinite(lengths).all():
            word = self.words[int(np.isfinite(lengths).argmin())]
            raise InputError(
                f"the vector of {word!r} is not finite: its training has diverged; take an earlier "
                "state, or train with a lower learning rate"
            )
        lengths[lengths == 0] = 1
        self.units = np.empty_like(self.matrix)
        np.divide(self.matrix, lengths[:, None], out=self.units, casting="same_kind")
        self._row: dict[str, int] = {}  # the first row of a word
        self._like: dict[int, list[int]] = {}  # all rows of a word by the first, where it has more
        progress = tqdm.tqdm(self.words, desc="indexing words", delay=2, leave=False)
        for row, word in enumerate(progress):
            if (first := self._row.setdefault(self._fold(word), row)) != row:
                self._like.setdefault(first, [first]).append(row)
        seen: set[str] = set()
        self._repeats = np.zeros(len(self.words), bool)
        for row in sorted(row for rows in self._like.values() for row in rows):
            self._repeats[row] = self.words[row] in seen
            seen.add(self.words[row])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return self._fold(word) in self._row

    def same(self, first: str, second: str) -> bool:
        """Returns whether two words are equal, up to their case where that is ignored."""
        return self._fold(first) == self._fold(second)

    def restrict(self, count: int) -> "WordSpace":
        """Returns the space of the first words alone, the most frequent in most files.

        Args:
            count: the number of words to keep; all words when there are no more.

        Raises:
            InputError: when the count is below 1.
        """
        if count < 1:
            raise InputError(f"{count} words make no word space; keep 1 or more")
        return WordSpace(self.words[:count], self.matrix[:count], case=self.case)

    def similarity(self, first: str, second: str) -> float:
        """Returns the cosine of the vectors of two words; raises as `similarities` does."""
        return float(self.similarities([(first, second)])[0])

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Returns the cosines of pairs of words.

        Returns:
            float64 [Q].

        Raises:
            InputError: for a word without a vector.
        """
        rows = self._rows(pairs, 2)
        first, second = (self.units[rows[:, side]] for side in (0, 1))
        return np.einsum("qd,qd->q", first, second, dtype=np.float64)

    def neighbours(
        self, words: Sequence[str], *, count: int = 10, exclude: Sequence[str] = ()
    ) -> list[list[Answer]]:
        """Finds the words whose vectors have the greatest cosine with the vector of each word.

        Args:
            words: Q words.
            count: the number of neighbours; fewer are returned when there are no more words.
            exclude: words that are not answers, in addition to the word itself.

        Returns:
            The neighbours and cosines of each word, the nearest first.

        Raises:
            InputError: for a word without a vector, or a count below 1.
        """
        asked = self._rows([(word,) for word in words], 1)
        never = self._rows([(word,) for word in exclude], 1)
        excluded = np.concatenate([asked, np.tile(never.T, (len(asked), 1))], axis=1)
        return self._search(asked, _cosine, excluded, count)

    def analogies(
        self,
        questions: Sequence[tuple[str, str, str]],
        *,
        method: str = "3cosadd",
        count: int = 1,
        exclude: Sequence[int] = (0, 1, 2),
    ) -> list[list[Answer]]:
        """Finds the words d that stand to c as b stands to a.

        Methods:
            3cosadd: the greatest cos(d, b) - cos(d, a) + cos(d, c), which for vectors of length 1
                is where the cosine with b - a + c is the greatest (Mikolov et al. 2013c).
            3cosmul: the greatest s(d, b) s(d, c) / (s(d, a) + 0.001) with s = (cos + 1) / 2 (Levy &
                Goldberg 2014, equation 4).

        Args:
            questions: Q times (a, b, c).
            method: one of `ANALOGIES`.
            count: the number of answers to each question.
            exclude: the indices of words in a question that are not answers to it; with () every
                word can be an answer, and then b or c often is (Linzen 2016).

        Returns:
            The answers to each question and their scores, the best first.

        Raises:
            InputError: for a word without a vector, an unknown method, an index that is not 0, 1 or
                2, or a count below 1.
        """
        scores = pick("method of analogies", method, ANALOGIES)
        if wrong := {*exclude} - {0, 1, 2}:
            raise choose("place in an analogy", str(min(wrong)), (0, 1, 2))
        asked = self._rows(questions, 3)
        return self._search(asked, scores, asked[:, list(exclude)], count)

    def _rows(self, queries: Sequence[Sequence[str]], length: int) -> np.ndarray:
        """Returns the rows of the words of queries, int [Q, P]."""
        listed = [[self._row.get(self._fold(word), -1) for word in query] for query in queries]
        rows = np.array(listed, np.int64).reshape(len(queries), length)
        if (rows < 0).any():
            query, place = np.argwhere(rows < 0)[0]
            raise self._unknown(queries[query][place])
        return rows

    def _unknown(self, word: str) -> InputError:
        spellings = [*self._row][:_MOST_SPELLINGS]
        close = difflib.get_close_matches(self._fold(word), spellings)
        # difflib compares letters and so misses the closeness of upper and lower case.
        other_case = (known for known in self.words if known.upper() == word.upper())
        known = dict.fromkeys([*other_case, *(self.words[self._row[other]] for other in close)])
        hint = f"did you mean {' or '.join(map(repr, [*known][:3]))}?" if known else "choose others"
        return InputError(f"the word {word!r} is not among the {len(self):,} with vectors; {hint}")

    def _search(
        self, asked: np.ndarray, scores: _Scores, excluded: np.ndarray, count: int
    ) -> list[list[Answer]]:
        """Finds the best answers to queries.

        Args:
            asked: the rows of the words of each query, int [Q, P].
            scores: the function that scores candidates.
            excluded: rows of words that are not answers to each query, int [Q, any].
            count: the number of answers.
        """
        if count < 1:
            raise InputError(f"{count} answers are not possible; ask for 1 or more")
        answers: list[list[Answer]] = []
        starts = range(0, len(asked), _QUERIES)
        for start in tqdm.tqdm(starts, desc="searching words", delay=2, leave=False):
            chunk = slice(start, start + _QUERIES)
            rows, best = self._best(asked[chunk], scores, excluded[chunk], count)
            answers += [
                [Answer(self.words[row], score) for row, score in pairs if score > -np.inf]
                for pairs in map(zip, rows.tolist(), best.tolist())
            ]
        return answers

    def _best(
        self, asked: np.ndarray, scores: _Scores, excluded: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows and scores of the best answers to some queries, [Q, count]."""
        different, places = np.unique(asked, return_inverse=True)
        places = places.reshape(asked.shape)
        vectors = self.units[different]
        query, never = (
            np.array(
                [
                    (query, like)
                    for query, rows in enumerate(excluded.tolist())
                    for row in rows
                    for like in self._like.get(row, (row,))
                ],
                np.int64,
            )
            .reshape(-1, 2)
            .T
        )
        rows = np.zeros((len(asked), 0), np.int64)
        best = np.zeros((len(asked), 0), np.float32)
        for start in range(0, len(self), _CANDIDATES):
            end = min(start + _CANDIDATES, len(self))
            block = scores(vectors, self.units[start:end], places)
            block[:, self._repeats[start:end]] = -np.inf
            here = (start <= never) & (never < end)
            block[query[here], never[here] - start] = -np.inf
            if best.shape[1] < count or count == 1:
                top = _greatest(block, count)
                asking = np.repeat(np.arange(len(asked)), top.shape[1])
                place = top.ravel()
            else:  # Only what beats the worst so far counts, and soon that is next to nothing.
                asking, place = np.nonzero(block > best[:, -1:])
            more = block[asking, place]
            rows, best = _merged(rows, best, asking, place + start, more, count)
        return rows, best


def _greatest(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the greatest scores [Q, C] in each row, equal ones in their order.

    >>> _greatest(np.array([[1.0, 3.0, 2.0, 3.0]]), 3).tolist()
    [[1, 3, 2]]
    """
    if count == 1:
        return scores.argmax(axis=1)[:, None]
    count = min(count, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    query, place = np.nonzero(scores >= least)
    order = np.lexsort((place, -scores[query, place], query))
    starts = np.searchsorted(query, np.arange(len(scores)))
    return place[order[starts[:, None] + np.arange(count)]]


def _merged(
    rows: np.ndarray,
    best: np.ndarray,
    query: np.ndarray,
    more_rows: np.ndarray,
    more: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and scores of the best answers [Q, up to `count`] after adding more.

    Of equal scores the lower row comes first.

    Args:
        rows: the rows of the best answers so far, int [Q, K].
        best: their scores, [Q, K].
        query: the queries of N further answers, int [N].
        more_rows: the rows of these, int [N].
        more: their scores, [N].
        count: the number of answers.
    """
    queries, kept = best.shape
    query = np.concatenate([np.repeat(np.arange(queries), kept), query])
    row, score = np.concatenate([rows.ravel(), more_rows]), np.concatenate([best.ravel(), more])
    order = np.lexsort((row, -score, query))
    starts = np.searchsorted(query[order], np.arange(queries))
    count = min(count, len(query) // queries)
    order = order[starts[:, None] + np.arange(count)]
    return row[order], score[order]
