"""Notes by their names, and pieces of music as texts.

A piece is a sequence of chords, one for each step of a fixed length. A chord is the MIDI pitches
that sound at that step, from the lowest to the highest; middle C is 60. A piece does not record
whether a pitch is held or struck again, as in Boulanger-Lewandowski et al. 2012.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.errors import InputError

# The pitches that sound at one step, as MIDI numbers in ascending order; () is silence.
Chord = tuple[int, ...]
# The chords of a piece, one for each step.
Piece = tuple[Chord, ...]

# The keys of a piano, from A0 to C8.
LOWEST, PITCHES = 21, 88
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SILENCE, JOINED = ".", "+"

_NAME = re.compile(r"([A-Ga-g])(#|b|)(-?\d{1,2})")


def note_name(pitch: int) -> str:
    """Returns the name of a pitch, with sharps.

    >>> note_name(60), note_name(21), note_name(70)
    ('C4', 'A0', 'A#4')
    """
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def chord_text(chord: Chord) -> str:
    """Returns a chord as text, from its lowest note up.

    >>> chord_text((48, 64)), chord_text(())
    ('C3+E4', '.')
    """
    return JOINED.join(map(note_name, sorted(chord))) or SILENCE


def parse_chord(text: str) -> Chord:
    """Returns the chord of a text such as "C3+E4+G4"; "." is silence.

    Raises:
        InputError: for a text that is not the name of a note, or a note that a piano lacks.

    >>> parse_chord("Bb3+c#4")
    (58, 61)
    """
    if text == SILENCE:
        return ()
    pitches = set()
    for name in text.split(JOINED):
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(
                f"{name[:40]!r} is not a note; write names such as C4 (middle C), F#3 or Bb2, "
                f"{JOINED} between the notes of a chord and {SILENCE} for silence"
            )
        letter, sign, octave = match.groups()
        pitch = NAMES.index(letter.upper()) + {"#": 1, "b": -1, "": 0}[sign] + 12 * int(octave) + 12
        if not LOWEST <= pitch < LOWEST + PITCHES:
            raise InputError(
                f"{name} is not a key of a piano; give notes from {note_name(LOWEST)} to "
                f"{note_name(LOWEST + PITCHES - 1)}"
            )
        pitches.add(pitch)
    return tuple(sorted(pitches))


def parse_piece(text: str) -> Piece:
    """Returns the piece of a text of chords, one for each step, with white space between them.

    Raises:
        InputError: for a text without a chord, and as for `parse_chord`.

    >>> parse_piece("C4 E4+G4 .")
    ((60,), (64, 67), ())
    """
    chords = tuple(map(parse_chord, text.split()))
    if not chords:
        raise InputError("an empty line has no notes; write some, such as: C5 C5 D5 E5")
    return chords


def piece_text(piece: Piece) -> str:
    """Returns a piece as a text that `parse_piece` reads."""
    return " ".join(map(chord_text, piece))


def voices_text(piece: Piece, columns: int = 16) -> str:
    """Returns the voices of a piece as lines of note names, the highest first.

    Args:
        piece: the piece; its n-th voice has the n-th note of each chord from above.
        columns: the number of steps in a line.

    >>> print(voices_text(((48, 60), (60,), ()), columns=2))
    C4  C4
    C3  .
    <BLANKLINE>
    .
    .
    """
    count = max(map(len, piece), default=0) or 1
    blocks = []
    for start in range(0, len(piece), columns):
        block = [sorted(chord, reverse=True) for chord in piece[start : start + columns]]
        rows = (
            [note_name(chord[voice]) if voice < len(chord) else SILENCE for chord in block]
            for voice in range(count)
        )
        blocks.append("\n".join("".join(f"{name:<4}" for name in row).rstrip() for row in rows))
    return "\n\n".join(blocks)


def most_notes(pieces: Iterable[Piece]) -> int:
    """Returns the largest number of notes in a chord of some pieces, 1 or more."""
    return max(1, max((len(chord) for piece in pieces for chord in piece), default=0))


class Shares(NamedTuple):
    """Figures of a set of pieces, to compare generated ones with real ones.

    Attributes:
        notes: the mean number of notes of a chord.
        silent: the share of steps at which nothing sounds.
        repeated: the share of steps whose chord equals the one before.
        classes: the share of each of the twelve pitch classes among the notes, [12].
    """

    notes: float
    silent: float
    repeated: float
    classes: np.ndarray


def shares(pieces: Sequence[Piece]) -> Shares:
    """Returns the figures of pieces that have at least one step."""
    chords = [chord for piece in pieces for chord in piece]
    pairs = [before == now for p in pieces for before, now in zip(p[:-1], p[1:], strict=True)]
    counts = np.bincount([p % 12 for chord in chords for p in chord], minlength=12)
    return Shares(
        float(np.mean([len(chord) for chord in chords])),
        float(np.mean([not chord for chord in chords])),
        float(np.mean(pairs)) if pairs else 0.0,
        counts / max(1, counts.sum()),
    )
