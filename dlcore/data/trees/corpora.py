"""Loads trees by the name of a data set, or from the user's own files."""

import bisect
import collections
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dlcore.data.text import files
from dlcore.data.trees.brackets import parse_brackets
from dlcore.data.trees.dependencies import parse_dependencies
from dlcore.data.trees.tree import Tree
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]


class TreeData(NamedTuple):
    """Trees to train on and to test with.

    Attributes:
        name: the name of the data.
        train: the trees to train on.
        test: the trees to test with.
        class_names: the labels of nodes, in the order of their numbers.
        valid: trees to choose a model with, if the data has some of its own.
        further: other test sets by name.
        words_inside: whether inner nodes have words, as in dependency trees.
        notes: lines for the log about the data.
    """

    name: str
    train: list[Tree]
    test: list[Tree]
    class_names: tuple[str, ...]
    valid: list[Tree] | None = None
    further: Mapping[str, list[Tree]] = {}
    words_inside: bool = False
    notes: tuple[str, ...] = ()


def load_trees(
    dataset: str = "syntax_trees",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
) -> TreeData:
    """Loads trees with labels from a data set or the user's files.

    Args:
        dataset: an embedded data set of trees, or a prepared TFDS data set with one text per
            example, a tree in brackets.
        data_dir: the folder of prepared data sets; None stands for TFDS' own.
        data_path: a file, of which every fifth tree is held out, or a folder with files named train
            and test (or dev), instead of `dataset`. Files are CoNLL-U where they end in .conllu or
            begin with a numbered line of ten columns, else trees in brackets.

    Raises:
        InputError: for data that is missing or cannot be read, for labels that the training part
            lacks where its labels are numbers, and for fewer than two labels.
    """
    path = None if data_path is None else files.existing(data_path)
    if path is None:
        return _prepared(dataset, data_dir)
    notes: tuple[str, ...] = ()
    if path.is_dir():
        found = files.find_parts(path)
        notes += found.notes
        read = [read_trees(file) for file in found.paths]
    else:
        trees, inside, more = read_trees(path)
        held_out = trees[::-5][::-1]
        kept = {id(tree) for tree in held_out}
        rest = [tree for tree in trees if id(tree) not in kept]
        if not rest:
            raise InputError(
                f"{path} has one tree alone; give more, or a folder with files named train and test"
            )
        read = [(rest, inside, more), (held_out, inside, ())]
    kinds = {inside for _, inside, _ in read}
    if len(kinds) > 1:
        raise InputError(f"{path} has files of CoNLL-U and of brackets; give files of one kind")
    parts = [part for part, _, _ in read]
    notes += tuple(note for _, _, of_file in read for note in of_file)
    class_names, more = _classes(str(path), parts)
    train, test, *valid = parts
    return TreeData(
        str(path),
        train,
        test,
        class_names,
        valid[0] if valid else None,
        words_inside=kinds.pop(),
        notes=notes + more,
    )


def _prepared(dataset: str, data_dir: PathLike | None) -> TreeData:
    # Files need no TFDS, whose import takes 0.3 s.
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "text")
    name = builder.info.full_name
    parts: dict[str, list[Tree]] = {}
    for split in tfds.filled_splits(builder):
        parts[split] = []
        for number, (text,) in enumerate(tfds.read_examples(builder, split, names), 1):
            place = f"example {number} of {name}, split {split}"
            trees = [*parse_brackets(text, functools.partial(_column, place))]
            if len(trees) != 1:
                raise InputError(f"{place} has {len(trees)} trees in its text; give one in each")
            parts[split] += trees
    test = "test" if "test" in parts else "validation"
    if not {"train", test} <= parts.keys():
        raise InputError(
            f"data set {name!r} has the splits {', '.join(parts)}; it needs train, and test or "
            "validation"
        )
    train, tested = parts.pop("train"), parts.pop(test)
    valid = parts.pop("validation", None)
    all_parts = [train, tested, *([] if valid is None else [valid]), *parts.values()]
    class_names, notes = _classes(name, all_parts)
    return TreeData(name, train, tested, class_names, valid, parts, notes=notes)


def _column(place: str, at: int) -> str:
    return f"{place}, column {at + 1},"


def read_trees(path: pathlib.Path) -> tuple[list[Tree], bool, tuple[str, ...]]:
    """Reads the trees of a file.

    Returns:
        The trees, whether they are dependency trees, and notes.

    Raises:
        InputError: for a file that cannot be read or has no tree, and as for the parsers.
    """
    text = files.read_text(path)
    lines = text.split("\n")
    notes: tuple[str, ...] = ()
    inside = is_dependencies(lines) or path.name.split(".")[-1] in ("conllu", "conll")
    if inside:
        found = [*parse_dependencies(lines, lambda number: f"line {number} of {path}")]
        trees = [tree for tree, _ in found]
        given = sum(labelled for _, labelled in found)
        if 0 < given < len(found):
            trees = [t if labelled else _unlabelled(t) for t, labelled in found]
            notes = (
                f"{path}: {len(found) - given:,} of {len(found):,} sentences have no comment "
                "# label = NAME as the others, and so no label",
            )
    else:
        trees = [*parse_brackets(text, _Places(lines, path))]
    if not trees:
        raise InputError(
            f"{path} has no trees; write each as (LABEL (LABEL WORD) ...), or as CoNLL-U"
        )
    return trees, inside, notes


def is_dependencies(lines: Iterable[str]) -> bool:
    """Returns whether lines are in CoNLL-U, judging by the first that is not a comment."""
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return "\t" in first and not first.lstrip().startswith("(")


def _unlabelled(tree: Tree) -> Tree:
    return Tree(tree.parents, tree.words, (None,) * len(tree), tree.place)


class _Places:
    """A function that returns in words the place of a character of a file."""

    def __init__(self, lines: Sequence[str], path: pathlib.Path):
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._path = path

    def __call__(self, at: int) -> str:
        line = bisect.bisect_right(self._starts, at)
        return f"line {line}, column {at - self._starts[line - 1] + 1}, of {self._path}"


def _labels(trees: Iterable[Tree]) -> Iterator[tuple[str, Tree]]:
    return ((label, tree) for tree in trees for label in tree.labels if label is not None)


def _classes(name: str, parts: Sequence[Sequence[Tree]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the labels of the first part, for training, and notes on the labels of the others."""
    known = {label for label, _ in _labels(parts[0])}
    if len(known) < 2:
        what = f"the one label {known.pop()!r}" if known else "no labels"
        raise InputError(
            f"the training trees of {name} have {what}; give at least two, as (LABEL (LABEL WORD) "
            "...)"
        )
    numeric = all(label.isascii() and label.isdecimal() for label in known)
    names = tuple(sorted(known, key=int if numeric else str))
    lacking = collections.Counter[str]()
    for part in parts[1:]:
        for label, tree in _labels(part):
            if label in known:
                continue
            if numeric:
                raise InputError(
                    f"the tree at {tree.place} has the label {label!r}; those of the training part "
                    f"are {', '.join(names[:12])}; correct it, or write _ for none"
                )
            lacking[label] += 1
    if not lacking:
        return names, ()
    listed = ", ".join(f"{one} ({count:,})" for one, count in lacking.most_common(8))
    note = f"{name}: labels that the training part lacks count as errors: {listed}"
    return names, (note,)
