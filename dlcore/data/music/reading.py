"""Loads pieces of music from data sets, JSON lists and MIDI files."""

import collections
import dataclasses
import json
import os
import pathlib
from typing import Any

from dlcore.data.music.midi import MIDI, PITCHES_OF_MIDI, read_midi
from dlcore.data.music.notes import LOWEST, PITCHES, Piece
from dlcore.data.text import files
from dlcore.errors import InputError
from dlcore.files import read_text

PathLike = str | os.PathLike[str]

# Of pieces that are not in parts, every fifth is held out.
_HELD_OUT = 5


@dataclasses.dataclass(frozen=True)
class MusicData:
    """Pieces of music in parts.

    Attributes:
        name: the name of the data in logs and errors.
        train: the pieces to train on.
        test: the pieces to test with.
        valid: the pieces to choose a model with; None where the data has no such part.
        entropy: the least possible loss, in nats for each step after the first; None where it is
            not known.
        notes: lines for the log about what was left out or changed.
    """

    name: str
    train: list[Piece]
    test: list[Piece]
    valid: list[Piece] | None = None
    entropy: float | None = None
    notes: tuple[str, ...] = ()


def load_music(
    dataset: str = "counterpoint",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    steps_per_beat: int = 1,
    limit: int | None = None,
) -> MusicData:
    """Loads the pieces of a data set, or of the user's files.

    Args:
        dataset: "counterpoint", which is always available, or a prepared TFDS data set with one
            array int [steps, voices] of pitches in each example, in which 0 is silence.
        data_dir: the folder of prepared data sets; None means TFDS' own.
        data_path: instead of `dataset`, a JSON file with {"train": pieces, "valid": pieces,
            "test": pieces} or a list of pieces, where a piece is a list of chords and a chord a
            list of pitches; or a folder of MIDI files. Files below folders train, test and valid
            (or validation, val, dev) are these parts; without such folders every fifth file, in the
            order of their names, is held out for the test, as in a JSON list.
        steps_per_beat: the number of steps for each beat (a quarter note) of MIDI files.
        limit: the most steps of a piece; a longer piece is cut into several.

    Raises:
        InputError: for data that is missing, not prepared, unreadable or of another form, pitches
            that MIDI does not have, and pieces without a step.
    """
    log = _Log()
    if data_path is None:
        name, parts, entropy = _prepared(dataset, data_dir)
    else:
        path = files.existing(data_path)
        name, parts, entropy = str(path), _read_parts(path, steps_per_beat, log), None
    kept = {part: [log.on_piano(piece) for piece in pieces] for part, pieces in parts.items()}
    if limit is not None:
        kept = {part: log.cut(pieces, limit) for part, pieces in kept.items()}
    return MusicData(name, kept["train"], kept["test"], kept.get("valid"), entropy, log.notes(name))


class _Log(collections.Counter[str]):
    """A count of what is left out or changed of a user's files."""

    def on_piano(self, piece: Piece) -> Piece:
        """Returns a piece without the pitches that a piano lacks."""
        inside = tuple(
            tuple(pitch for pitch in chord if LOWEST <= pitch < LOWEST + PITCHES) for chord in piece
        )
        self["notes outside of A0 to C8 left out"] += sum(map(len, piece)) - sum(map(len, inside))
        return inside

    def cut(self, pieces: list[Piece], limit: int) -> list[Piece]:
        """Returns pieces of at most `limit` steps."""
        self[f"pieces of more than {limit:,} steps cut into several"] += sum(
            len(piece) > limit for piece in pieces
        )
        return [
            piece[start : start + limit]
            for piece in pieces
            for start in range(0, len(piece), limit)
        ]

    def notes(self, name: str) -> tuple[str, ...]:
        return tuple(f"{name}: {count:,} {what}" for what, count in self.items() if count)


def _prepared(
    dataset: str, data_dir: PathLike | None
) -> tuple[str, dict[str, list[Piece]], float | None]:
    # Files need no TFDS, whose import takes 0.3 s.
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    names = tfds.features_of(builder, "chords")
    title = builder.info.full_name
    parts = {}
    for part, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        if split in tfds.filled_splits(builder):
            parts[part] = [
                _piece([[p for p in row if p] for row in rows], f"{title}, {split} example {n}")
                for n, (rows,) in enumerate(tfds.read_examples(builder, split, names))
            ]
    if missing := {"train", "test"} - parts.keys():
        raise InputError(f"{title} has no split {missing.pop()!r}; choose a data set with both")
    entropy = (builder.info.metadata or {}).get("entropy_rate")
    return title, parts, entropy


def _read_parts(path: pathlib.Path, steps_per_beat: int, log: _Log) -> dict[str, list[Piece]]:
    if path.is_dir():
        return _read_folder(path, steps_per_beat, log)
    if path.suffix.lower() in MIDI:
        raise InputError(
            f"{path} is one piece, and a model is trained on some and tested on others; give a "
            "folder of MIDI files"
        )
    found = _read_json(path, log)
    if isinstance(found, list):
        return _held_out(found, str(path))
    return found


def _held_out(pieces: list[Piece], source: str) -> dict[str, list[Piece]]:
    """Returns pieces to train on and to test with: every fifth, or the last of fewer than five."""
    if len(pieces) < 2:
        raise InputError(
            f"{source} has {len(pieces)} piece{'s' if len(pieces) != 1 else ''}; give two or more, "
            "of which some are held out for the test"
        )
    step = min(_HELD_OUT, len(pieces))
    test = pieces[step - 1 :: step]
    return {"train": [p for n, p in enumerate(pieces, 1) if n % step], "test": test}


def _read_folder(path: pathlib.Path, steps_per_beat: int, log: _Log) -> dict[str, list[Piece]]:
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in MIDI)
    others = sum(file.is_file() for file in path.rglob("*")) - len(found)
    log["files that are no MIDI files by their names not read"] += others
    if not found:
        raise InputError(
            f"{path} has no files that end in .mid or .midi; give a folder of MIDI files, or a "
            "JSON file"
        )
    groups: dict[str, list[pathlib.Path]] = {}
    for file in found:
        folder = file.relative_to(path).parts[0].lower() if file.parent != path else ""
        part = {"train": "train", "test": "test"}.get(folder)
        groups.setdefault(part or ("valid" if folder in files.HELD_OUT else ""), []).append(file)
    if not {"train", "test"} & groups.keys():
        return _held_out([read_midi(file, steps_per_beat, log) for file in found], str(path))
    if missing := {"train", "test"} - groups.keys():
        raise InputError(
            f"{path} has a folder {({'train', 'test'} - missing).pop()} of MIDI files but none "
            f"named {missing.pop()}; give both, or files without such folders"
        )
    log["MIDI files outside of the folders train, test and valid not read"] += len(
        groups.pop("", [])
    )
    return {
        part: [read_midi(file, steps_per_beat, log) for file in group]
        for part, group in groups.items()
    }


def _read_json(path: pathlib.Path, log: _Log) -> dict[str, list[Piece]] | list[Piece]:
    form = (
        'it should hold a list of pieces, or {"train": pieces, "valid": pieces, "test": pieces}, '
        "where a piece is a list of chords and a chord a list of pitches"
    )
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "msg", None)
        place = (
            f" (line {error.lineno}: {reason})" if isinstance(error, json.JSONDecodeError) else ""
        )
        raise InputError(f"{path} is not JSON{place}; {form}") from None
    if isinstance(content, dict):
        names = {"train": "train", "test": "test", "valid": "valid", "validation": "valid"}
        unknown = content.keys() - names.keys()
        if unknown or not {"train", "test"} <= content.keys() or len(content) > 3:
            raise InputError(f"{path} has the keys {', '.join(content) or 'none'}; {form}")
        return {names[key]: _pieces(content[key], f"{path}, {key}", form, log) for key in content}
    return _pieces(content, str(path), form, log)


def _pieces(content: Any, source: str, form: str, log: _Log) -> list[Piece]:
    if not isinstance(content, list):
        raise InputError(f"{source} is {_kind(content)}; {form}")
    if not content:
        raise InputError(f"{source} has no pieces; give some")
    return [_piece(piece, f"{source}, piece {n}", log) for n, piece in enumerate(content, 1)]


def _piece(content: Any, source: str, log: _Log | None = None) -> Piece:
    """Returns a piece after checking it.

    Raises:
        InputError: for a piece without a step, and for anything but a list of lists of pitches.
    """
    if not isinstance(content, list):
        raise InputError(f"{source} is {_kind(content)}; give a list of chords")
    if not content:
        raise InputError(f"{source} has no chords; leave it out")
    chords = []
    for number, chord in enumerate(content, 1):
        if not isinstance(chord, list):
            raise InputError(f"{source}, step {number} is {_kind(chord)}; give a list of pitches")
        for pitch in chord:
            if type(pitch) is not int or not 0 <= pitch < PITCHES_OF_MIDI:
                raise InputError(
                    f"{source}, step {number} has {json.dumps(pitch)[:40]}, which is not a MIDI "
                    "pitch; give integers from 0 to 127"
                )
        chords.append(tuple(sorted({*chord})))
        if log is not None:
            log["pitches that a chord has twice taken once"] += len(chord) - len(chords[-1])
    return tuple(chords)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")
