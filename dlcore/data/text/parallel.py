"""Loads parallel text: sentences and their translations, from a data set or the user's files."""

import pathlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from dlcore.data.text import files, prepared
from dlcore.data.text.corpora import PathLike, load_corpus
from dlcore.errors import InputError

Pair = tuple[str, str]
Splits = dict[str, list[Pair]]

# Parts at the end of a file's name that do not name its language.
_SUFFIXES = ("gz", "txt", "tsv", "csv")
# What the two sides are called where they are no languages, as in OpenNMT's examples.
_SIDES = (("src", "tgt"), ("source", "target"))


class ParallelText(NamedTuple):
    """Pairs of a source text and its translation.

    Attributes:
        name: the name of the data in logs and errors.
        languages: the languages of the sources and the targets, ("source", "target") where the
            data does not name them.
        train: the pairs to train on.
        valid: pairs that are held out for validation; may be empty.
        test: pairs that are held out for the test.
        skipped: the number of pairs that were left out because one of their sides is empty, as
            happens in most large corpora.
        notes: lines for the log about other data that was left out.
    """

    name: str
    languages: tuple[str, str]
    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    skipped: int
    notes: tuple[str, ...] = ()


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
        dataset: "dates" (to ISO 8601) or "dates/en_de" and the like, which are always available, or
            a prepared TFDS data set of translations, such as ted_hrlr_translate/ru_to_en.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.
        data_path: instead of `dataset`, a TSV file, on each line a source, a tab and a target, or
            the same as CSV; or a folder with such files, or with one file per language whose lines
            are aligned. Other columns are left out: those behind the two, such as the attribution
            of a sentence, and those that hold only numbers. The language is the last part of a
            file's name that does not name a part of the data: `train.en.gz`, `val_de.txt`,
            `src-train.txt`. Files named train, test and valid (or validation, val, dev) are these
            parts. Without such names, and in a single file, the held-out pairs are cut from all
            pairs. If only one of test and valid is there, it is the test.
        languages: the source and the target. By default they are a data set's own, or src and tgt
            where aligned files are named so; other aligned files need them, and TSV files have
            none.
        valid_share: the share of the training sources that is held out for validation where the
            data has no such part; 0 holds nothing out. All pairs of a source go together, and the
            choice depends on the sources alone.
        test_share: the same for the test.

    Raises:
        InputError: for data that is missing, not prepared, unreadable, not UTF-8 or empty, a line
            of a TSV file with fewer than two columns or other columns than the first line, aligned
            files of different lengths, languages that the data does not have, shares outside
            [0, 1), or a data set without translations.
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
        notes: tuple[str, ...] = ()
    else:
        path = files.existing(data_path)
        title, (chosen, splits, notes) = str(path), _read_files(path, languages)
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
    return ParallelText(title, chosen, train, valid, test, skipped, notes)


def load_copied_text(
    dataset: str = "dates",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    valid_share: float = 0.0,
) -> ParallelText:
    """Loads texts that are their own targets, for sequence autoencoders, in three parts.

    Args:
        dataset: "dates" or "dates/en_de" and the like, whose sources are the texts, or a data set
            for `load_corpus`, each of whose lines is a text.
        data_dir: see `load_corpus`.
        data_path: a text file, or a folder of them, instead of `dataset`; see `load_corpus`.
        valid_share: the share to hold out for validation where the data has no such part.

    Held-out texts that are also in training are left out and counted in a note; empty texts are
    counted in `skipped`.

    Raises:
        InputError: as for `load_corpus`, and where no text is left to test with.
    """
    if data_path is None and dataset.partition("/")[0] == "dates":
        text = load_parallel_text(dataset, data_dir=data_dir, valid_share=valid_share)
        title, language, notes, skipped = text.name, text.languages[0], text.notes, text.skipped
        parts = [[source for source, _ in part] for part in (text.train, text.valid, text.test)]
    else:
        corpus = load_corpus(
            dataset, data_dir=data_dir, data_path=data_path, valid_share=valid_share
        )
        title, language, notes = corpus.name, "source", corpus.notes
        lines = [part.splitlines() for part in (corpus.train, corpus.valid or "", corpus.test)]
        parts = [[line.strip() for line in part if line.strip()] for part in lines]
        skipped = sum(map(len, lines)) - sum(map(len, parts))
    known = {*parts[0]}
    fresh = [[line for line in part if line not in known] for part in parts[1:]]
    if repeated := sum(map(len, parts[1:])) - sum(map(len, fresh)):
        notes += (f"{title}: {repeated:,} held-out texts are also trained on and left out",)
    if not parts[0] or not fresh[1]:
        raise InputError(f"{title} has no text to train on or none to test with; add some")
    train, valid, test = ([(line, line) for line in part] for part in (parts[0], *fresh))
    return ParallelText(title, (language, language), train, valid, test, skipped, tuple(notes))


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


def _read_files(
    path: pathlib.Path, languages: Sequence[str]
) -> tuple[Pair, Splits, tuple[str, ...]]:
    """Reads the languages and the pairs of a file, or of each split of a folder, and notes."""
    groups = _parts(path)
    if all(len(group) == 1 for group in groups.values()) and not languages:
        tables, notes = {}, []
        for name, group in groups.items():
            tables[name], found = _read_pairs(group[0])
            notes += found
        used = [file for group in groups.values() for file in group]
        notes += files.unread(path, used) if path.is_dir() else ()
        return ("source", "target"), tables, tuple(notes)
    if path.is_file():
        raise InputError(
            f"{path} is one file, in which sources come first; leave the languages "
            f"{','.join(languages)} out, or give a folder with a file for each"
        )
    if not languages:
        names = _by_language(groups["train"])
        languages = next((sides for sides in _SIDES if {*sides} <= names.keys()), ())
        if not languages:
            first, second, *_ = [*names, "", ""]
            raise InputError(
                f"{path} has train files in {', '.join(names)}; say which language is the source "
                f"and which the target, such as --languages={first},{second}"
            )
    source, target = languages
    named = {name: _by_language(group, languages) for name, group in groups.items()}
    for name, by_language in named.items():
        if missing := [language for language in languages if language not in by_language]:
            raise InputError(
                f"{path} has {name} files in {', '.join(by_language)}, none in "
                f"{' or '.join(missing)}; choose two of them, or add a file whose name ends in it"
            )
    used = [by_language[side] for by_language in named.values() for side in languages]
    pairs = {
        name: _read_aligned(by_language[source], by_language[target])
        for name, by_language in named.items()
    }
    return (source, target), pairs, files.unread(path, used)


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


def _by_language(
    group: list[pathlib.Path], languages: Sequence[str] = ()
) -> dict[str, pathlib.Path]:
    """Returns the files by their languages: those given, or the last parts of their names."""
    by_language: dict[str, pathlib.Path] = {}
    for file in group:
        skipped = {"train", *files.HELD_OUT, *_SUFFIXES}
        parts = ["", *(part for part in files.parts(file) if part not in skipped)]
        asked = [part for part in parts if part in languages]
        language = (asked or parts)[-1]
        other = by_language.setdefault(language, file)
        if other != file and (asked or not languages):
            raise InputError(f"{file.parent} has {other.name} and {file.name}; keep one")
    return by_language


def _read_pairs(path: pathlib.Path) -> tuple[list[Pair], list[str]]:
    """Reads the pairs of a table, a line of which may be empty for both, and notes."""
    rows = files.read_rows(path)
    filled = [row for row in rows if row.cells != [""]]
    width = len(filled[0].cells)
    for cells, line in filled:
        if len(cells) != width or width < 2:
            raise InputError(
                f"{line} has {files.columns(len(cells))}; it needs a source, a tab and a target"
                + (f", as the {width} columns of the first line" if width > 2 else "")
            )
    numbers = [
        place
        for place in range(width)
        if width > 2 and all(row.cells[place].strip().isdecimal() for row in filled)
    ]
    kept = [place for place in range(width) if place not in numbers][:2]
    if len(kept) < 2:
        raise InputError(f"{path} has numbers in all columns but one; it needs two of texts")
    notes = []
    if width > 2:
        left_out = [str(place + 1) for place in range(width) if place not in kept]
        notes.append(f"{path}: of {width} columns those left out are {', '.join(left_out)}")
    names = tuple(filled[0].cells[place].strip().casefold() for place in kept)
    if names in _SIDES:
        notes.append(f"{path}: the first line names the columns {', '.join(names)}")
        rows.remove(filled[0])
    return [
        (row.cells[kept[0]], row.cells[kept[1]]) if row.cells != [""] else ("", "") for row in rows
    ], notes


def _read_aligned(source: pathlib.Path, target: pathlib.Path) -> list[Pair]:
    """Reads the pairs of two files whose lines belong together one by one."""
    sources, targets = files.read_lines(source), files.read_lines(target)
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources):,} lines but {target} has {len(targets):,}; each line "
            "needs its translation on the same line of the other file"
        )
    return [*zip(sources, targets, strict=True)]
