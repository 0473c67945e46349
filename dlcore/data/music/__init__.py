"""Polyphonic music, represented by the pitches that sound at each step."""

from dlcore.data.music.midi import MIDI, midi_bytes, read_midi, write_midi
from dlcore.data.music.notes import (
    LOWEST,
    PITCHES,
    Chord,
    Piece,
    Shares,
    chord_text,
    most_notes,
    note_name,
    parse_chord,
    parse_piece,
    piece_text,
    shares,
    voices_text,
)
from dlcore.data.music.reading import MusicData, load_music
from dlcore.data.music.rolls import Rolls, to_piece, to_roll, transposed

__all__ = [
    "LOWEST",
    "MIDI",
    "PITCHES",
    "Chord",
    "MusicData",
    "Piece",
    "Rolls",
    "Shares",
    "chord_text",
    "load_music",
    "midi_bytes",
    "most_notes",
    "note_name",
    "parse_chord",
    "parse_piece",
    "piece_text",
    "read_midi",
    "shares",
    "to_piece",
    "to_roll",
    "transposed",
    "voices_text",
    "write_midi",
]
