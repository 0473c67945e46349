"""Text from prepared TFDS data sets, the embedded ones among them."""

import os
from collections.abc import Sequence

from dlcore.errors import InputError

PathLike = str | os.PathLike[str]


def read_corpus(
    dataset: str, data_dir: PathLike | None, *, limit: int | None
) -> tuple[str, str, str | None, str | None]:
    """Name, training, validation and test text; None for a split that is not there.

    Each example is one or more lines. Reading the training split stops after `limit` characters.

    Raises:
        InputError: when the data set is not prepared, has no training split, or not exactly one
            text per example.
    """
    # Files need no TFDS, whose import takes 0.3 s.
    from dlcore.data import tfds

    builder = tfds.prepared_builder(dataset, data_dir)
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
) -> tuple[str, list[tuple[str, int]], list[tuple[str, int]], tuple[str, ...]]:
    """Name, training and test texts with their classes, and the classes' names.

    Raises:
        InputError: when the data set is not prepared, has not exactly one text and one class per
            example, or lacks a split with labels.
    """
    from dlcore.data import tfds

    builder = tfds.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "text", "class")
    class_names = tfds.class_names(builder, names[1])
    found = tfds.filled_splits(builder)
    splits: list[list[tuple[str, int]]] = []
    for candidates in (("train",), ("test", "validation")):
        for split in candidates:
            if split in found:
                examples = [*tfds.read_examples(builder, split, names)]
                # Held-back labels are stored as -1.
                if all(0 <= label < len(class_names) for _, label in examples):
                    splits.append(examples)
                    break
        else:
            raise _without_splits(
                builder.info.full_name, found, f"{' or '.join(candidates)} with labels"
            )
    return builder.info.full_name, splits[0], splits[1], class_names


def read_tagged(
    dataset: str, data_dir: PathLike | None
) -> tuple[
    str,
    list[tuple[Sequence[str], list[int]]],
    list[tuple[Sequence[str], list[int]]],
    tuple[str, ...],
]:
    """Name, training and test sentences with their tags, and the tags' names.

    A data set with a text instead of tokens has a tag for each character.

    Raises:
        InputError: when the data set is not prepared, has not exactly one sequence of tokens and
            one of classes per example, or lacks a split.
    """
    from dlcore.data import tfds

    builder = tfds.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "tokens", "tags")
    found = tfds.filled_splits(builder)
    test = [split for split in ("test", "validation") if split in found]
    if "train" not in found or not test:
        raise _without_splits(builder.info.full_name, found, "train, and test or validation")
    train, held_out = ([*tfds.read_examples(builder, split, names)] for split in ("train", test[0]))
    return builder.info.full_name, train, held_out, tfds.class_names(builder, names[1])


def read_parallel(
    dataset: str, data_dir: PathLike | None, languages: Sequence[str]
) -> tuple[str, tuple[str, str], dict[str, list[tuple[str, str]]]]:
    """Name, source and target language, and the pairs of each split, called train, valid or test.

    Raises:
        InputError: when the data set is not prepared, is not one of translations, has no training
            split, or lacks one of the languages.
    """
    from dlcore.data import tfds

    builder = tfds.prepared_builder(dataset, data_dir)
    known = tfds.languages_of(builder)
    source, target = languages or known[:2]
    if not {source, target} <= {*known}:
        raise InputError(
            f"data set {builder.info.full_name!r} has the languages {', '.join(known)}, not all of "
            f"{source}, {target}; choose two that it has"
        )
    found = tfds.filled_splits(builder)
    if "train" not in found:
        raise _without_splits(builder.info.full_name, found, "train")
    splits = {
        name: [*tfds.read_examples(builder, split, (source, target))]
        for name, split in (("train", "train"), ("valid", "validation"), ("test", "test"))
        if split in found
    }
    return builder.info.full_name, (source, target), splits


def _without_splits(name: str, found: Sequence[str], needed: str) -> InputError:
    return InputError(
        f"data set {name!r} has the splits {', '.join(found) or 'none'}; it needs {needed}"
    )
