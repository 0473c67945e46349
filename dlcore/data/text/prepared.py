"""Reads text from prepared TFDS data sets, including the embedded ones."""

import os
from collections.abc import Sequence

from dlcore.errors import InputError

PathLike = str | os.PathLike[str]


def read_corpus(
    dataset: str, data_dir: PathLike | None, *, limit: int | None
) -> tuple[str, str, str | None, str | None]:
    """Returns name, training, validation and test text; None means a missing split.

    Each example becomes one or more lines. Reading the training split stops after `limit`
    characters.

    Raises:
        InputError: when the data set is not prepared, has no training split, or not exactly one
            text per example.
    """
    # Files need no TFDS, whose import takes 0.3 s.
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "text")

    def read(split: str, limit: int | None = None) -> str | None:
        if split not in tfds.filled_splits(builder):
            return None
        lines, length = [], 0
        for (text,) in tfds.read_examples(builder, split, names):
            lines.append(text if text.endswith("\n") else text + "\n")
            length += len(lines[-1])
            if limit is not None and length >= limit:
                break
        return "".join(lines)

    train = read("train", limit)
    if train is None:
        raise _without_splits(builder.info.full_name, tfds.filled_splits(builder), "train")
    return builder.info.full_name, train, read("validation"), read("test")


def read_labelled(
    dataset: str, data_dir: PathLike | None
) -> tuple[
    str,
    list[tuple[str, int]],
    list[tuple[str, int]],
    tuple[str, ...],
    list[tuple[str, int]] | None,
]:
    """Returns name, training and test texts with their classes, class names and validation texts.

    Validation texts are those of the split "validation" if there is also a split "test" with
    labels, else None.

    Raises:
        InputError: when the data set is not prepared, has not exactly one text and one class per
            example, or lacks a split with labels.
    """
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "text", "class")
    class_names = tfds.class_names(builder, names[1])
    filled = tfds.filled_splits(builder)
    splits: dict[str, list[tuple[str, int]]] = {}
    for split in ("train", "test", "validation"):
        if split in filled:
            examples = [*tfds.read_examples(builder, split, names)]
            # A label that is kept secret is stored as -1.
            if all(0 <= label < len(class_names) for _, label in examples):
                splits[split] = examples
    for candidates in (("train",), ("test", "validation")):
        if not splits.keys() & {*candidates}:
            raise _without_splits(
                builder.info.full_name, filled, f"{' or '.join(candidates)} with labels"
            )
    train, test, *valid = splits.values()
    return builder.info.full_name, train, test, class_names, valid[0] if valid else None


def read_tagged(
    dataset: str, data_dir: PathLike | None
) -> tuple[
    str,
    list[tuple[Sequence[str], list[int]]],
    list[tuple[Sequence[str], list[int]]],
    tuple[str, ...],
    list[tuple[Sequence[str], list[int]]] | None,
]:
    """Returns name, training and test sentences with their tags, tag names and validation ones.

    A data set with a text instead of tokens has a tag for each character. Validation sentences are
    those of the split "validation" if there is also a split "test", else None.

    Raises:
        InputError: when the data set is not prepared, has not exactly one sequence of tokens and
            one of classes per example, or lacks a split.
    """
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "tokens", "tags")
    filled = tfds.filled_splits(builder)
    test = [split for split in ("test", "validation") if split in filled]
    if "train" not in filled or not test:
        raise _without_splits(builder.info.full_name, filled, "train, and test or validation")
    train, held_out, *valid = (
        [*tfds.read_examples(builder, split, names)] for split in ("train", *test)
    )
    tag_names = tfds.class_names(builder, names[1])
    return builder.info.full_name, train, held_out, tag_names, valid[0] if valid else None


def read_parallel(
    dataset: str, data_dir: PathLike | None, languages: Sequence[str]
) -> tuple[str, tuple[str, str], dict[str, list[tuple[str, str]]]]:
    """Returns name, languages, and the pairs of each split, called train, valid or test.

    Raises:
        InputError: when the data set is not prepared, is not one of translations, has no training
            split, or lacks one of the languages.
    """
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    known = tfds.languages_of(builder)
    source, target = languages or known[:2]
    if not {source, target} <= {*known}:
        raise InputError(
            f"data set {builder.info.full_name!r} has the languages {', '.join(known)}, not all of "
            f"{source}, {target}; choose two that it has"
        )
    filled = tfds.filled_splits(builder)
    if "train" not in filled:
        raise _without_splits(builder.info.full_name, filled, "train")
    splits = {
        name: [*tfds.read_examples(builder, split, (source, target))]
        for name, split in (("train", "train"), ("valid", "validation"), ("test", "test"))
        if split in filled
    }
    return builder.info.full_name, (source, target), splits


def _without_splits(name: str, filled: Sequence[str], needed: str) -> InputError:
    """Returns the error for a data set that lacks a split."""
    return InputError(
        f"data set {name!r} has the splits {', '.join(filled) or 'none'}; it needs {needed}"
    )
