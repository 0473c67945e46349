"""Loads text to train on from any source: running text, labelled texts and tagged sentences.

Texts are plain strings here; `Vocabulary` turns them into token ids.
"""

import collections
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dlcore.data.text import files, prepared
from dlcore.data.text.column_files import Tagged, read_tagged
from dlcore.data.text.labelled_files import Labelled, read_labelled
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]


class Corpus(NamedTuple):
    """Running text for a language model; `valid` and `test` are held out.

    Attributes:
        notes: lines for the log about what was left out or cut.
    """

    name: str
    train: str
    valid: str
    test: str
    notes: tuple[str, ...] = ()


class LabelledText(NamedTuple):
    """Texts, each with the number of its class.

    Attributes:
        valid: texts to choose a model with; None where the data has no such part.
        notes: lines for the log about what was left out and what is unusual.
    """

    name: str
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]
    class_names: tuple[str, ...]
    valid: list[tuple[str, int]] | None = None
    notes: tuple[str, ...] = ()


class TaggedText(NamedTuple):
    """Sentences: the tokens of each (of a string, its characters) and the number of each tag.

    Attributes:
        valid: sentences to choose a model with; None where the data has no such part.
        notes: lines for the log about what was left out and what is unusual.
    """

    name: str
    train: list[tuple[Sequence[str], list[int]]]
    test: list[tuple[Sequence[str], list[int]]]
    tag_names: tuple[str, ...]
    valid: list[tuple[Sequence[str], list[int]]] | None = None
    notes: tuple[str, ...] = ()


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
        dataset: "python_docs", which is always available, or a prepared TFDS data set with one text
            per example (such as lm1b); each text becomes one or more lines.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a text file or a folder of them, instead of `dataset`. Files named train, test
            and valid (or validation, val, dev) are these parts; without such names all files are
            read in the order of their names and then cut.
        valid_share: the share of the text that is held out for validation where the data has no
            validation text: its last lines, after the test text was cut off; 0 holds nothing out.
        test_share: the share of the text that is held out for the test where the data has no test
            text: its last lines. Texts are cut at line ends, or at white space where lines are so
            long that the parts would be much smaller or larger.
        limit: the most characters of the training text, which is cut in the same way before
            anything is held out of it; None takes all.

    Raises:
        InputError: for data that is missing, not prepared, unreadable, not UTF-8, empty or too
            short to be cut, for shares outside [0, 1), or a data set without one text per example.
    """
    for name, share in (("validation", valid_share), ("test", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name} share {share} is not possible; choose it in [0, 1)")
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} characters leaves no text; give 1 or more")
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        title, train, valid, test = prepared.read_corpus(dataset, data_dir, limit=limit)
        notes: tuple[str, ...] = ()
    else:
        title, (train, valid, test, notes) = str(path), _read_parts(path)
    if limit is not None and len(train) > limit:
        train = train[: _place(train[:limit], limit)]
    if test is None:
        train, test = _cut(train, test_share, title)
    if valid is None:
        train, valid = _cut(train, valid_share, title)
    if not train.endswith("\n"):
        notes += (f"{title}: its lines are so long that it is cut inside of one",)
    return Corpus(title, train, valid, test, notes)


def load_labelled_text(
    dataset: str = "docstrings",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    text_column: int | str | None = None,
    label_column: int | str | None = None,
) -> LabelledText:
    """Loads texts and their classes from a data set or the user's files.

    Args:
        dataset: "docstrings", which is always there, or a prepared TFDS data set with one text and
            one class per example (such as imdb_reviews or glue/sst2). Its test split is "test", or
            "validation" where the data set has no test split or one without labels.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a TSV or CSV file (`labelled_files.read_labelled`), of which a fixed fifth of
            every class is held out, or a folder with files named train and test (or dev), instead
            of `dataset`. A dev file beside a test file is for validation.
        text_column: the number, from 1 on, or the name of the column of the texts in files.
        label_column: the same for the labels.

    A class that the training part lacks is a class like any other, although no model gets it right.

    Raises:
        InputError: for data that is missing, not prepared or unreadable, a line that is not an
            example, or a data set of another kind.
    """
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        return LabelledText(*prepared.read_labelled(dataset, data_dir))
    named = {"text_column": text_column, "label_column": label_column}
    if path.is_dir():
        found = files.find_parts(path)
        parts, notes = read_labelled(found.paths, **named)
        notes += found.notes
    else:
        (examples,), notes = read_labelled([path], **named)
        parts = [*_hold_out_fifths(examples, path)]
    numbers = _numbered(example.label for part in parts for example in part)
    notes += _unseen(path, "label", [[[one.label] for one in part] for part in parts])
    train, test, *valid = (
        [(example.text, numbers[example.label]) for example in part] for part in parts
    )
    return LabelledText(str(path), train, test, tuple(numbers), valid[0] if valid else None, notes)


def load_tagged_text(
    dataset: str = "python_tokens",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    token_column: int | str | None = None,
    tag_column: int | str | None = None,
) -> TaggedText:
    """Loads sentences with a tag for each token from a data set or the user's files.

    Args:
        dataset: "python_tokens", which is always there, or a prepared TFDS data set with tokens and
            one sequence of classes per example.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: a file in CoNLL columns (`column_files.read_tagged`), of which every fifth
            sentence is held out unless the rest lacks one of its tags, or a folder with files named
            train and test (or dev), instead of `dataset`. A dev file beside a test file is for
            validation.
        token_column: the number, from 1 on, or the name of the column of a file's tokens.
        tag_column: the same for the tags; None takes the last, in CoNLL-U that of the universal
            parts of speech.

    A tag that the training part lacks is a tag like any other, although no model gets it right.

    Raises:
        InputError: for data that is missing, not prepared or unreadable, a line that is not a
            token, or a data set of another kind.
    """
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        return TaggedText(*prepared.read_tagged(dataset, data_dir))
    named = {"token_column": token_column, "tag_column": tag_column}
    notes: tuple[str, ...] = ()
    if path.is_dir():
        found = files.find_parts(path)
        read = []
        for file in found.paths:
            sentences, left_out = read_tagged(file, **named)
            read.append(sentences)
            notes += left_out
        notes += found.notes
    else:
        sentences, notes = read_tagged(path, **named)
        read = [*_every_fifth(sentences, path)]
    numbers = _numbered(tag for part in read for one in part for tag in one.tags)
    notes += _unseen(path, "tag", [[one.tags for one in part] for part in read])
    parts: list[list[tuple[Sequence[str], list[int]]]] = [
        [(one.tokens, [numbers[tag] for tag in one.tags]) for one in part] for part in read
    ]
    train, test, *valid = parts
    return TaggedText(str(path), train, test, tuple(numbers), valid[0] if valid else None, notes)


def _read_parts(
    path: pathlib.Path,
) -> tuple[str, str | None, str | None, tuple[str, ...]]:
    """Returns the training, validation and test text, None where one is missing, and notes."""
    splits = files.splits(path) if path.is_dir() else {}
    if not splits:
        return files.read_text(path), None, None, ()
    if "train" not in splits:
        names = ", ".join(file.name for file in splits.values())
        raise InputError(f"{path} has {names} but no file named train; add it or rename them")
    valid = [name for name in files.HELD_OUT if name in splits and name != "test"]
    used = ["train", *valid[:1], *(["test"] if "test" in splits else [])]
    return (
        files.read_text(splits["train"]),
        files.read_text(splits[valid[0]]) if valid else None,
        files.read_text(splits["test"]) if "test" in splits else None,
        files.unread(path, [splits[name] for name in used]),
    )


def _cut(text: str, share: float, title: str) -> tuple[str, str]:
    """Cuts off the last `share` of a text."""
    if share == 0:
        return text, ""
    place = _place(text, round(len(text) * (1 - share)))
    if not 0 < place < len(text):
        raise InputError(
            f"{title} is too short to hold {share:g} of its text out; give more, or a folder with "
            "files named train, valid and test"
        )
    return text[:place], text[place:]


def _place(text: str, wanted: int) -> int:
    """Returns the position at which to cut a text: near a given one, if possible at a line end.

    This is the last line end before the given position if at least half of the text before it
    stays, else the next line end if at least half of the text after it stays, else the last white
    space before it under the same condition. A text of a single line, such as text8, has no line
    end; some texts have no white space.
    """
    before = text.rfind("\n", 0, wanted) + 1
    if 2 * before >= wanted:
        return before
    after = text.find("\n", wanted) + 1
    if after and 2 * (len(text) - after) >= len(text) - wanted > 0:
        return after
    space = max(text.rfind(sign, 0, wanted) for sign in " \t\u3000") + 1
    return space if 2 * space >= wanted else wanted


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


def _unseen(
    name: str | pathlib.Path, kind: str, parts: Sequence[Sequence[Sequence[str]]]
) -> tuple[str, ...]:
    """Returns a note on labels or tags of other parts that the first part, for training, lacks."""
    seen = {one for of in parts[0] for one in of}
    lacking = collections.Counter(
        one for part in parts[1:] for of in part for one in of if one not in seen
    )
    if not lacking:
        return ()
    listed = ", ".join(f"{one} ({count:,})" for one, count in lacking.most_common(8))
    more = f" and {len(lacking) - 8:,} more" if len(lacking) > 8 else ""
    return (f"{name}: {kind}s that the training part lacks count as errors: {listed}{more}",)
