"""Word vectors as a user makes them: learning, files, resuming, evaluation, and bad input."""

import csv
import hashlib
import json
import random
import shutil
import signal
import time

import numpy as np
import pytest
from outcomes import assert_fails, summary

import dlcore
from dlcore import launch
from dlcore.data.text import Vectors, read_vectors, write_vectors
from dlcore.launch import jobs

KINDS = {"fruit": "apple pear plum cherry fig", "metal": "iron zinc lead copper tin"}
FRAMES = {"fruit": "eat a sweet {} now please", "metal": "melt the heavy {} bar here"}


def lines(count, seed=0):
    draw = random.Random(seed)
    kinds = (draw.choice([*KINDS]) for _ in range(count))
    return "".join(f"{FRAMES[kind].format(draw.choice(KINDS[kind].split()))}\n" for kind in kinds)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "text.txt").write_text(lines(4000))
    (folder / "similar.tsv").write_text(
        "word1\tword2\tscore\napple\tpear\t9\niron\tzinc\t8\napple\tzinc\t1\npear\tlead\t2\n"
    )
    (folder / "questions.txt").write_text(": things\napple pear iron zinc\nApple Pear Tin Gold\n")
    write_vectors(folder / "vectors", Vectors(["a", "b"], np.eye(2, dtype=np.float32)))
    (folder / "cut").write_bytes(b"2 3\na 1 2 3\nb 1 2\n")
    (folder / "commas").write_text("paris, new york, rome\n" * 99)
    (folder / "empty.txt").write_text("")
    return folder


WORD2VEC = ["--batch_size=1024", "--subsample=0", "--validation=0.1"]
GLOVE = ["--model=glove"]


@pytest.fixture
def kind():
    return WORD2VEC


@pytest.fixture
def job():
    return "word_vectors"


@pytest.fixture
def common_flags(files, kind):
    return [f"--data_path={files / 'text.txt'}", "--features=16", "--window=3", *kind]


def hashes(folder):
    """The content of each file of a folder, by its path."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_learns_and_leaves_its_files(run, files, tmp_path):
    process = run(
        "--epochs=8", "--eval_every=10", f"--workdir={tmp_path}", "--report", "--neighbours=fig",
        f"--similarities={files / 'similar.tsv'}", f"--analogies={files / 'questions.txt'}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path)
    # Those of one kind are more similar than a fruit and a metal, in whatever order else.
    assert found["metrics"]["similarity_similar"] > 0.59 and found["words_per_second"] > 0
    nearest = process.stdout.split("fig: ")[1].split("\n")[0]
    assert {word.split()[0] for word in nearest.split(", ")[:4]} == {*KINDS["fruit"].split()[:4]}
    vectors = read_vectors(tmp_path / "vectors.txt")
    assert len(vectors.words) == 20 and vectors.matrix.shape[1] == 16
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("Analogies", "Word similarity", "Neighbours"))
    losses = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) >= 8


@pytest.mark.parametrize(
    "flags",
    [
        ("--model=cbow_mean", "--original_gradient", "--format=word2vec_binary"),
        ("--model=skip_gram", "--objective=hierarchical", "--fixed_window"),
        ("--model=cbow_sum", "--objective=nce", "--phrases=1", "--phrase_threshold=1"),
        pytest.param(
            ("--objective=full", "--subsampling=paper", "--subsample=0.01"), marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_every_choice_passes_the_smoke_test(run, tmp_path, flags):
    process = run("--smoke", f"--workdir={tmp_path}", *flags)
    assert process.returncode == 0, process.stderr
    assert np.isfinite(list(summary(tmp_path)["metrics"].values())).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GLOVE], ids=["glove"])
def test_glove_learns_from_counts(run, tmp_path):
    process = run(
        "--epochs=60", f"--workdir={tmp_path}", "--neighbours=fig", "--x_max=1000",
        "--combine=average", "--checkpoint_every=0",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["metrics"]["loss"] < 0.01
    assert "cells_per_second" in summary(tmp_path)
    nearest = process.stdout.split("fig: ")[1].split("\n")[0].split(", ")
    assert {word.split()[0] for word in nearest[:4]} == {*KINDS["fruit"].split()[:4]}


@pytest.mark.slow
def test_unseen_words_are_made_of_their_parts(run, tmp_path):
    process = run(
        "--epochs=4", "--subwords", "--buckets=500", "--neighbours=apples", f"--workdir={tmp_path}"
    )
    assert process.returncode == 0, process.stderr
    nearest = process.stdout.split("apples: ")[1].split("\n")[0].split(", ")
    assert {word.split()[0] for word in nearest[:5]} == {*KINDS["fruit"].split()}
    assert "apples" not in read_vectors(tmp_path / "vectors.txt").words
    again = run("--epochs=4", "--neighbours=apples", f"--workdir={tmp_path / 'plain'}")
    assert_fails(again, "'apples'", "apple")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [WORD2VEC, GLOVE], ids=["word2vec", "glove"])
def test_a_killed_run_continues_bit_for_bit(run, start, tmp_path):
    flags = ("--steps=300", "--eval_every=50", "--checkpoint_every=20", "--log_every=10")
    whole = run(*flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    process = start(*flags, f"--workdir={killed}")
    while process.poll() is None and not list(killed.glob("checkpoints/[0-9]*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(*flags, f"--workdir={killed}")
    assert again.returncode == 0, again.stderr
    for name in ("vectors.txt", "metrics.jsonl"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_tables_over_four_devices_learn_the_same(run, tmp_path, monkeypatch):
    # One device would take the C function, which sums losses in double precision.
    monkeypatch.setenv("CC", "/no/such/compiler")
    flags = ("--steps=6", "--log_every=1", "--checkpoint_every=0")
    layout = ("--layout=mesh", "--mesh=data=1,model=4", "--shard=input|output:model,-")
    losses = []
    for name, devices, more in (("one", 1, ()), ("four", 4, layout)):
        process = run(*flags, *more, f"--workdir={tmp_path / name}", devices=devices)
        assert process.returncode == 0, process.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert len(losses[0]) == 7
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_any_file_is_evaluated_alone(run, files, tmp_path):
    process = run(f"--vectors={files / 'vectors'}", "--neighbours=a", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert "a: b 0.00" in process.stdout and not [*tmp_path.iterdir()]


def test_of_a_file_with_faults_what_can_be_read_is_evaluated(run, files, tmp_path):
    process = run(f"--vectors={files / 'cut'}", "--neighbours=a", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert "cut: not read as it should be: line 3: expected 3 values" in process.stderr
    more = ("--strict", "--limit=1", "--neighbours=a", f"--workdir={tmp_path}")
    process = run(f"--vectors={files / 'cut'}", *more)
    assert process.returncode == 0 and "1 vectors of 3 numbers" in process.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data_path={}/nowhere"], ("nowhere",)),
        (["--data_path={}/empty.txt"], ("empty.txt",)),
        (["--min_count=100000"], ("100000",)),
        (["--batch_size=100000"], ("hold out", "smaller batches")),
        (["--splitter=regex:("], ("regex:(",)),
        (["--optimizer=adam"], ("flag 'optimizer'",)),
        (["--subsample=2"], ("--subsample=2.0 is not a number from 0 to 1",)),
        (["--features=0"], ("--features=0 is not an integer from 1",)),
        (["--vectors={}/cut", "--strict"], ("line 3", "expected 3 values")),
        (
            ["--data_path={}/commas", "--splitter=regex:[^,]+", "--min_count=1"],
            ("the word ' new york'", "format word2vec"),
        ),
        (["--vectors={}/vectors", "--neighbours=c"], ("'c'",)),
        (["--analogies={}/nothing"], ("nothing",)),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line(run, files, tmp_path, flags, words):
    process = run(*(flag.format(files) for flag in flags), f"--workdir={tmp_path / 'run'}")
    assert_fails(process, *words)
    assert not (tmp_path / "run" / "vectors.txt").exists()


@pytest.mark.parametrize("kind", [()], ids=[""])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=glove", "--subsample=0"], ("--model=glove does not read --subsample",)),
        (["--model=glove", "--subwords"], ("--model=glove does not read --subwords",)),
        (["--model=glove", "--batch_size=32768"], ("--model=glove does not read --batch_size",)),
        (["--model=glove", "--validation=0"], ("--model=glove does not read --validation",)),
        (["--model=glove", "--schedule=constant"], ("--model=glove does not read --schedule",)),
        (["--model=glove", "--warmup_steps=3"], ("--model=glove does not read --warmup_steps",)),
        (["--x_max=10"], ("--model=skip_gram does not read --x_max",)),
        (["--model=cbow_sum", "--combine=word"], ("--model=cbow_sum does not read --combine",)),
        (["--original_gradient"], ("--model=skip_gram does not read --original_gradient",)),
        (["--buckets=100"], ("--nosubwords does not read --buckets",)),
        (["--longest=4"], ("--nosubwords does not read --longest",)),
        (["--objective=full", "--samples=3"], ("--objective=full does not read --samples",)),
        (
            ["--objective=hierarchical", "--exponent=1"],
            ("--objective=hierarchical does not read --exponent",),
        ),
        (["--subsample=0", "--subsampling=paper"], ("--subsample=0.0", "--subsampling")),
        (["--phrase_threshold=3"], ("--phrases=0 does not read --phrase_threshold",)),
        (["--decay_share=0.1"], ("--schedule=linear does not read --decay_share",)),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_flags_that_are_not_read_are_refused(run, tmp_path, flags, words):
    assert_fails(run(*flags, f"--workdir={tmp_path / 'run'}"), *words)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def ended(files, tmp_path_factory):
    """The folders of three runs that have ended, by what they learn."""
    folder = tmp_path_factory.mktemp("ended")
    common = {"data_path": str(files / "text.txt"), "features": 16, "window": 3}
    word2vec = {**common, "batch_size": 1024, "subsample": 0.0, "validation": 0.1, "epochs": 4.0}
    kinds = {
        "skip_gram": word2vec,
        "subwords": {**word2vec, "subwords": True, "buckets": 500},
        "glove": {**common, "model": "glove", "epochs": 60.0},
    }
    task = jobs.task_class("word_vectors")
    config, _ = task.parts()
    for name, values in kinds.items():
        launch.run(task(config(**values, workdir=str(folder / name))))
    return folder


QUESTIONS = ["--neighbours=fig", "--similarities={}/similar.tsv", "--analogies={}/questions.txt"]


@pytest.mark.parametrize("kind", [()], ids=[""])
@pytest.mark.parametrize("name", ["skip_gram", "subwords", "glove"])
def test_a_run_that_has_ended_is_evaluated_without_training(run, files, ended, name):
    before = hashes(ended / name)
    asked = [flag.format(files) for flag in QUESTIONS]
    process = run(f"--workdir={ended / name}", *asked)
    assert process.returncode == 0, process.stderr
    nearest = process.stdout.split("fig: ")[1].split("\n")[0].split(", ")
    assert {word.split()[0] for word in nearest[:4]} == {*KINDS["fruit"].split()[:4]}
    assert "Spearman" in process.stdout and "3cosadd" in process.stdout
    assert "word_vectors: test" not in process.stdout
    process = run(f"--workdir={ended / name}", "--neighbours=apples")
    if name == "subwords":
        nearest = process.stdout.split("apples: ")[1].split("\n")[0].split(", ")
        assert {word.split()[0] for word in nearest[:5]} == {*KINDS["fruit"].split()}
    else:
        assert_fails(process, "'apples'")
    assert_fails(run(f"--workdir={ended / name}", "--features=7", *asked), "features", "7")
    assert hashes(ended / name) == before


@pytest.mark.parametrize("kind", [()], ids=[""])
def test_more_epochs_beside_a_question_train_on(run, ended, tmp_path):
    shutil.copytree(ended / "skip_gram", tmp_path / "run")
    flags = [f"--flagfile={tmp_path / 'run' / 'flags.txt'}", f"--workdir={tmp_path / 'run'}"]
    process = run(*flags, "--epochs=5", "--neighbours=fig")
    assert process.returncode == 0, process.stderr
    assert "fig: " in process.stdout
    steps = summary(ended / "skip_gram")["step"]
    assert summary(tmp_path / "run")["step"] == steps * 5 // 4


@pytest.mark.parametrize("kind", [()], ids=[""])
def test_another_corpus_is_not_trained_on_further(run, files, ended, tmp_path):
    (tmp_path / "text.txt").write_text(lines(4000))
    shutil.copytree(ended / "skip_gram", tmp_path / "run")
    flags = [f"--data_path={tmp_path / 'text.txt'}", f"--workdir={tmp_path / 'run'}", "--epochs=9"]
    flagfile = f"--flagfile={tmp_path / 'run' / 'flags.txt'}"
    assert_fails(run(flagfile, *flags), "data_path")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace(str(files), str(tmp_path)))
    for text, words in ((lines(4001), "corpus size"), (lines(4000).replace("fig", "kiwi"), "kiwi")):
        (tmp_path / "text.txt").write_text(text)
        assert_fails(run(flagfile, *flags), words, "restore the data")


@pytest.mark.parametrize("name", ["skip_gram", "subwords", "glove"])
def test_a_loaded_run_gives_its_vectors_and_neighbours(ended, name):
    before = hashes(ended / name)
    trained = dlcore.load(ended / name)
    written = read_vectors(ended / name / "vectors.txt")
    vectors = trained.task.vectors(trained.variables)
    assert vectors.words == written.words == [*trained.info.words]
    np.testing.assert_array_equal(vectors.matrix, written.matrix)
    assert trained.info.counts.sum() == 24_000 == trained.info.corpus_size
    (nearest,) = trained.predict(["Fig"])
    assert {answer.word for answer in nearest[:4]} == {*KINDS["fruit"].split()[:4]}
    row, other = trained.answers(["fig", "apples"])
    assert row["neighbour"] == nearest[0].word and len(row["neighbours"]) == 10
    if name == "subwords":
        assert other["neighbour"] in KINDS["fruit"].split() and 0.3 < other["cosine"] < 1
    else:
        assert other == {"neighbour": None, "cosine": None, "neighbours": []}
    assert hashes(ended / name) == before


@pytest.mark.parametrize("kind", [()], ids=[""])
def test_predictions_are_the_nearest_words(run, ended, tmp_path):
    (tmp_path / "words.txt").write_text("qq\nfig\nzz\ntin\n")
    flags = [f"--workdir={ended / 'skip_gram'}", f"--predict={tmp_path / 'words.txt'}"]
    process = run(*flags)
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [row["input"] for row in rows] == ["qq", "fig", "zz", "tin"]
    assert rows[0]["neighbour"] is None and rows[1]["neighbour"] in KINDS["fruit"].split()
    assert process.stderr.count("no neighbours without --subwords") == 1
    assert run(*flags, f"--predict_to={tmp_path / 'words.csv'}").returncode == 0
    with (tmp_path / "words.csv").open(newline="") as file:
        table = [*csv.DictReader(file)]
    assert table[3]["neighbour_10"] == rows[3]["neighbours"][9]["neighbour"]
    assert table[0]["neighbour"] == table[0]["neighbour_10"] == ""


@pytest.mark.parametrize("kind", [WORD2VEC, GLOVE], ids=["word2vec", "glove"])
def test_check_follows_a_step_of_its_own(run, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = run("--check", "--min_count=1")
    assert process.returncode == 0, process.stdout + process.stderr
    for line in ("ok    parameters", "ok    initial loss", "ok    overfit one batch"):
        assert line in process.stdout
    assert "gradients" not in process.stdout and not [*tmp_path.iterdir()]
    process = run("--check", "--min_count=1", "--learning_rate=0")
    assert process.returncode == 1 and "FAIL  overfit one batch" in process.stdout


@pytest.mark.parametrize("kind", [()], ids=[""])
def test_a_report_on_a_file_spares_the_folder_of_a_run(run, files, ended, tmp_path):
    flags = [f"--vectors={files / 'vectors'}", "--neighbours=a", "--report"]
    before = hashes(ended / "glove")
    assert_fails(run(*flags, f"--workdir={ended / 'glove'}"), "holds a run")
    assert hashes(ended / "glove") == before
    process = run(*flags, f"--workdir={tmp_path / 'new'}")
    assert process.returncode == 0, process.stderr
    assert "Neighbours" in (tmp_path / "new" / "report" / "index.html").read_text(encoding="utf-8")
