"""MIDI files, read and written by mido."""

import collections
import io
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from dlcore.data.music.notes import Piece
from dlcore.errors import InputError
from dlcore.files import read_whole, write_whole

PathLike = str | os.PathLike[str]

# The endings of the names of files.
MIDI = (".mid", ".midi")
PITCHES_OF_MIDI = 128

_DRUMS = 9  # the channel of percussion, whose pitches are instruments
_MOST_STEPS = 100_000
_VELOCITY, _TEMPO = 80, 500_000  # of the files that are written; microseconds of a beat


def read_midi(
    path: PathLike, steps_per_beat: int, log: "collections.Counter[str] | None" = None
) -> Piece:
    """Returns the piece in a MIDI file: the pitches at each step, of all tracks together.

    Notes begin and end at the nearest step, and last for at least one. Percussion is left out.

    Args:
        path: the file.
        steps_per_beat: the number of steps of a beat, a quarter note.
        log: counts the notes that are left out or changed.

    Raises:
        InputError: when the file cannot be read, is not a MIDI file, has no notes, or has too many
            steps.
    """
    log = collections.Counter() if log is None else log
    spans = _spans(path, log)
    if not spans:
        raise InputError(f"{path} has no notes other than percussion; leave it out")
    steps = [
        (max(0, round(start * steps_per_beat)), round(stop * steps_per_beat), pitch)
        for start, stop, pitch in spans
    ]
    steps = [(first, max(first + 1, last), pitch) for first, last, pitch in steps]
    length = max(last for _, last, _ in steps)
    if length > _MOST_STEPS:
        raise InputError(
            f"{path} has {length:,} steps, and {_MOST_STEPS:,} are the most; give a shorter file, "
            "or fewer --steps_per_beat"
        )
    roll = np.zeros((length, PITCHES_OF_MIDI), bool)
    for first, last, pitch in sorted(steps):
        log["notes that begin while their pitch sounds joined with it"] += bool(roll[first, pitch])
        roll[first:last, pitch] = True
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in roll)


def _spans(path: PathLike, log: "collections.Counter[str]") -> list[tuple[float, float, int]]:
    """Returns start and end in beats and the pitch of each note of a MIDI file."""
    import mido

    try:
        data = read_whole(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None
    try:
        # Bytes above 127 in places of data are errors unless they are cut, which hides damage.
        file = mido.MidiFile(file=io.BytesIO(data))
        messages = [(message, track) for track in file.tracks for message in _timed(track)]
        beat = file.ticks_per_beat
    except Exception as error:  # mido has many for what is no MIDI file
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(
            f"{path} is not a MIDI file, or it is damaged ({reason}); give a playable one"
        ) from None
    if beat <= 0 or file.type == 2:
        what = "tracks that are not one piece" if file.type == 2 else "times that are not beats"
        raise InputError(f"{path} is a MIDI file with {what}; save it as one of format 0 or 1")
    spans, end = [], max((time for (time, _), _ in messages), default=0)
    open_notes: dict[tuple[int, int, int], list[int]] = {}
    for (time, message), track in messages:
        if message.type not in ("note_on", "note_off"):
            continue
        begins = message.type == "note_on" and message.velocity > 0
        if message.channel == _DRUMS:
            log["notes of percussion left out"] += begins
            continue
        key = id(track), message.channel, message.note
        if begins:
            open_notes.setdefault(key, []).append(time)
        elif starts := open_notes.get(key):
            spans.append((starts.pop(0) / beat, time / beat, message.note))
    for (_, _, pitch), starts in open_notes.items():
        log["notes without an end held to that of the file"] += len(starts)
        spans += [(start / beat, end / beat, pitch) for start in starts]
    return spans


def _timed(track: Any) -> Iterator[tuple[int, Any]]:
    """Yields the messages of a track with their times since its beginning, in ticks."""
    time = 0
    for message in track:
        time += message.time
        yield time, message


def midi_bytes(piece: Piece, steps_per_beat: int) -> bytes:
    """Returns a piece as the content of a MIDI file, with equal neighbouring pitches held."""
    import mido

    file = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=_TEMPO))
    before: set[int] = set()
    last = 0
    for step, chord in enumerate((*piece, ())):
        now = round(step * 480 / steps_per_beat)
        changes = [("note_off", pitch) for pitch in sorted(before - {*chord})]
        changes += [("note_on", pitch) for pitch in sorted({*chord} - before)]
        for kind, pitch in changes:
            track.append(mido.Message(kind, note=pitch, velocity=_VELOCITY, time=now - last))
            last = now
        before = {*chord}
    track.append(mido.MetaMessage("end_of_track", time=now - last))
    with io.BytesIO() as buffer:
        file.save(file=buffer)
        return buffer.getvalue()


def write_midi(path: pathlib.Path, piece: Piece, steps_per_beat: int) -> None:
    """Writes a piece as a MIDI file.

    Raises:
        OSError: when the file cannot be written.
    """
    write_whole(path, midi_bytes(piece, steps_per_beat))
