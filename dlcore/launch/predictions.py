"""--predict: a trained model's answers for files, folders, or standard input."""

import csv
import io
import json
import pathlib
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import tqdm

from dlcore.data.pictures import image_suffixes
from dlcore.data.text.files import read_lines
from dlcore.errors import InputError
from dlcore.files import write_whole
from dlcore.launch.loading import Trained
from dlcore.launch.process import say
from dlcore.launch.task import Task
from dlcore.train.logs import writing


def predict(trained: Trained[Any, Any], source: str, target: str) -> None:
    """Writes the model's answers for the inputs of a source, in order.

    Args:
        trained: the trained run.
        source: a file, a folder or "-" for standard input, with images, files of a kind that the
            job defines, or lines of text. Standard input lists images and files by their paths,
            one per line.
        target: a file that ends in .csv or .jsonl, or "-" for JSON lines on standard output; for
            jobs that write answers in a format of their own, also a folder.

    Raises:
        InputError: when the model does not predict, or an input cannot be read.
    """
    reads = trained.task.reads
    if reads is None:
        raise InputError(f"{trained.task.name()} has a model that makes no predictions; see --help")
    form = "jsonl" if target == "-" else pathlib.Path(target).suffix.removeprefix(".")
    to_folder = form == "" and type(trained.task).write_answers is not Task.write_answers
    if form not in ("csv", "jsonl") and not to_folder:
        raise InputError(f"--predict_to={target} is neither -, a .csv nor a .jsonl file")
    inputs = _INPUTS[reads](source)
    if remark := trained.task.remark(inputs):
        say(remark)
    rows = _rows(trained, inputs)
    if to_folder:
        trained.task.write_answers(_new_folder(target), rows)
        return
    if target == "-":
        _write(rows, form, sys.stdout)
        return
    path = pathlib.Path(target)
    with writing(path), io.StringIO(newline="") as buffer:
        _write(rows, form, buffer)
        # Names of files need not be UTF-8; JSON has these escapes too.
        write_whole(path, buffer.getvalue(), errors="backslashreplace")
    say(f"predictions written to {path}: {len(inputs):,}")


def _new_folder(target: str) -> pathlib.Path:
    """Makes the folder of --predict_to, which must be empty, and returns it."""
    folder = pathlib.Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already; choose a new folder by --predict_to, or - for lines of "
            "JSON on standard output"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _rows(trained: Trained[Any, Any], inputs: Sequence[str]) -> Iterator[dict[str, Any]]:
    together = trained.task.answered_together
    starts = range(0, len(inputs), together)
    for start in tqdm.tqdm(starts, desc="predicting", delay=2, leave=False, file=sys.stderr):
        some = inputs[start : start + together]
        for given, answer in zip(some, trained.answers(some), strict=True):
            for row in answer if isinstance(answer, list) else [answer]:
                yield {"input": given, **row}


def _write(rows: Iterator[dict[str, Any]], form: str, target: TextIO) -> None:
    if form == "jsonl":
        for row in rows:
            target.write(json.dumps(row, ensure_ascii=False, default=np.ndarray.tolist) + "\n")
        return
    together = [*rows]
    nested = {name for row in together for name, value in row.items() if _of_dicts(value)}
    flat = [_flat(row, nested) for row in together]
    # Some rows may have more columns than others, such as fewer or more answers.
    writer = csv.DictWriter(target, [*dict.fromkeys(name for row in flat for name in row)])
    writer.writeheader()
    writer.writerows(flat)


def _of_dicts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _flat(row: dict[str, Any], nested: Collection[str]) -> dict[str, Any]:
    """Returns a row of plain values.

    Of a list of dicts the first is in the row already; the second becomes the columns NAME_2, and
    so on.

    Args:
        row: the values by column.
        nested: the columns that hold lists of dicts, which may be empty in this row.
    """
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if name in nested:
            for number, item in enumerate(value[1:], 2):
                flat |= {f"{key}_{number}": part for key, part in item.items()}
        elif isinstance(value, list):
            flat[name] = " ".join(map(str, value))
        else:
            flat[name] = value
    return flat


def input_files(source: str, kind: str = "file") -> list[str]:
    """Returns the path of one file, of the files in a folder, or of those listed by standard input.

    Args:
        source: the file, the folder, or "-" for standard input.
        kind: the word for a file in errors.

    Raises:
        InputError: when there are no files.
    """
    if source == "-":
        return [line for line in _standard_input(errors="surrogateescape") if line.strip()]
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        files = sorted(str(file) for file in path.rglob("*") if not file.is_dir())
        if not files:
            raise InputError(f"there are no {kind}s in {path}; give a folder of {kind}s, or a file")
        return files
    if not path.exists():
        raise InputError(f"there is no file {path}; give one {kind}, a folder of {kind}s, or -")
    return [str(path)]


def input_images(source: str) -> list[str]:
    """Returns the path of one image, of the images in a folder, or of those on standard input.

    Raises:
        InputError: when there are no images.
    """
    files = input_files(source, "image")
    if source == "-" or not (path := pathlib.Path(source).expanduser()).is_dir():
        return files
    suffixes = image_suffixes()
    # A link may lead nowhere.
    found = [f for f in map(pathlib.Path, files) if f.suffix.lower() in suffixes and f.is_file()]
    if len(found) < len(files):
        say(f"{len(files) - len(found):,} files in {path} are not images and are left out")
    if not found:
        raise InputError(f"there are no images in {path}; give a folder of images, or a file")
    return [*map(str, found)]


def input_lines(source: str) -> list[str]:
    """Returns the lines of a file, or of standard input for "-".

    Raises:
        InputError: when the lines cannot be read.
    """
    if source != "-":
        return read_lines(pathlib.Path(source).expanduser())
    try:
        return _standard_input(errors="strict")
    except UnicodeDecodeError:
        raise InputError("standard input is not UTF-8; convert it to UTF-8") from None


def input_blocks(source: str) -> list[str]:
    """Returns the blocks of lines of a file or of standard input that blank lines separate.

    Raises:
        InputError: when the lines cannot be read.
    """
    blocks: list[list[str]] = [[]]
    for line in input_lines(source):
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def _standard_input(errors: str) -> list[str]:
    """Returns the lines of standard input as UTF-8, whatever the locale; `errors` as for `open`."""
    text = sys.stdin.buffer.read().decode("utf-8-sig", errors)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


_INPUTS = {
    "images": input_images,
    "lines": input_lines,
    "blocks": input_blocks,
    "files": input_files,
}
