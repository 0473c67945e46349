"""The official one-shot tests of Omniglot, as its authors published them.

Each run (Lake et al. 2015, doi:10.1126/science.aab3050) has characters of one alphabet: a known
picture of each by one drawer, and a picture of each by another drawer to recognise. The file
all_runs.zip has the folders run01 to run20, with 20 pictures each in training/ and test/, and
class_labels.txt, which names for each test picture the training picture of the same character:
`run01/test/item01.png run01/training/class08.png`.
"""

import os
import pathlib
import re
import zipfile
from typing import NamedTuple

import numpy as np

from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError

OFFICIAL = 20  # runs
_LABELS = "class_labels.txt"
_WANTED = "give Omniglot's all_runs.zip, or the folder that it was unpacked into"
_Folder = pathlib.Path | zipfile.Path


class OneShotRun(NamedTuple):
    """A test: for each of Q pictures, find the one of N known pictures with the same character.

    Attributes:
        name: the name of the folder of the test.
        known: the N known pictures, one of each character.
        queries: the Q pictures to recognise.
        answers: int [Q], the number of the known picture of the same character.
    """

    name: str
    known: list[StoredImage]
    queries: list[StoredImage]
    answers: np.ndarray


def read_one_shot_runs(path: str | os.PathLike[str]) -> list[OneShotRun]:
    """Reads the runs in all_runs.zip, or in a folder, without decoding the pictures.

    Args:
        path: the archive or the folder. The folders run01, run02, ... lie in it, or within it in
            all_runs/.

    Returns:
        The runs by name.

    Raises:
        InputError: when the path cannot be read, for another layout, and for labels that name
            missing pictures.
    """
    path = pathlib.Path(path).expanduser()
    try:
        if path.is_dir():
            return _read(path, path)
        with zipfile.ZipFile(path) as archive:
            return _read(path, zipfile.Path(archive))
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is not a whole zip archive ({error}); {_WANTED}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; {_WANTED}") from error


def _read(path: pathlib.Path, top: _Folder) -> list[OneShotRun]:
    for root in (top, top / "all_runs"):
        items = root.iterdir() if root.is_dir() else ()
        names = sorted(item.name for item in items if re.fullmatch(r"run\d+", item.name))
        if names:
            return [_run(root, name) for name in names]
    raise InputError(f"{path} has no folders run01, run02, ...; {_WANTED}")


def _run(root: _Folder, name: str) -> OneShotRun:
    file = root / name / _LABELS
    if not file.is_file():
        raise InputError(f"{file} is not there; {_WANTED}")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(
                f"{file} has the line {' '.join(pair)!r}; expected two paths: of a test picture, "
                "and of the training picture of the same character"
            )
    known = sorted({pair[1] for pair in pairs})
    if len(known) < 2:
        raise InputError(f"{file} names {len(known)} training pictures; expected 2 or more")
    return OneShotRun(
        name,
        [_picture(root, picture, file) for picture in known],
        [_picture(root, pair[0], file) for pair in pairs],
        np.array([known.index(pair[1]) for pair in pairs]),
    )


def _picture(root: _Folder, name: str, labels: _Folder) -> StoredImage:
    file = root / name
    if not file.is_file():
        raise InputError(f"{labels} names {name}, which is not there; {_WANTED}")
    return StoredImage(file.read_bytes(), 0, str(file))
