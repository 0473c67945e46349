"""Pieces of music: files of users, piano rolls, and the names of notes."""

import io
import json

import mido
import numpy as np
import pytest

from dlcore.data.loader import Loader
from dlcore.data.music import (
    LOWEST,
    PITCHES,
    Rolls,
    load_music,
    midi_bytes,
    most_notes,
    parse_piece,
    piece_text,
    read_midi,
    shares,
    to_piece,
    to_roll,
    transposed,
)
from dlcore.errors import InputError

PIECES = [[[60, 64], [62]], [[60], [], [67]], [[48, 52, 55, 60]]]


def write_json(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def midi_file(path, *tracks, beat=480, kind=1):
    """Writes a MIDI file of tracks: lists of (kind, channel, pitch, velocity, ticks before)."""
    file = mido.MidiFile(ticks_per_beat=beat, type=kind)
    for events in tracks:
        track = mido.MidiTrack()
        for name, channel, pitch, velocity, ticks in events:
            track.append(
                mido.Message(name, channel=channel, note=pitch, velocity=velocity, time=ticks)
            )
        file.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)
    return path


def note(pitch, start, ticks, channel=0):
    return [("note_on", channel, pitch, 64, start), ("note_off", channel, pitch, 0, ticks)]


# JSON.


def test_a_json_file_of_parts(tmp_path):
    path = write_json(
        tmp_path / "a.json", {"train": PIECES, "valid": PIECES[:1], "test": PIECES[1:]}
    )
    music = load_music(data_path=path)
    assert music.train[0] == ((60, 64), (62,)) and music.train[1] == ((60,), (), (67,))
    assert len(music.valid) == 1 and len(music.test) == 2 and music.entropy is None
    assert music.notes == () and most_notes(music.train) == 4


@pytest.mark.parametrize(("count", "test"), [(2, [1]), (4, [3]), (5, [4]), (11, [4, 9])])
def test_every_fifth_piece_of_a_list_is_held_out(tmp_path, count, test):
    pieces = [[[60 + n]] for n in range(count)]
    music = load_music(data_path=write_json(tmp_path / "a.json", pieces))
    assert music.test == [((60 + n,),) for n in test]
    assert len(music.train) + len(music.test) == count and music.valid is None


def test_what_is_left_out_or_changed_is_counted(tmp_path):
    pieces = [[[60, 60, 20, 110]] * 5, [[64]]]
    music = load_music(data_path=write_json(tmp_path / "a.json", pieces), limit=2)
    assert music.train == [((60,), (60,)), ((60,), (60,)), ((60,),)]
    notes = "\n".join(music.notes)
    assert "5 pitches that a chord has twice taken once" in notes
    assert "10 notes outside of A0 to C8 left out" in notes
    assert "1 pieces of more than 2 steps cut into several" in notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[", r"a.json is not JSON \(line 1: "),
        ("", r"a.json is not JSON"),
        ("[" * 100_000, r"a.json is not JSON; it should hold"),
        ("5", "is a number; it should hold a list of pieces"),
        ('"x"', "is a text; it should"),
        ("{}", "has the keys none; it should"),
        ({"train": PIECES}, "has the keys train; it should"),
        ({"train": PIECES, "test": PIECES, "other": []}, "has the keys train, test, other"),
        ({"train": {}, "test": PIECES}, "a.json, train is an object; it should"),
        ({"train": [], "test": PIECES}, "a.json, train has no pieces; give some"),
        ([PIECES[0]], "has 1 piece; give two or more"),
        ([PIECES[0], []], "piece 2 has no chords; leave it out"),
        ([PIECES[0], None], "piece 2 is null; give a list of chords"),
        ([PIECES[0], [[60], 62]], "piece 2, step 2 is a number; give a list of pitches"),
        ([PIECES[0], [[60], [128]]], "piece 2, step 2 has 128, which is not a MIDI pitch"),
        ([PIECES[0], [[60], [-1]]], "step 2 has -1, which is not a MIDI pitch"),
        ([PIECES[0], [[60], [60.5]]], "has 60.5, which is not a MIDI pitch"),
        ([PIECES[0], [[True]]], "step 1 has true, which is not a MIDI pitch"),
        ([PIECES[0], [["C4"]]], 'has "C4", which is not a MIDI pitch'),
        ("[[[NaN]], [[60]]]", "has NaN, which is not a MIDI pitch"),
    ],
)
def test_bad_json_is_one_clear_line(tmp_path, content, message):
    path = write_json(tmp_path / "a.json", content)
    with pytest.raises(InputError, match=message) as error:
        load_music(data_path=path)
    assert "\n" not in str(error.value) and "a.json" in str(error.value)


def test_paths_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_music(data_path=tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b"[\n\xff]")
    with pytest.raises(InputError, match="line 2 of .*bad.json is not UTF-8"):
        load_music(data_path=tmp_path / "bad.json")
    with pytest.raises(InputError, match="has no files that end in .mid or .midi"):
        load_music(data_path=tmp_path)


# MIDI.


def test_a_midi_file_at_steps_of_a_beat(tmp_path):
    # Two tracks: a note of two beats, a shorter one at the half, and percussion.
    path = midi_file(
        tmp_path / "a.mid",
        [*note(60, 0, 960)],
        [*note(67, 240, 240), *note(35, 0, 480, channel=9)],
    )
    assert read_midi(path, 1) == ((60, 67), (60,))
    assert read_midi(path, 2) == ((60,), (60, 67), (60,), (60,))
    # The shortest note is heard.
    short = midi_file(tmp_path / "b.mid", [*note(60, 0, 10), *note(62, 470, 480)])
    assert read_midi(short, 1) == ((60,), (62,))


def test_what_midi_files_have_too_much_of_is_counted(tmp_path):
    over = [
        ("note_on", 0, 60, 64, 0),
        ("note_on", 0, 60, 64, 480),
        ("note_off", 0, 60, 0, 480),
        ("note_off", 0, 60, 0, 480),
        ("note_on", 0, 10, 64, 0),
        ("note_on", 0, 10, 0, 480),
        ("note_on", 0, 72, 64, 0),
        ("note_off", 0, 50, 0, 960),
        *note(40, 0, 100, channel=9),
    ]
    for name in ("a", "b"):
        midi_file(tmp_path / f"{name}.mid", over)
    (tmp_path / "readme.txt").write_text("notes", encoding="utf-8")
    music = load_music(data_path=tmp_path)
    assert music.train[0] == ((60,), (60,), (60,), (), (72,), (72,))
    text = "\n".join(music.notes)
    for expected in (
        "2 notes of percussion left out",
        "2 notes that begin while their pitch sounds joined with it",
        "2 notes without an end held to that of the file",
        "2 notes outside of A0 to C8 left out",
        "1 files that are no MIDI files by their names not read",
    ):
        assert expected in text, text


def test_folders_are_the_parts_of_the_data(tmp_path):
    for n, name in enumerate(["train/a", "train/deep/b", "test/c", "val/d", "e"]):
        midi_file(tmp_path / f"{name}.mid", note(60 + n, 0, 480))
    music = load_music(data_path=tmp_path)
    assert music.train == [((60,),), ((61,),)] and music.test == [((62,),)]
    assert music.valid == [((63,),)]
    assert "1 MIDI files outside of the folders train, test and valid not read" in music.notes[0]
    (tmp_path / "test" / "c.mid").unlink()
    with pytest.raises(InputError, match="has a folder train of MIDI files but none named test"):
        load_music(data_path=tmp_path)


def test_bad_midi_files_are_one_clear_line(tmp_path):
    good = midi_file(tmp_path / "good.mid", note(60, 0, 480))
    cases = {
        "not a MIDI file": b"RIFF....",
        "or it is damaged": good.read_bytes()[:30],
        "is not a MIDI file, or it is damaged": b"",
    }
    for message, data in cases.items():
        bad = tmp_path / "bad.mid"
        bad.write_bytes(data)
        with pytest.raises(InputError, match=message) as error:
            read_midi(bad, 1)
        assert "\n" not in str(error.value) and "bad.mid" in str(error.value)
    with pytest.raises(InputError, match="cannot read .*none.mid"):
        read_midi(tmp_path / "none.mid", 1)
    drums = midi_file(tmp_path / "drums.mid", note(40, 0, 480, channel=9))
    with pytest.raises(InputError, match="has no notes other than percussion"):
        read_midi(drums, 1)
    long = midi_file(tmp_path / "long.mid", note(60, 200_000 * 480, 480))
    with pytest.raises(InputError, match="200,001 steps, and 100,000 are the most"):
        read_midi(long, 1)
    tracks = midi_file(tmp_path / "two.mid", note(60, 0, 480), kind=2)
    with pytest.raises(InputError, match="tracks that are not one piece"):
        read_midi(tracks, 1)
    data = bytearray(good.read_bytes())
    data[12:14] = b"\xe7\x28"  # SMPTE: 25 frames of 40 ticks
    (tmp_path / "smpte.mid").write_bytes(data)
    with pytest.raises(InputError, match="times that are not beats"):
        read_midi(tmp_path / "smpte.mid", 1)
    with pytest.raises(InputError, match="is one piece"):
        load_music(data_path=good)


def test_any_damage_is_an_input_error_or_a_piece(tmp_path):
    data = midi_file(tmp_path / "a.mid", note(60, 0, 480), note(67, 240, 240)).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "b.mid").write_bytes(broken)
        try:
            piece = read_midi(tmp_path / "b.mid", 1)
        except InputError as error:
            assert "b.mid" in str(error) and "\n" not in str(error)
        else:
            assert any(piece)


@pytest.mark.parametrize("steps_per_beat", [1, 2, 7])
def test_what_is_written_is_read_again(tmp_path, steps_per_beat):
    rng = np.random.default_rng(0)
    piece = to_piece(np.concatenate([rng.random((30, PITCHES)) < 0.05, np.ones((1, PITCHES))]))
    (tmp_path / "a.mid").write_bytes(midi_bytes(piece, steps_per_beat))
    assert read_midi(tmp_path / "a.mid", steps_per_beat) == piece
    # Pitches of neighbouring steps are one note.
    held = mido.MidiFile(file=io.BytesIO(midi_bytes(((60,), (60,), (60, 64)), 1)))
    assert sum(message.type == "note_on" for message in held) == 2 and held.length == 1.5


# Rolls.


def test_batches_are_padded_to_one_of_two_lengths():
    pieces = [tuple((60 + n,) for _ in range(n)) for n in (2, 3, 3, 3, 9)]
    split = Rolls(pieces)
    assert split.buckets == (3, 9)
    batch = split.gather(np.array([1, 0]))
    assert batch["roll"].shape == (2, 3, PITCHES) and batch["length"].tolist() == [3, 2]
    assert split.gather(np.array([0]), among=np.array([0, 4]))["roll"].shape[1] == 9
    assert split.subset(np.array([4])).gather(np.array([0]))["length"] == [9]
    for row, index in enumerate((1, 0)):
        assert to_piece(batch["roll"][row, : len(pieces[index])]) == pieces[index]
    assert not batch["roll"][1, 2:].any()
    with pytest.raises(ValueError, match="piece 1 of 2 has no step"):
        Rolls([((60,),), ()])


def test_transposition_is_a_function_of_the_seed_the_step_and_the_row():
    pieces = [((LOWEST,), ()), ((60, 64), (62,)), ((LOWEST + PITCHES - 1,),), ((), ())]
    loader = Loader(Rolls(pieces), 4, seed=0)

    def shifted(start, **part):
        return transposed(loader.batches(start), start, 3, seed=5, batch_size=4, **part)

    seen = set()
    stream, plain = shifted(0), loader.batches(0)
    for _ in range(40):
        batch, before = next(stream), next(plain)
        np.testing.assert_array_equal(batch["roll"].sum(-1), before["roll"].sum(-1))
        for new, old in zip(batch["roll"], before["roll"], strict=True):
            ours, theirs = to_piece(new), to_piece(old)
            if any(theirs):
                shift = max(map(max, filter(None, ours))) - max(map(max, filter(None, theirs)))
                assert tuple(tuple(p + shift for p in chord) for chord in theirs) == ours
                seen.add((max(theirs), shift))
    assert {shift for chord, shift in seen if chord == (LOWEST,)} == {0, 1, 2, 3}
    assert {shift for chord, shift in seen if chord == (62,)} == set(range(-3, 4))
    assert {shift for chord, shift in seen if chord == (LOWEST + PITCHES - 1,)} == {-3, -2, -1, 0}
    stream = shifted(0)
    whole = [next(stream)["roll"] for _ in range(4)]
    np.testing.assert_array_equal(next(shifted(3))["roll"], whole[3])
    parts = Loader(Rolls(pieces), 4, seed=0, process_index=1, process_count=2)
    half = transposed(
        parts.batches(2), 2, 3, seed=5, batch_size=4, process_index=1, process_count=2
    )
    np.testing.assert_array_equal(next(half)["roll"], whole[2][2:])


# Names.


def test_texts_of_pieces_and_back():
    rng = np.random.default_rng(1)
    piece = to_piece(rng.random((200, PITCHES)) < 0.03)
    assert parse_piece(piece_text(piece)) == piece
    assert parse_piece(" Bb3  a#3+C4\t. B#3 Cb4") == ((58,), (58, 60), (), (60,), (59,))
    assert np.array_equal(to_roll(((21, 108),))[0].nonzero()[0], [0, 87])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("H4", "'H4' is not a note; write names such as C4"),
        ("C", "'C' is not a note"),
        ("C4+", "'' is not a note"),
        ("C4 60", "'60' is not a note"),
        ("A-1", "A-1 is not a key of a piano; give notes from A0 to C8"),
        ("C#8", "C#8 is not a key of a piano"),
        ("  ", "an empty line has no notes"),
    ],
)
def test_bad_notes_are_one_clear_line(text, message):
    with pytest.raises(InputError, match=message.replace("#", r"\#")):
        parse_piece(text)


def test_shares_by_hand():
    found = shares([((60, 72), (60, 72), ()), ((61,),)])
    assert (found.notes, found.silent, found.repeated) == (1.25, 0.25, 0.5)
    assert found.classes[:2].tolist() == [0.8, 0.2]
