"""Reads what COCO's JSON files of boxes and of captions have in common: lists, pictures, parts."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from dlcore.data.image_folder import HELD_OUT, shown
from dlcore.errors import InputError
from dlcore.files import read_json


def kind_of_part(part: str) -> str:
    """Returns "train", "test" or "val" for the name of a part, or the name itself.

    >>> kind_of_part("train2017"), kind_of_part("validation")
    ('train', 'val')
    """
    part = part.casefold()
    if part.startswith("train"):
        return "train"
    held_out = next((name for name in HELD_OUT if part.startswith(name)), part)
    return {"testing": "test", "validation": "val", "valid": "val"}.get(held_out, held_out)


def read_lists(file: pathlib.Path, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the content of a file that must have a list for each of the keys.

    Raises:
        InputError: when it cannot be read, is not JSON (the message names the line), or lacks the
            list of a key.
    """
    name = shown(file)
    try:
        table = read_json(file)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        line = getattr(error, "lineno", None)
        reason = getattr(error, "msg", None) or error
        raise InputError(
            f"{f'line {line} of ' if line else ''}{name} is not JSON in COCO's form ({reason})"
        ) from None
    for key in keys:
        if not isinstance(table.get(key), list):
            *others, last = keys
            raise InputError(
                f"{name} has no list {key!r}; COCO's files of this kind have "
                f"{', '.join(others)} and {last}"
            )
    return table


def require(entry: Any, where: str, *keys: str) -> None:
    """Raises InputError unless an entry of a list is an object with these keys."""
    for key in keys:
        if not isinstance(entry, dict) or key not in entry:
            raise InputError(f"{where} has no {key!r}; add it")


def listed_pictures(file: str, table: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    """Returns the pictures that a file lists, by their ids.

    Raises:
        InputError: when a picture has no id or name, or two have the same id.
    """
    listed: dict[Any, dict[str, Any]] = {}
    for at, image in enumerate(table["images"]):
        require(image, f"image {at} of {file}", "id", "file_name")
        key, name = image["id"], image["file_name"]
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            raise InputError(f"image {at} of {file} has no id and name of a file; correct it")
        if key in listed:
            raise InputError(
                f"{file} has two pictures of the id {key}: {listed[key]['file_name']} and {name}; "
                "number them differently"
            )
        listed[key] = image
    return listed


def picture_folders(file: pathlib.Path, part: str) -> tuple[pathlib.Path, ...]:
    """Returns the folders in which the pictures of a file may lie, the likeliest first."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return root / part, root / "images" / part, root / "images", root, file.parent


def picture_folder(
    folders: Sequence[pathlib.Path], listed: Mapping[Any, dict[str, Any]]
) -> pathlib.Path:
    """Returns the first folder that has some of a file's pictures."""
    some = [listing["file_name"] for listing in [*listed.values()][:100]]
    for folder in folders:
        if any((folder / name).is_file() for name in some):
            return folder
    return folders[0]
