"""The job of polyphonic music, as a user runs it."""

import json

import jax
import mido
import networks
import numpy as np
import pytest
from in_process import run_here

import dlcore
from dlcore import launch, runtime
from dlcore.data.music import load_music, parse_piece, read_midi, to_roll
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.launch.task import make_state
from dlcore.metrics import frame_accuracy
from dlcore.models.chords import DRAWN
from dlcore.train import guard

Music = jobs.task_class("music")
Config, _ = Music.parts()
TINY = ["--hidden=8", "--batch_size=8", "--generate=8"]


def task_of(data_dir, **options):
    given = {"hidden": 8, "batch_size": 8, "generate": 8, "data_dir": str(data_dir), **options}
    if given.get("model") != "independent":
        given.setdefault("chord_hidden", 4)
    task = Music(Config(**given))
    return task, task.data()


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run of a few seconds, its outcome and its folder."""
    folder = tmp_path_factory.mktemp("run")
    config = Config(
        steps=150,
        hidden=32,
        chord_hidden=16,
        dropout=0.0,
        learning_rate=0.01,
        eval_every=0,
        generate=12,
        report=True,
        data_dir=str(data_dir),
        workdir=str(folder),
    )
    return launch.run(Music(config)), folder


def test_it_learns_and_no_more_than_there_is(trained, data_dir):
    outcome, folder = trained
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["entropy_rate"] == pytest.approx(2.9866, abs=1e-3)
    later = outcome.metrics["later_loss"]
    # Pitches by how often they sound, each on its own.
    train, test = (np.concatenate([*map(to_roll, part)]) for part in _pieces(data_dir))
    p = train.mean(0).clip(1e-4, 1 - 1e-4)
    apart = -(test * np.log(p) + (1 - test) * np.log(1 - p)).sum(1).mean()
    assert summary["entropy_rate"] < later < apart - 1
    assert 0.1 < outcome.metrics["accuracy"] < 1


def _pieces(data_dir):
    data = load_music(data_dir=data_dir)
    return data.train, data.test


def test_the_loss_counts_all_steps_alike(data_dir):
    task, data = task_of(data_dir, model="independent", batch_size=5)
    state = make_state(task)
    sums = {}
    for batch in data.test():
        for name, mean in jax.jit(task.metrics)(state, batch).items():
            sums[name] = sums[name].merge(mean) if name in sums else mean
    pieces = task.tested
    count = sum(map(len, pieces))
    assert float(sums["loss"].weight) == count
    assert float(sums["later_loss"].weight) == count - len(pieces)

    # Each piece on its own, padded after its end, where nothing is counted.
    @jax.jit
    def logits_of(roll):
        return task.model.apply({"params": state.params}, roll)[0].logits

    again = []
    for piece in pieces:
        roll = np.pad(to_roll(piece), ((0, 64 - len(piece)), (0, 0))).astype(np.float32)
        logits = np.asarray(logits_of(roll[None]))[0]
        nats = np.logaddexp(0, np.where(roll > 0, -logits, logits)).sum(1)
        again.append(nats[: len(piece)])
    assert float(sums["loss"].compute()) == pytest.approx(np.concatenate(again).mean(), rel=1e-5)
    later = np.concatenate([nats[1:] for nats in again]).mean()
    assert float(sums["later_loss"].compute()) == pytest.approx(later, rel=1e-5)


def test_frame_accuracy_by_hand():
    found = np.array([[[1, 1, 0], [0, 0, 0]], [[1, 0, 1], [1, 1, 1]]])
    true = np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 1], [0, 0, 0]]])
    mean = frame_accuracy(found, true, np.float32([[1, 1], [1, 0]]))
    assert (float(mean.total), float(mean.weight)) == (3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nade", "rnn_rbm"])
def test_accumulation_and_layouts_agree(data_dir, model):
    found = {}
    for name, accumulate in (("jit", 1), ("jit", 2), ("pmap", 1)):
        task, data = task_of(data_dir, model=model, accumulate=accumulate, transpose=2)
        layout = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), layout)
        state = layout.initialise(lambda task=task: make_state(task))
        state, metrics = compiled(state, next(data.train(0)))
        found[name, accumulate] = state.params, float(metrics["loss"].compute())
    one = found["jit", 1]
    for other in found.values():
        assert other[1] == pytest.approx(one[1], rel=1e-5)
        networks.assert_close(other[0], one[0], tolerance=1e-4)


def test_its_report_shows_music(trained):
    _, folder = trained
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    for shown in ("composed.png", "completed.png", "by its voices", "chords that stay"):
        assert shown in page
    assert [*(folder / "samples").glob("*.mid")] and [*(folder / "samples").glob("*.png")]


@pytest.mark.slow
def test_a_run_in_parts_is_the_run_in_one(capfd, data_dir, tmp_path):
    flags = [*TINY, f"--data_dir={data_dir}", "--schedule=constant", "--log_every=1",
             "--eval_every=0", "--transpose=1", "--model=independent"]  # fmt: skip
    for folder, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        at = f"--workdir={tmp_path / folder}"
        process = run_here(capfd, "music", [*flags, f"--steps={steps}", at])
        assert process.returncode == 0, process.stderr
        assert "at most 4 notes together" in process.stderr
        assert "the least later_loss that is possible is 2.987 nats" in process.stderr
    whole, parts = (dlcore.load(tmp_path / folder) for folder in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


@pytest.mark.slow
def test_the_smoke_test_of_a_machine_in_bfloat16(capfd, data_dir, tmp_path):
    flags = ["--smoke", f"--data_dir={data_dir}", f"--workdir={tmp_path}", "--model=rnn_rbm",
             "--k=2", "--gibbs=3", "--precision=bfloat16", "--hidden=8"]  # fmt: skip
    process = run_here(capfd, "music", flags)
    assert process.returncode == 0, process.stderr
    assert "loss_above" in process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nade", "rnn_rbm"])
def test_the_checks_pass(capfd, data_dir, model):
    flags = [f"--data_dir={data_dir}", "--hidden=64", "--check", f"--model={model}"]
    process = run_here(capfd, "music", [*flags, "--batch_size=4"])
    assert process.returncode == 0, process.stdout + process.stderr


# Use.


def test_it_composes_after_a_first_chord(capfd, trained):
    _, folder = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    flags = [f"--workdir={folder}", "--generate=6", "--pieces=2", "--first=C3+G3+E4+C5"]
    texts = []
    for _ in range(2):
        process = run_here(capfd, "music", flags)
        assert process.returncode == 0, process.stderr
        texts.append(process.stdout)
    assert "piece_002.mid" in texts[0] and "piece_004.mid" in texts[1]
    for n in (1, 2, 3, 4):
        piece = read_midi(folder / "composed" / f"piece_{n:03}.mid", 1)
        assert piece[0] == (48, 55, 64, 72) and len(piece) <= 6
        assert (folder / "composed" / f"piece_{n:03}.png").exists()
    first, second = (read_midi(folder / "composed" / f"piece_{n:03}.mid", 1) for n in (1, 2))
    assert first != second
    assert all(path.read_bytes() == content for path, content in before.items())


def test_melodies_are_kept_and_completed(capfd, trained, tmp_path):
    _, folder = trained
    melodies = ["C5 C5 D5 E5", "E5 C4+G4 . G4 G4", "C5 C5 D5 E5"]
    (tmp_path / "m.txt").write_text("\n".join(melodies) + "\n", encoding="utf-8")
    flags = [f"--workdir={folder}", f"--predict={tmp_path / 'm.txt'}"]
    process = run_here(capfd, "music", flags)
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [row["input"] for row in rows] == melodies
    assert rows[0]["piece"] == rows[2]["piece"]  # whatever stands beside it
    for melody, row in zip(melodies, rows, strict=True):
        for given, chord in zip(parse_piece(melody), parse_piece(row["piece"]), strict=True):
            assert {*given} <= {*chord} and (not given or max(chord) == max(given))
    assert any(len(chord) > 1 for chord in parse_piece(rows[0]["piece"]))
    process = run_here(capfd, "music", [*flags, f"--predict_to={tmp_path / 'out'}"])
    assert process.returncode == 0, process.stderr
    assert len([*(tmp_path / "out").glob("*.mid")]) == 3
    assert read_midi(tmp_path / "out" / "0001.mid", 1) == parse_piece(rows[0]["piece"])
    # A loaded run says the same, one by one.
    loaded = dlcore.load(folder)
    assert loaded.answers(melodies[1:2])[0]["piece"] == rows[1]["piece"]


def test_midi_files_are_trained_on(capfd, tmp_path):
    for n in range(3):
        file = mido.MidiFile(ticks_per_beat=96)
        track = mido.MidiTrack()
        file.tracks.append(track)
        for step in range(6):
            track.append(mido.Message("note_on", note=60 + step + n, velocity=9, time=0))
            track.append(mido.Message("note_off", note=60 + step + n, velocity=0, time=48))
        file.save(tmp_path / f"{n}.mid")
    flags = [f"--data_path={tmp_path}", "--smoke", "--steps_per_beat=2", "--model=independent"]
    process = run_here(capfd, "music", [*flags, f"--workdir={tmp_path / 'run'}"])
    assert process.returncode == 0, process.stderr
    assert "2 pieces of 12 steps" in process.stderr and "at most 1 notes" in process.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": "X"}, "--first=X: 'X' is not a note"),
        ({"first": "C9"}, "--first=C9: C9 is not a key of a piano"),
        ({"dataset": "digits"}, "has not exactly one feature of each kind"),
        ({"data_path": "/nowhere.json"}, "does not exist"),
    ],
)
def test_bad_input_is_one_line(data_dir, options, message):
    with pytest.raises(InputError, match=message) as error:
        task_of(data_dir, **options)
    assert "\n" not in str(error.value)


def test_a_line_that_is_no_melody_is_named(trained):
    _, folder = trained
    with pytest.raises(InputError, match="line 2: 'Q4' is not a note"):
        dlcore.load(folder).predict(["C4", "Q4"])
    with pytest.raises(InputError, match="line 1: an empty line has no notes"):
        dlcore.load(folder).predict([""])


def test_flags_of_other_laws_are_refused():
    for model, options in (
        ("independent", {"chord_hidden": 3}),
        ("nade", {"k": 3}),
        ("nade", {"ais_steps": 3}),
    ):
        with pytest.raises(InputError, match="does not read"):
            Config(model=model, **options)


def test_nothing_is_given_of_a_first_chord_that_is_drawn(data_dir):
    task, _ = task_of(data_dir, model="independent")
    assert (np.asarray(task.opening()) == DRAWN).all()
