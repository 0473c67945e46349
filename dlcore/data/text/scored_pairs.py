"""Pairs of sentences with a score of their similarity, from files or made from documents.

Shapes: N pairs of a split, n gathered pairs, T the length that both sides are padded to.
"""

import copy
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data.sources import Batch
from dlcore.data.text import files
from dlcore.data.text.files import Line, Row, columns, find_column, read_rows
from dlcore.data.text.sequences import Ids, Sequences
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]
Column = int | str | None
# The names of columns in published sets: STS, SICK, GLUE, PAWS, Quora.
_FIRST = ("sentence1", "sentence_a", "sentence 1", "text1", "first", "question1", "s1")
_SECOND = ("sentence2", "sentence_b", "sentence 2", "text2", "second", "question2", "s2")
_SCORES = ("score", "similarity", "relatedness_score", "relatedness", "label", "gold")
_WORDS = 5, 40  # of a sentence that is taken from a document, least and most
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PLAIN = re.compile(r"[A-Z][\w\s,;:'\"()-]*[.!?]")
_MADE = {"train": 1500, "test": 400}  # pairs of each of the three kinds that documents give


class ScoredPair(NamedTuple):
    """Two sentences and the score of their similarity."""

    first: str
    second: str
    score: float

    @property
    def sentences(self) -> tuple[str, str]:
        """Both sentences."""
        return self.first, self.second


class ScoredText(NamedTuple):
    """Pairs of sentences with scores.

    Attributes:
        valid: pairs to choose a model with; None where the data has no such part.
        notes: lines for the log about what was left out and what is unusual.
    """

    name: str
    train: list[ScoredPair]
    test: list[ScoredPair]
    valid: list[ScoredPair] | None = None
    notes: tuple[str, ...] = ()


class _Columns(NamedTuple):
    """The columns of the two sentences and the score, and whether the first row names them."""

    first: int
    second: int
    score: int
    named: bool


def load_scored_pairs(
    dataset: str = "python_docs",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    first_column: Column = None,
    second_column: Column = None,
    score_column: Column = None,
    lowest: float = 0.0,
    highest: float = 5.0,
) -> ScoredText:
    """Loads pairs of sentences with scores from the user's files, or makes some from documents.

    Args:
        dataset: "python_docs", which is always available, or a prepared TFDS data set with one text
            per example. Its scores are made up: two neighbouring sentences of a paragraph get the
            highest score, two of one document the middle one, two of different documents the
            lowest.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a TSV or CSV file (`read_scored`), of which every fifth pair is held out, or a
            folder with files named train and test (or dev), instead of `dataset`. A dev file
            beside a test file is for validation.
        first_column: the number, from 1 on, or the name of the column of the first sentences.
        second_column: the same for the second sentences.
        score_column: the same for the scores.
        lowest: the lowest possible score.
        highest: the highest possible score.

    Raises:
        InputError: for data that is missing, not prepared or unreadable, or a line that is not a
            pair with a possible score.
    """
    if not lowest < highest:
        raise InputError(f"scores from {lowest:g} to {highest:g} have no range; give another")
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        return _made_of(dataset, data_dir, lowest, highest)
    notes: tuple[str, ...] = ()
    found = files.find_parts(path) if path.is_dir() else None
    parts = []
    for file in [path] if found is None else found.paths:
        pairs, noted = read_scored(
            file,
            first_column=first_column,
            second_column=second_column,
            score_column=score_column,
            lowest=lowest,
            highest=highest,
        )
        parts.append(pairs)
        notes += noted
    if found is None:
        if len(parts[0]) < 2:
            raise InputError(f"{path} has one pair; it needs 2 or more, to hold some out")
        held_out = {*range(len(parts[0]))[::-5]}
        train = [pair for at, pair in enumerate(parts[0]) if at not in held_out]
        return ScoredText(str(path), train, [parts[0][at] for at in sorted(held_out)], None, notes)
    train, test, *valid = parts
    return ScoredText(str(path), train, test, valid[0] if valid else None, notes + found.notes)


def read_scored(
    path: pathlib.Path,
    *,
    first_column: Column = None,
    second_column: Column = None,
    score_column: Column = None,
    lowest: float = 0.0,
    highest: float = 5.0,
) -> tuple[list[ScoredPair], tuple[str, ...]]:
    """Reads pairs from a table, see `files.read_rows`; returns them and notes.

    A first row that has a known name for the column of scores, or the given names, is a header.
    Without a header a table has three columns: two sentences and their score.

    Args:
        path: the file.
        first_column: see `load_scored_pairs`.
        second_column: see there.
        score_column: see there.
        lowest: the lowest possible score.
        highest: the highest possible score.

    Raises:
        InputError: for columns that cannot be found, a row without them, an empty sentence, a score
            that is not a number or not between the two, or a file without pairs; the message names
            the line.
    """
    rows = read_rows(path)
    while rows and not "".join(rows[-1].cells).strip():
        rows.pop()
    at = _find_columns(rows[0], (first_column, second_column, score_column))
    notes: tuple[str, ...] = ()
    if at.named:
        notes = (f"{path}: the first line names the columns {', '.join(rows[0].cells)}",)
    pairs = [_pair(row, at, len(rows[0].cells), lowest, highest) for row in rows[at.named :]]
    if not pairs:
        raise InputError(f"{path} has a header and no pairs; add some")
    return pairs, notes


def _find_columns(row: Row, given: Sequence[Column]) -> _Columns:
    cells, place = row
    folded = [cell.strip().casefold() for cell in cells]
    named_by_user = any(isinstance(name, str) for name in given)
    named = named_by_user or any(name in folded for name in _SCORES)
    names = cells if named else []
    found: list[int] = []
    for column, known, default in zip(given, (_FIRST, _SECOND, _SCORES), range(3), strict=True):
        place_of = next((folded.index(name) for name in known if name in folded), None)
        if column is not None:
            found.append(find_column(column, names, len(cells), place))
        elif named and place_of is not None:
            found.append(place_of)
        elif len(cells) == 3:
            found.append(default)
        else:
            raise InputError(
                f"{place} has {columns(len(cells))}; it needs two sentences and their score with "
                "tabs between, or a first line such as sentence1,sentence2,score, or say which "
                "columns they are (--first_column, --second_column, --score_column)"
            )
    if len({*found}) < 3:
        raise InputError(
            f"{place}: two sentences and a score cannot come from the columns "
            f"{', '.join(str(1 + one) for one in found)}; give three different ones"
        )
    first, second, score = found
    return _Columns(first, second, score, named)


def _pair(row: Row, at: _Columns, width: int, lowest: float, highest: float) -> ScoredPair:
    cells, line = row
    if len(cells) != width:
        raise InputError(
            f"{line} has {columns(len(cells))}, the first line {width}; give each line the same"
        )
    first, second, score = (cells[place].strip() for place in at[:3])
    if not (first and second):
        raise InputError(
            f"{line} has no {'second' if first else 'first'} sentence; fill it in or remove the "
            "line"
        )
    return ScoredPair(first, second, _score(score, line, lowest, highest))


def _score(text: str, line: Line, lowest: float, highest: float) -> float:
    if not text:
        raise InputError(f"{line} has no score; fill it in or remove the line")
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(
            f"the score {text!r} of {line} is not a number; give one from {lowest:g} to {highest:g}"
        )
    if not lowest <= score <= highest:
        raise InputError(
            f"the score {text} of {line} is not from {lowest:g} to {highest:g}; correct it, or "
            "give the range by --lowest and --highest"
        )
    return score


def _made_of(dataset: str, data_dir: PathLike | None, lowest: float, highest: float) -> ScoredText:
    """Makes pairs from the sentences of documents."""
    # Files need no TFDS, whose import takes 0.3 s.
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    (name,) = tfds.features_of(builder, "text")
    filled = tfds.filled_splits(builder)
    held_out = [split for split in ("test", "validation") if split in filled]
    if "train" not in filled or not held_out:
        raise InputError(
            f"data set {builder.info.full_name!r} has the splits {', '.join(filled) or 'none'}; "
            "pairs need train, and test or validation"
        )
    made = {}
    for split, read in (("train", "train"), ("test", held_out[0])):
        texts = (text for (text,) in tfds.read_examples(builder, read, (name,)))
        documents = [found for text in texts if (found := _paragraphs(text))]
        rng = np.random.default_rng(0)
        made[split] = [*_pairs_of(documents, _MADE[split], (lowest, highest), rng)]
        if len(made[split]) < 3:
            raise InputError(
                f"the {read} split of {builder.info.full_name!r} has too few sentences to make "
                "pairs; choose another data set, or give scored pairs by --data_path"
            )
    note = (
        f"{builder.info.full_name}: nobody has scored these pairs: neighbours in a paragraph have "
        f"{highest:g}, sentences of one document {(lowest + highest) / 2:g}, of two {lowest:g}"
    )
    return ScoredText(builder.info.full_name, made["train"], made["test"], None, (note,))


def _paragraphs(text: str) -> list[list[str]]:
    """Returns the plain sentences of each paragraph that has any."""
    found = []
    for paragraph in text.split("\n\n"):
        sentences = [
            sentence
            for sentence in _SENTENCE_END.split(" ".join(paragraph.split()))
            if _PLAIN.fullmatch(sentence) and _WORDS[0] <= len(sentence.split()) <= _WORDS[1]
        ]
        if sentences:
            found.append(sentences)
    return found


def _pairs_of(
    documents: Sequence[list[list[str]]],
    count: int,
    scores: tuple[float, float],
    rng: np.random.Generator,
) -> Iterator[ScoredPair]:
    """Yields pairs of neighbours, of one document and of two, at most `count` of each kind."""
    lowest, highest = scores
    near = [part for paragraphs in documents for part in paragraphs if len(part) > 1]
    same = [paragraphs for paragraphs in documents if len(paragraphs) > 1]

    def some(items: Sequence[list], number: int) -> list:
        return [items[at] for at in rng.permutation(len(items))[:number]]

    def one_of(items: Sequence[str]) -> str:
        return items[int(rng.integers(len(items)))]

    for paragraph in some(near, count):
        at = int(rng.integers(len(paragraph) - 1))
        yield ScoredPair(paragraph[at], paragraph[at + 1], highest)
    for document in some(same, count):
        first, second = some(document, 2)
        yield ScoredPair(one_of(first), one_of(second), (lowest + highest) / 2)
    for _ in range(min(count, len(near)) if len(documents) > 1 else 0):
        first, second = (one_of(some(document, 1)[0]) for document in some(documents, 2))
        yield ScoredPair(first, second, lowest)


def word_overlap(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> np.ndarray:
    """Returns the share of different words that both texts of a pair have, float64 [N] (Jaccard).

    For two texts without words the share is 1.

    >>> word_overlap([(["a", "b", "a"], ["b", "c"])]).round(3).tolist()
    [0.333]
    """
    sets = [({*first}, {*second}) for first, second in pairs]
    return np.array([len(a & b) / len(a | b) if a | b else 1.0 for a, b in sets], np.float64)


class PairSplit:
    """A split of pairs of sequences with scores, which lies in memory.

    Args:
        first: the ids of N sequences, none of them empty.
        second: the ids of the sequences that they are compared with.
        scores: the score of each pair, [N].
        limit: the most tokens of a sequence; a longer one keeps its first `limit` tokens.
        buckets: the lengths T to pad to; None chooses four by quantiles.
        further: arrays with the leading axis N that are gathered too, by name.

    Attributes:
        lengths: the length of the longer sequence of each pair, int32 [N].
        scores: the score of each pair, float32 [N].
        cut: the number of sequences that lost their end to `limit`.

    >>> split = PairSplit([[4, 5], [7]], [[6], [8]], [1.0, 0.0])
    >>> batch = split.gather(np.array([0]))
    >>> batch["tokens"].tolist(), batch["length"].tolist(), batch["score"].tolist()
    ([[[4, 5], [6, 0]]], [[2, 1]], [1.0])
    """

    def __init__(
        self,
        first: Sequence[Ids],
        second: Sequence[Ids],
        scores: Sequence[float] | np.ndarray,
        *,
        limit: int | None = None,
        buckets: Sequence[int] | None = None,
        further: Mapping[str, np.ndarray] | None = None,
    ):
        both = [ids for pair in zip(first, second, strict=True) for ids in pair]
        self._sequences = Sequences(both, limit=limit, buckets=buckets)
        self.scores = np.asarray(scores, np.float32)
        if self.scores.shape != (len(first),):
            raise ValueError(f"expected scores [{len(first)}], given {self.scores.shape}")
        self._further = dict(further or {})
        self._rows = np.arange(len(first))
        self.lengths = self._sequences.lengths.reshape(-1, 2).max(1)
        self.cut = self._sequences.cut

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Gathers the pairs at `indices` [n], padded with id 0.

        Args:
            indices: the numbers of the pairs.
            among: the pairs whose longest sequence decides T; None means `indices`.

        Returns:
            "tokens", int32 [n, 2, T]; "length", int32 [n, 2]; "score", float32 [n]; and the further
            arrays.
        """
        both = _both(self._rows[indices])
        found = self._sequences.gather(
            both, among=both if among is None else _both(self._rows[among])
        )
        rows = self._rows[indices]
        return {
            "tokens": found["tokens"].reshape(len(indices), 2, -1),
            "length": found["length"].reshape(-1, 2),
            "score": self.scores[rows],
            **{name: array[rows] for name, array in self._further.items()},
        }

    def subset(self, indices: np.ndarray) -> "PairSplit":
        """Returns the pairs at `indices` [n] alone with the same buckets; tokens are shared."""
        subset = copy.copy(self)
        subset._rows, subset.lengths = self._rows[indices], self.lengths[indices]
        return subset


def _both(rows: np.ndarray) -> np.ndarray:
    """Returns the indices of both sequences of pairs [n] among all sequences, [2 n]."""
    return (2 * rows[:, None] + np.arange(2)).reshape(-1)
