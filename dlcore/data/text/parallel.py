"""Loads parallel text: sentences and their translations, from a data set or the user's files."""

import pathlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from dlcore.data.text import files, prepared
from dlcore.data.text.corpora import PathLike
from dlcore.errors import InputError

Pair = tuple[str, str]
Splits = dict[str, list[Pair]]

# Parts at the end of a file's name that do not name its language.
_SUFFIXES = ("gz", "txt")


class ParallelText(NamedTuple):
    """Pairs of a source text and its translation.

    Attributes:
        name: the name of the data in logs and errors.
        languages: the languages of the sources and the targets, ("source", "target") where the
            data does not name them.
        train: the pairs to train on.
        valid: pairs that are held out for validation; may be empty.
        test: pairs that are held out for the test.
        skipped: the number of pairs that were left out because one of their sides is empty, as some
            are in most large corpora.
    """

    name: str
    languages: tuple[str, str]
    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    skipped: int


def load_parallel_text(
    dataset: str = "dates",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    languages: Sequence[str] = (),
    valid_share: float = 0.0,
    test_share: float = 0.1,
) -> ParallelText:
    """Loads pairs of sentences in three parts, without white space around the texts.

    Args:
        dataset: "dates" (to ISO 8601) or "dates/en_de" and the like, which are always there, or a
            prepared TFDS data set of translations, such as ted_hrlr_translate/ru_to_en.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: instead of `dataset`, a TSV file, on each line a source, a tab and a target; or a
            folder with such files, or with one file per language whose lines are aligned. The
            language is the last part of a file's name: `train.en.gz`, `val_de.txt`. Files named
            train, test and valid (or validation, val, dev) are these parts. Without such names, and
            in a single file, the held-out pairs are cut from all pairs. If only one of test and
            valid is there, it is the test.
        languages: the source and the target. By default a data set's own; aligned files need them,
            TSV files have none.
        valid_share: the share of the training sources that is held out for validation where the
            data has no such part; 0 holds nothing out. All pairs of a source go together, and the
            choice depends on the sources alone.
        test_share: the same for the test.

    Raises:
        InputError: for data that is missing, not prepared, unreadable, not UTF-8 or empty, a line
            of a TSV file without exactly two columns, aligned files of different lengths, languages
            that the data does not have, shares outside [0, 1), or a data set without translations.
    """
    for name, share in (("validation", valid_share), ("test", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name} share {share} is not possible; choose it in [0, 1)")
    if languages and (len(languages) != 2 or len({*languages} - {""}) != 2):
        raise InputError(
            f"languages {','.join(languages)!r} are not two; give a source and a target, such as "
            "en,de"
        )
    if data_path is None:
        title, chosen, splits = prepared.read_parallel(dataset, data_dir, languages)
    else:
        path = files.existing(data_path)
        title, (chosen, splits) = str(path), _read_files(path, languages)
    filled = {name: _filled(pairs) for name, pairs in splits.items()}
    for name, pairs in filled.items():
        if not pairs:
            raise InputError(f"{title} has no {name} pair with text on both sides; add some")
    train, valid, test = (filled.get(name) for name in ("train", "valid", "test"))
    assert train is not None
    if test is None:
        valid, test = None, valid
    if test is None:
        train, test = _hold_out(train, test_share, title)
    if valid is None:
        train, valid = _hold_out(train, valid_share, title)
    skipped = sum(map(len, splits.values())) - sum(map(len, filled.values()))
    return ParallelText(title, chosen, train, valid, test, skipped)


def _filled(pairs: list[Pair]) -> list[Pair]:
    """Keeps the pairs that have text on both sides and strips their white space."""
    stripped = ((source.strip(), target.strip()) for source, target in pairs)
    return [pair for pair in stripped if all(pair)]


def _hold_out(pairs: list[Pair], share: float, title: str) -> tuple[list[Pair], list[Pair]]:
    """Holds out a fixed share of the sources, at least one, with all of their pairs."""
    if share == 0:
        return pairs, []
    # An order that looks random and does not change when pairs are added.
    sources = sorted({source for source, _ in pairs}, key=lambda text: zlib.crc32(text.encode()))
    count = max(1, round(len(sources) * share))
    if count >= len(sources):
        raise InputError(
            f"{title} has too few sources ({len(sources)}) to hold {share:g} of them out; give "
            "more pairs, or a folder with files named train, valid and test"
        )
    held_out = {*sources[:count]}
    return (
        [pair for pair in pairs if pair[0] not in held_out],
        [pair for pair in pairs if pair[0] in held_out],
    )


def _read_files(path: pathlib.Path, languages: Sequence[str]) -> tuple[Pair, Splits]:
    """Reads the languages and the pairs of a file, or of each split of a folder."""
    groups = _parts(path)
    if all(len(group) == 1 for group in groups.values()) and not languages:
        tables = {name: _read_pairs(group[0]) for name, group in groups.items()}
        return ("source", "target"), tables
    if path.is_file():
        raise InputError(
            f"{path} is one file, in which sources come first; leave the languages "
            f"{','.join(languages)} out, or give a folder with a file for each"
        )
    named = {name: _by_language(group) for name, group in groups.items()}
    if not languages:
        first, second, *_ = [*named["train"], "", ""]
        raise InputError(
            f"{path} has train files in {', '.join(named['train'])}; say which language is the "
            f"source and which the target, such as --languages={first},{second}"
        )
    source, target = languages
    for name, by_language in named.items():
        if missing := [language for language in languages if language not in by_language]:
            raise InputError(
                f"{path} has {name} files in {', '.join(by_language)}, none in "
                f"{' or '.join(missing)}; choose two of them, or add a file whose name ends in it"
            )
    return (source, target), {
        name: _read_aligned(by_language[source], by_language[target])
        for name, by_language in named.items()
    }


def _parts(path: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Finds the files of the training, validation and test part."""
    if path.is_file():
        return {"train": [path]}
    groups = files.files_of_splits(path) or {"train": files.visible(path)}
    if "train" not in groups:
        names = ", ".join(file.name for group in groups.values() for file in group)
        raise InputError(f"{path} has {names} but no file named train; add it or rename them")
    valid = [name for name in files.HELD_OUT if name in groups and name != "test"]
    chosen = {"train": "train", "valid": valid[0] if valid else "", "test": "test"}
    return {part: groups[name] for part, name in chosen.items() if name in groups}


def _by_language(group: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Returns the files by their languages."""
    by_language: dict[str, pathlib.Path] = {}
    for file in group:
        language = ["", *(part for part in files.parts(file) if part not in _SUFFIXES)][-1]
        other = by_language.setdefault(language, file)
        if other != file:
            raise InputError(f"{file.parent} has {other.name} and {file.name}; keep one")
    return by_language


def _read_pairs(path: pathlib.Path) -> list[Pair]:
    """Reads the pairs of a TSV file: a line is two texts with a tab between, or empty for both."""
    rows = [line.split("\t") for line in files.read_lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 and row != [""]:
            raise InputError(
                f"{files.Line(path, number)} has {files.columns(len(row))}; it needs a source, a "
                "tab and a target"
            )
    return [(row[0], row[-1]) for row in rows]


def _read_aligned(source: pathlib.Path, target: pathlib.Path) -> list[Pair]:
    """Reads the pairs of two files whose lines belong together one by one."""
    sources, targets = files.read_lines(source), files.read_lines(target)
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources):,} lines but {target} has {len(targets):,}; each line "
            "needs its translation on the same line of the other file"
        )
    return [*zip(sources, targets, strict=True)]
