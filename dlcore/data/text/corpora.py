"""Loads text to train on from any source: running text, labelled texts and tagged sentences.

Texts are plain strings here; `Vocabulary` turns them into token ids.
"""

import collections
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlcore.data.text import files, prepared
from dlcore.data.text.files import Labelled, Line, Tagged
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]


class Corpus(NamedTuple):
    """Running text for a language model; `valid` and `test` are held out."""

    name: str
    train: str
    valid: str
    test: str


class LabelledText(NamedTuple):
    """Texts, each with the number of its class."""

    name: str
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]
    class_names: tuple[str, ...]


class TaggedText(NamedTuple):
    """Sentences: their tokens (the characters, where it is a string) and the number of each tag."""

    name: str
    train: list[tuple[Sequence[str], list[int]]]
    test: list[tuple[Sequence[str], list[int]]]
    tag_names: tuple[str, ...]


def load_corpus(
    dataset: str = "python_docs",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    limit: int | None = None,
) -> Corpus:
    """Loads the text of a data set, or of the user's files, in three parts.

    Args:
        dataset: "python_docs", which is always there, or a prepared TFDS data set with one text
            per example (such as lm1b), each of which becomes one or more lines.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a text file or a folder of them, instead of `dataset`. Files named train, test
            and valid (or validation, val, dev) are these parts; without such names all files are
            read in the order of their names and then cut.
        valid_share: the share of the text that is held out for validation where the data has no
            validation text: its last lines, after the test text was cut off; 0 holds nothing out.
        test_share: the share of the text that is held out for the test where the data has no test
            text: its last lines. Texts are cut at line ends.
        limit: the most characters of the training text, which is cut at a line end before anything
            is held out of it; None takes all.

    Raises:
        InputError: for data that is missing, not prepared, unreadable, not UTF-8, empty or of one
            line only, for shares outside [0, 1), or a data set without one text per example.
    """
    for name, share in (("validation", valid_share), ("test", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name} share {share} is not possible; choose it in [0, 1)")
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} characters leaves no text; give 1 or more")
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        title, train, valid, test = prepared.read_corpus(dataset, data_dir, limit=limit)
    else:
        title, (train, valid, test) = str(path), _read_parts(path)
    if limit is not None and len(train) > limit:
        train = train[: train.rfind("\n", 0, limit) + 1] or train[:limit]
    if test is None:
        train, test = _cut(train, test_share, title)
    if valid is None:
        train, valid = _cut(train, valid_share, title)
    return Corpus(title, train, valid, test)


def load_labelled_text(
    dataset: str = "docstrings",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
) -> LabelledText:
    """Loads texts and their classes from a data set or the user's files.

    Args:
        dataset: "docstrings", which is always there, or a prepared TFDS data set with one text and
            one class per example (such as imdb_reviews or glue/sst2). Its test split is "test", or
            "validation" where the data set has no test split or one without labels.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a TSV file (`files.read_labelled`), of which a fixed fifth of every class is held
            out, or a folder with files named train and test (or dev), instead of `dataset`.

    Raises:
        InputError: for data that is missing, not prepared or unreadable, a line that is no example,
            a class that is not in the training set, or a data set of another kind.
    """
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        return LabelledText(*prepared.read_labelled(dataset, data_dir))
    if path.is_dir():
        train, test = files.read_labelled(files.train_and_test(path))
    else:
        train, test = _hold_out_fifths(files.read_labelled([path])[0], path)
    numbers = _numbered(example.label for example in train)

    def number(example: Labelled) -> tuple[str, int]:
        return example.text, _number(numbers, "label", example.label, example.line)

    return LabelledText(str(path), [*map(number, train)], [*map(number, test)], tuple(numbers))


def load_tagged_text(
    dataset: str = "python_tokens",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    tag_column: int | None = None,
) -> TaggedText:
    """Loads sentences with a tag for each token from a data set or the user's files.

    Args:
        dataset: "python_tokens", which is always there, or a prepared TFDS data set with tokens and
            one sequence of classes per example.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a file in CoNLL columns (`files.read_tagged`), of which every fifth sentence is
            held out unless the rest lacks one of its tags, or a folder with files named train and
            test (or dev), instead of `dataset`.
        tag_column: the column of a file's tags, from 1 on; None takes the last, in CoNLL-U that of
            the universal parts of speech.

    Raises:
        InputError: for data that is missing, not prepared or unreadable, a line that is no token, a
            tag that is not in the training set, or a data set of another kind.
    """
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        return TaggedText(*prepared.read_tagged(dataset, data_dir))
    if path.is_dir():
        train, test = (
            files.read_tagged(file, tag_column=tag_column) for file in files.train_and_test(path)
        )
    else:
        train, test = _every_fifth(files.read_tagged(path, tag_column=tag_column), path)
    numbers = _numbered(tag for sentence in train for tag in sentence.tags)

    def number(sentence: Tagged) -> tuple[Sequence[str], list[int]]:
        return sentence.tokens, [
            _number(numbers, "tag", tag, line)
            for tag, line in zip(sentence.tags, sentence.lines, strict=True)
        ]

    return TaggedText(str(path), [*map(number, train)], [*map(number, test)], tuple(numbers))


def _read_parts(path: pathlib.Path) -> tuple[str, str | None, str | None]:
    """Reads the training, validation and test text; None stands for a text that is not there."""
    splits = files.splits(path) if path.is_dir() else {}
    if not splits:
        return files.read_text(path), None, None
    if "train" not in splits:
        names = ", ".join(file.name for file in splits.values())
        raise InputError(f"{path} has {names} but no file named train; add it or rename them")
    valid = [name for name in files.HELD_OUT if name in splits and name != "test"]
    return (
        files.read_text(splits["train"]),
        files.read_text(splits[valid[0]]) if valid else None,
        files.read_text(splits["test"]) if "test" in splits else None,
    )


def _cut(text: str, share: float, title: str) -> tuple[str, str]:
    """Cuts off the last `share` of a text, at the line end before that place or the next after."""
    if share == 0:
        return text, ""
    place = round(len(text) * (1 - share))
    place = text.rfind("\n", 0, place) + 1 or text.find("\n", place) + 1
    if not 0 < place < len(text):
        raise InputError(
            f"{title} has too few lines to hold {share:g} of its text out; give more lines, or a "
            "folder with files named train, valid and test"
        )
    return text[:place], text[place:]


def _hold_out_fifths(
    examples: list[Labelled], path: pathlib.Path
) -> tuple[list[Labelled], list[Labelled]]:
    """Holds out a fixed fifth of every class, at least one text."""
    from sklearn import model_selection

    counts = collections.Counter(example.label for example in examples)
    if alone := [example for example in examples if counts[example.label] < 2]:
        raise InputError(
            f"{alone[0].line} is the only text with label {alone[0].label!r}; a class needs 2 or "
            "more to hold some out for the test, or give a folder with files named train and test"
        )
    train, test = model_selection.train_test_split(
        range(len(examples)),
        test_size=max(-(-len(examples) // 5), len(counts)),
        random_state=0,
        stratify=[example.label for example in examples],
    )
    return [examples[index] for index in sorted(train)], [examples[index] for index in sorted(test)]


def _every_fifth(sentences: list[Tagged], path: pathlib.Path) -> tuple[list[Tagged], list[Tagged]]:
    """Holds out every fifth sentence, from the last one on, if the others have all of its tags."""
    held_out = range(len(sentences))[::-5]
    train = [sentence for index, sentence in enumerate(sentences) if index not in held_out]
    known = {tag for sentence in train for tag in sentence.tags}
    test = [sentences[index] for index in reversed(held_out) if known >= {*sentences[index].tags}]
    if not test:
        raise InputError(
            f"{path} has too few sentences ({len(sentences)}) to hold some out for the test; give "
            "more, or a folder with files named train and test"
        )
    kept = {id(sentence) for sentence in test}
    return [sentence for sentence in sentences if id(sentence) not in kept], test


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Numbers the names in alphabetical order, or by their values if all of them are numbers."""
    distinct = set(names)
    numeric = all(name.isdecimal() for name in distinct)
    ordered = sorted(distinct, key=int if numeric else str)
    return {name: number for number, name in enumerate(ordered)}


def _number(numbers: dict[str, int], kind: str, name: str, line: Line) -> int:
    if name not in numbers:
        known = ", ".join([*numbers][:8]) + (", ..." if len(numbers) > 8 else "")
        raise InputError(
            f"{kind} {name!r} in {line} is not in the training set, which has {known}; correct it "
            "or add training examples"
        )
    return numbers[name]
