"""Reads a table of images and their classes, as CSV with commas or tabs.

Each row has the path of an image, relative to the folder of the table, and its class; a third
column may say to which part of the data it belongs: train, and test, validation, valid or val.
Without it a fixed fifth of every class is held out. The first row may name the columns, which may
then stand anywhere. With a separator of labels a row may name any number of classes, none too, and
an image may have several rows.
"""

import csv
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from dlcore.data.image_folder import (
    HELD_OUT,
    TRAIN,
    ImageFolder,
    hold_out,
    hold_out_labels,
    note,
    shown,
)
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError
from dlcore.files import read_text

# Names of the columns, and where they stand without names.
_COLUMNS = (
    ("image", "file", "filename", "file_name", "path", "filepath", "image_path"),
    ("label", "labels", "class", "classes", "class_name", "category", "target", "tags"),
    ("part", "split", "set", "subset"),
)


def read_table(path: pathlib.Path, separator: str | None = None) -> ImageFolder:
    """Lists the images of a table without opening one.

    Args:
        path: the table.
        separator: the text between the labels of an image that may have several; None where each
            image has one class.

    Raises:
        InputError: when the table cannot be read, has no row that names an image and a class,
            gives an image two classes, or names parts but lacks one to train on or one to test on;
            and for an empty separator.
    """
    if separator == "":
        raise InputError("the separator of labels is empty; give a character, such as ;")
    columns, rows = _columns(_rows(path), path)
    left_out: dict[str, list[str]] = {}
    labels: dict[str, set[str]] = {}
    parts: dict[str, str] = {}
    for row in rows:
        name, cell, part = (row[at].strip() if at < len(row) else "" for at in columns)
        given = {label.strip() for label in (cell.split(separator) if separator else [cell])} - {""}
        if not os.path.isfile(path.parent / name):
            left_out.setdefault("left out, no file", []).append(name)
        elif separator is None and not given:
            left_out.setdefault("left out, without a class", []).append(name)
        elif separator is None and labels.get(name, given) != given:
            raise InputError(
                f"{path} gives {name} the classes {min(labels[name])} and {cell}; an image has "
                "one, or several separated by --label_separator"
            )
        else:
            labels[name] = labels.get(name, set()) | given
            parts[name] = part.casefold()
    class_names = sorted(set().union(*labels.values()))
    if not class_names:
        raise InputError(
            f"{path} names no image with a class, looking for files in {path.parent}; its rows are "
            "PATH,CLASS with paths relative to its own folder"
        )
    if bare := [name for name, given in labels.items() if not given]:
        left_out["without a label, taken as of no class"] = bare
    numbers = {name: number for number, name in enumerate(class_names)}

    def label_of(given: set[str]) -> int | np.ndarray:
        if separator is None:
            return numbers[min(given)]
        return np.array([name in given for name in class_names], np.uint8)

    images = {
        name: StoredImage(path.parent / name, label_of(given), shown(path.parent / name))
        for name, given in labels.items()
    }
    if any(parts.values()):
        train, test = _by_part(path, parts, left_out)
        split = [images[name] for name in train], [images[name] for name in test]
        without = sorted({*class_names}.difference(*(labels[name] for name in train)))
        if without:
            raise InputError(
                f"{path} has no images to train on of {', '.join(without)}; a class must have some"
            )
    elif separator is None:
        split = hold_out([*images.values()], class_names)
    else:
        split = hold_out_labels([*images.values()], class_names)
    notes = tuple(note(path, kind, names) for kind, names in left_out.items())
    return ImageFolder(tuple(class_names), *split, notes)


def _rows(path: pathlib.Path) -> list[list[str]]:
    text = read_text(path)
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    try:
        with io.StringIO(text, newline="") as lines:
            return [row for row in csv.reader(lines, delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise InputError(f"cannot read {path} as a table in UTF-8: {error}") from error


def _columns(
    rows: Sequence[Sequence[str]], path: pathlib.Path
) -> tuple[list[int], Sequence[Sequence[str]]]:
    """Returns the columns of path, class and part, and the rows without a header."""
    places = [0, 1, 2]
    if not rows or os.path.isfile(path.parent / rows[0][0].strip()):
        return places, rows
    header = [name.strip().casefold() for name in rows[0]]
    named = [next((header.index(n) for n in names if n in header), None) for names in _COLUMNS]
    # Columns without known names are the first ones that are left.
    rest = iter([at for at in range(len(header)) if at not in named])
    found = [next(rest, len(header)) if at is None else at for at in named[:2]]
    return [*found, len(header) if named[2] is None else named[2]], rows[1:]


def _by_part(
    path: pathlib.Path, parts: dict[str, str], left_out: dict[str, list[str]]
) -> tuple[list[str], list[str]]:
    """Returns the names to train on and to test on, and notes names that are in neither part."""
    there = {*parts.values()}
    train = next((part for part in TRAIN if part in there), None)
    test = next((part for part in HELD_OUT if part in there), None)
    if train is None or test is None:
        raise InputError(
            f"{path} has the parts {', '.join(sorted(there))}; it needs train, and test, "
            "validation, valid or val"
        )
    for name, part in parts.items():
        if part not in (train, test):
            left_out.setdefault(f"left out, neither of {train} nor of {test}", []).append(name)
    first, second = (
        [name for name, part in parts.items() if part == wanted] for wanted in (train, test)
    )
    return first, second
